"""Invariants 1, 2 and 4 in Celery's workers: real workers run the site in tests/support/celery_site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.exceptions import TaskRevokedError
from django.db import connections

from poollife.celery import end
from poollife.work import Work, current_work
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.celery_site.worker import VARIANTS, Counts, Worker, measure, sessions
from tests.support.programs.running import run
from tests.support.redis_server import Redis
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

#: What makes it hard: receivers that query, at all moments that Celery tells of, and Celery's own setting for
#: keeping connections from task to task.
QUERIES = ("worker_init", "worker_process_init", "worker_ready")
KEEPING: dict[str, Any] = {"CELERY_DB_REUSE_MAX": 1000}
TASKS = 40


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_a_task_that_is_over_is_marked_so() -> None:
    """What it has started may outlive it, and keep it in a context."""
    work = Work("a task")

    def run() -> None:
        current_work.set(work)
        end()
        assert current_work.get() is None

    copy_context().run(run)
    assert work.ended


@pytest.mark.parametrize("variant", VARIANTS)
def test_worker(
    mariadb: MariaDB, new_database: Callable[[], str], redis: Redis, tmp_path: Path, variant: str
) -> None:
    """Many tasks in few sessions, nothing kept by anybody in between, and no bad end."""
    counts = measure(
        variant,
        mariadb,
        new_database(),
        redis,
        tmp_path,
        tasks=TASKS,
        beside=("poollife", *QUERIES),
        **KEEPING,
    )
    assert counts == Counts(
        tasks=TASKS,
        processes=counts.processes,
        sessions=counts.sessions,
        held=0,
        parents=(2, 2) if VARIANTS[variant].forks else (1, 1),
        inherited=0,
        wrong=0,
        over_limit=0,
        aborted=0,
    )
    if VARIANTS[variant].threads == 1:
        assert counts.sessions == counts.processes
    else:
        assert counts.sessions <= VARIANTS[variant].threads
    if "--max-tasks-per-child" in VARIANTS[variant].arguments:
        assert counts.processes > VARIANTS[variant].processes


def test_worker_without_poollife(
    mariadb: MariaDB, new_database: Callable[[], str], redis: Redis, tmp_path: Path
) -> None:
    """The pooled backend alone keeps the sessions safe, but nothing returns or ends them."""
    # Not worker_process_init: without poollife nobody knows which file the closed descriptor becomes.
    beside = ("worker_init", "worker_ready")
    counts = measure("prefork", mariadb, new_database(), redis, tmp_path, tasks=5, beside=beside, **KEEPING)
    assert counts.held == 5 + 1  # the tasks, and the main thread
    assert counts.aborted >= counts.processes
    assert (counts.parents, counts.inherited, counts.wrong) == ((2, 2), 0, 0)


def test_ends_in_a_child(mariadb: MariaDB, entry: dict[str, Any], redis: Redis, tmp_path: Path) -> None:
    """However a task ends. There is one child: each task would notice what the one before it has left."""
    aborted = mariadb.status("Aborted_clients")
    with Worker(tmp_path, redis, {"default": entry}, "--pool", "prefork", "-c", "1", **KEEPING) as worker:
        session = worker.do("echo", 1)["session"]
        questions = mariadb.status("Questions")
        assert {worker.do("echo", number)["session"] for number in range(5)} == {session}
        # Nothing is sent but what the tasks ask.
        assert mariadb.status("Questions") - questions == 5 * 4 + MariaDB.QUESTIONS_PER_EXECUTE
        assert isinstance(worker.do("fail"), ValueError)
        assert worker.do("again") == session
        assert worker.do("late") == session
        assert isinstance(worker.do("late", expires=-1.0), TaskRevokedError)
        assert isinstance(worker.do("wait", "soft", soft_time_limit=0.5), SoftTimeLimitExceeded)
        assert [line["session"] for line in worker.noted("soft")] == [session]
        assert worker.do("echo", 2)["session"] == session

        revoked = worker.send("wait", "revoked")
        assert worker.noticed("revoked")["session"] == session
        worker.revoke(revoked)
        assert isinstance(worker.answer(revoked), TaskRevokedError)
        other = worker.do("echo", 3)["session"]
        assert other > session
        assert mariadb.status("Aborted_clients") == aborted

        assert isinstance(worker.do("deaf", "deaf", time_limit=0.5), TimeLimitExceeded)
        assert worker.noted("deaf")[0]["session"] == other
    eventually("the server has noticed", lambda: not sessions(mariadb, entry["NAME"]))
    assert mariadb.status("Aborted_clients") == aborted + 1
    assert worker.held() == 0


def test_ends_in_threads(entry: dict[str, Any], redis: Redis, tmp_path: Path) -> None:
    """And who waits in vain is told which task has the connection."""
    narrow = {**entry, "POOL": {"pool_size": 1, "max_overflow": 0, "timeout": 0.5}}
    databases = {"default": entry, "narrow": narrow}
    with Worker(tmp_path, redis, databases, "--pool", "threads", "-c", "2", **KEEPING) as worker:
        assert isinstance(worker.do("fail"), ValueError)
        assert worker.do("again")
        assert isinstance(worker.do("late", expires=-1.0), TaskRevokedError)
        end = tmp_path / "end"
        holder = worker.send("narrow", "holds", str(end))
        worker.noticed("holds")
        error = worker.do("narrow", "waits", str(end))
        end.touch()
        name = "tests.support.celery_site.tasks.narrow"
        assert f"task {name}[{holder.id}] in thread ThreadPoolExecutor-" in str(error)
        assert worker.answer(holder) is None
    assert worker.held() == 0


def test_ends_of_greenlets(entry: dict[str, Any], redis: Redis, tmp_path: Path) -> None:
    """By ``GreenletExit`` and by gevent's ``Timeout``, in the middle of a transaction."""
    with Worker(tmp_path, redis, {"default": entry}, "--pool", "gevent", "-c", "1", **KEEPING) as worker:
        session = worker.do("echo", 1)["session"]
        revoked = worker.send("wait", "revoked")
        assert worker.noticed("revoked")["session"] == session
        worker.revoke(revoked)
        assert isinstance(worker.answer(revoked), TaskRevokedError)
        assert worker.do("again") == session
        assert isinstance(worker.do("wait", "limited", time_limit=0.5), TimeLimitExceeded)
        assert worker.do("echo", 2)["session"] == session
        assert isinstance(worker.do("fail"), ValueError)
        worker.kill()  # its own end would take five seconds
    assert worker.held() == 0


# --- one task, in one process ------------------------------------------------------------------------------


def test_a_time_limit_at_each_point(entry: dict[str, Any]) -> None:
    """Wherever it strikes, nothing is kept, and the next task finds all in order."""
    narrow = {**entry, "POOL": {"pool_size": 1, "max_overflow": 0, "timeout": 1}}
    report = run("celery_cases", "struck", narrow, True)
    assert report.pop("points") > 100
    assert report == {"left": [], "failed": []}


def test_a_time_limit_without_poollife(entry: dict[str, Any]) -> None:
    """One that strikes in Django's ``Atomic`` leaves a block open, and no later task gets out of that."""
    assert run("celery_cases", "struck", entry, False)["failed"]


def test_an_eager_task_is_part_of_what_calls_it(entry: dict[str, Any]) -> None:
    """Its caller keeps its session, and gives it back."""
    assert run("celery_cases", "eager", entry) == {
        "inner": {"session": True, "work": "outer"},
        "out": 1,
        "same session": True,
        "work": "outer",
        "out in the end": 0,
    }


def test_an_embedded_worker(entry: dict[str, Any]) -> None:
    report = run("celery_cases", "embedded", entry)
    assert report == {"work": "task tests.support.programs.inner[some-id]", "out": 0}


def test_a_setting_that_we_have_not(make_alias: MakeAlias) -> None:
    """Celery closes the pool of a wrapper that has this method, at each task of a child (celery#10554)."""
    assert not hasattr(connections[make_alias()], "close_pool")
