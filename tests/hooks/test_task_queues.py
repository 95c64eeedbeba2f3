"""Invariant 2 in the workers of RQ, Huey and Django's tasks framework, with the recipes of docs/tasks.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import rq

from servers import MariaDB
from tests.support import ROOT
from tests.support.celery_site import notes
from tests.support.processes import start_program
from tests.support.programs import django_tasks
from tests.support.programs.running import run
from tests.support.redis_server import Redis
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

#: Seconds; only what hangs needs them.
PATIENCE = 60.0
JOBS = 12


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Site:
    """tests/support/task_queue_site, for a program."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._notes, self._log = folder / "notes", folder / "log"
        self._notes.touch()
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.task_queue_site.settings",
            "TASK_QUEUE_SITE": json.dumps(settings),
            "TASK_NOTES": str(self._notes),
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def program(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """The block waits for its end."""
        process = start_program([sys.executable, "-m", *arguments], self._log, self._environment)
        try:
            yield process
            assert process.wait(PATIENCE) == 0, self.log
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def noted(self, event: str) -> list[dict[str, Any]]:
        return [line for line in notes.read(self._notes) if line["event"] == event]


def jobs(site: Site) -> dict[int, set[int]]:
    """The sessions that each process did its jobs in."""
    assert all(line["right"] for line in site.noted("job"))
    processes: dict[int, set[int]] = {}
    for line in site.noted("job"):
        processes.setdefault(line["pid"], set()).add(line["session"])
    return processes


def sessions_of(server: MariaDB, entry: dict[str, Any]) -> list[int]:
    """Other tests may have some, too."""
    return [session.id for session in server.sessions() if session.db == entry["NAME"]]


# --- RQ --------------------------------------------------------------------------------------------------


def work_off(site: Site, server: Redis, worker: str, *calls: tuple[Any, ...]) -> None:
    """Have a worker of RQ's do these, and leave."""
    connection = redis.Redis.from_url(server.url)
    queue = rq.Queue(worker, connection=connection)
    for name, *arguments in calls:
        queue.enqueue(f"tests.support.task_queue_site.jobs.{name}", *arguments, job_timeout=1)
    connection.close()
    options = ["--url", server.url, "--worker-class", f"tests.support.task_queue_site.{worker}"]
    with site.program("rq.cli", "worker", "--burst", *options, worker):
        pass


def test_rq_forking(mariadb: MariaDB, entry: dict[str, Any], redis_server: Redis, tmp_path: Path) -> None:
    """A child for each job, and so a session; all end by a quit packet, and the parent keeps its own."""
    aborted = mariadb.status("Aborted_clients")
    site = Site(tmp_path, DATABASES={"default": entry})
    calls = [("job", number) for number in range(5)]
    work_off(site, redis_server, "rq_forking.ForkingWorker", *calls, ("endless",))
    processes = jobs(site)
    assert len(processes) == len(set.union(*processes.values())) == len(calls) + 1
    assert [line["sockets"] for line in site.noted("inherited")] == [[]] * (len(calls) + 1)
    assert [line["same"] for line in site.noted("parent")] == [True]
    eventually("the server has noticed", lambda: not sessions_of(mariadb, entry))
    assert mariadb.status("Aborted_clients") == aborted


def test_rq_staying(mariadb: MariaDB, entry: dict[str, Any], redis_server: Redis, tmp_path: Path) -> None:
    """One session for all jobs, and nothing kept between them."""
    aborted = mariadb.status("Aborted_clients")
    site = Site(tmp_path, DATABASES={"default": entry})
    calls = [("job", number) for number in range(JOBS)]
    work_off(site, redis_server, "rq_staying.StayingWorker", ("endless",), *calls)
    (sessions,) = jobs(site).values()
    assert len(sessions) == 1
    assert [line["held"] for line in site.noted("over")] == [0] * (JOBS + 1)
    eventually("the server has noticed", lambda: not sessions_of(mariadb, entry))
    assert mariadb.status("Aborted_clients") == aborted


# --- Huey ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "processes"), [("thread", 1), ("process", 2)])
def test_huey(mariadb: MariaDB, entry: dict[str, Any], tmp_path: Path, kind: str, processes: int) -> None:
    aborted = mariadb.status("Aborted_clients")
    huey = {"huey_class": "huey.SqliteHuey", "filename": str(tmp_path / "huey.db"), "immediate": False}
    apps = ["poollife", "tests.support.task_queue_site", "huey.contrib.djhuey"]
    site = Site(tmp_path, DATABASES={"default": entry}, INSTALLED_APPS=apps, HUEY=huey)
    with site.program("django", "run_huey", "--workers", "2", "--worker-type", kind) as consumer:
        eventually("all is done", lambda: len(site.noted("over")) == JOBS)
        consumer.send_signal(signal.SIGINT)
    assert [line["held"] for line in site.noted("over")] == [0] * JOBS
    sessions = set.union(*jobs(site).values())
    assert len(jobs(site)) <= processes
    assert len(sessions) <= 2
    assert site.noted("parent")[0]["session"] not in sessions
    eventually("the server has noticed", lambda: not sessions_of(mariadb, entry))
    assert mariadb.status("Aborted_clients") == aborted


# --- Django's tasks framework ----------------------------------------------------------------------------


def test_django_tasks(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "notes"
    assert run("django_tasks", entry, str(file)) == {
        "same session": True,
        "work": "main.<locals>.caller",
    }
    lines = notes.read(file)
    assert len({line["session"] for line in lines if line["event"] == "job"}) == 1
    # Each has begun with a checkout of its own: the one before had given back.
    checkouts = [line["checkouts"] for line in lines if line["event"] == "begun"]
    assert len(checkouts) == django_tasks.JOBS
    assert sorted(set(checkouts)) == checkouts
