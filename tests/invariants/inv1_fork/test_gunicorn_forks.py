"""Invariant 1 under gunicorn: a preloading master that queried, recycled workers, and views that fork."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB
from tests.support import ROOT
from tests.support.fork_site import gunicorn_conf
from tests.support.processes import start_program
from tests.support.web_server import fetch

pytestmark = [pytest.mark.slow, pytest.mark.servers]

#: Seconds; only what hangs needs them.
PATIENCE = 60.0
REQUESTS = 120
IN_ATOMIC_BLOCK = "Cannot open a new connection in an atomic block."


@contextmanager
def gunicorn(folder: Path, database: dict[str, Any], *arguments: str, without: str = "") -> Iterator[int]:
    """The site, served; the block gets its port.

    :param without: the part of the invariant's code that is taken out.
    """
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.support.fork_site.settings",
        "FORK_SITE_DATABASES": json.dumps({"default": database, "idle": database}),
        "FORK_SITE_FOLDER": str(folder),
        "FORK_SITE_WITHOUT": without,
        "PYTHONPATH": str(ROOT),
    }
    # It listens before gunicorn runs: the first request waits until there is somebody to answer it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gunicorn"]
        command += ["--config", "python:tests.support.fork_site.gunicorn_conf"]
        command += ["--bind", f"fd://{listener.fileno()}", *arguments]
        master = start_program(command, folder / "log", environment, pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
    try:
        yield port
        master.terminate()
        assert master.wait(PATIENCE) == 0
    finally:
        if master.poll() is None:
            os.killpg(master.pid, signal.SIGKILL)
            master.wait()


def get(port: int, path: str) -> dict[str, Any]:
    """What the site answers."""
    status, body = fetch(port, path, PATIENCE)
    assert status == 200, f"{path}: {status}"
    answer: dict[str, Any] = json.loads(body)
    return answer


def notes(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the master noted when it started and when it ended."""
    return json.loads((folder / "start.json").read_text()), json.loads((folder / "end.json").read_text())


@pytest.mark.parametrize("arguments", [("sync",), ("gthread", "--threads", "4")], ids=["sync", "gthread"])
def test_preload(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    arguments: tuple[str, ...],
) -> None:
    """Workers come and go, requests fork, and the master ends in the sessions that it began with."""
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.rows_ (number INTEGER PRIMARY KEY) ENGINE=InnoDB")
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql"}
    aborted = mariadb.status("Aborted_clients")
    kinds = ("/echo/", "/fork/process/", "/echo/", "/fork/fork/")
    paths = [f"{kinds[number % 4]}{number}/" for number in range(1, REQUESTS + 1)]
    with gunicorn(tmp_path, database, "--worker-class", *arguments) as port:
        with ThreadPoolExecutor(4) as crowd:
            answers = list(crowd.map(lambda path: get(port, path), paths))
        alive = {session.id for session in mariadb.sessions()}
    log = (tmp_path / "log").read_text()
    start, end = notes(tmp_path)
    echoes = [answer for path, answer in zip(paths, answers, strict=True) if path.startswith("/echo/")]
    forks = [answer for path, answer in zip(paths, answers, strict=True) if path.startswith("/fork/")]

    # The master: two sessions, alive when the workers had come and gone, and used once more in the end.
    assert start["sockets"] == 2
    assert alive >= set(start["sessions"].values())
    assert end == start
    # The workers: many, none with a socket of the master's, each with sessions that nobody else has used.
    workers = {answer["pid"] for answer in answers}
    # One that has had its share still answers what it had accepted.
    assert len(workers) >= REQUESTS // (2 * gunicorn_conf.max_requests)
    assert start["pid"] not in workers
    assert [answer["inherited"] for answer in echoes] == [[]] * (REQUESTS // 2)
    users: dict[int, set[int]] = {}
    for answer in echoes:
        users.setdefault(answer["session"], set()).add(answer["pid"])
    assert [pids for pids in users.values() if len(pids) > 1] == []
    assert not users.keys() & set(start["sessions"].values())
    # Every answer, whoever asked.
    assert all(answer["right"] for answer in answers)
    # The children: none with an inherited socket, each in a session of its own; all ended normally.
    own = [answer["child"].pop("own", None) for answer in forks]
    child = {"inherited": [], "refusal": IN_ATOMIC_BLOCK, "right": True, "status": 0}
    assert [answer["child"] for answer in forks] == [child] * len(forks)
    assert len({*own, *users, *start["sessions"].values()}) == len(forks) + len(users) + 2
    assert all(answer["same session"] for answer in forks)
    assert mariadb.execute(f"SELECT COUNT(*) FROM {name}.rows_") == [(len(forks),)]
    # The log: workers that boot and leave, and nothing else.
    assert re.findall(r"Traceback|Exception|Error|CRITICAL|WARNING", log) == [], log
    assert log.count("Booting worker") >= len(workers)
    record_property("aborted clients", mariadb.status("Aborted_clients") - aborted)


def test_preload_without_the_guard(mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path) -> None:
    """What happens with the bare driver: the first worker that ends is the end of a session of the master."""
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    with gunicorn(tmp_path, database, "--workers", "1", without="guard") as port:
        assert get(port, "/echo/1/")["inherited"] != []
    start, end = notes(tmp_path)
    assert end["sessions"] != start["sessions"]
