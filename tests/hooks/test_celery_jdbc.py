"""Celery with JDBC: children have a JVM each, unless they are forked from a process that has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from servers import MariaDB
from tests.conftest import NewDatabase
from tests.hooks.conftest import JDBC
from tests.support.celery_site.worker import Worker, sessions
from tests.support.redis_server import Redis
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

PREFORK = ("--pool", "prefork", "-c", "1", "--max-tasks-per-child", "2")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def entry(mariadb: MariaDB, new_database: NewDatabase, java_environment: None) -> dict[str, Any]:
    """The settings of a database."""
    return {**mariadb.database(new_database(mariadb)), **JDBC}


@pytest.mark.parametrize(
    ("arguments", "beside", "conf"),
    [
        pytest.param(PREFORK, ("idle parent",), {}, id="prefork, the parent has not queried"),
        pytest.param(PREFORK, (), {"worker_pool_start_method": "spawn"}, id="prefork, spawned"),
        pytest.param(("--pool", "threads", "-c", "2"), (), {}, id="threads"),
    ],
)
def test_tasks_query_and_the_worker_ends_in_good_order(
    mariadb: MariaDB,
    entry: dict[str, Any],
    redis: Redis,
    tmp_path: Any,
    arguments: tuple[str, ...],
    beside: tuple[str, ...],
    conf: dict[str, Any],
) -> None:
    aborted = mariadb.aborted()
    with Worker(
        tmp_path, redis, {"default": entry}, *arguments, beside=("poollife", *beside), **conf
    ) as worker:
        answers = [worker.do("echo", number) for number in range(4)]
        assert isinstance(worker.do("fail"), ValueError)
    assert [answer["right"] for answer in answers] == [True] * 4
    # After two tasks Celery replaces a child.
    assert len({answer["pid"] for answer in answers}) == (2 if "prefork" in arguments else 1)
    assert worker.held() == 0
    eventually("all sessions end", lambda: not sessions(mariadb, entry["NAME"]))
    assert mariadb.aborted() == aborted


def test_tasks_in_children_of_a_process_with_a_jvm_are_refused(
    mariadb: MariaDB, entry: dict[str, Any], redis: Redis, tmp_path: Any
) -> None:
    """The worker's main process has queried when it imported the tasks. It keeps its sessions."""
    with Worker(tmp_path, redis, {"default": entry}, *PREFORK) as worker:
        (imported, *_) = worker.noted("import")
        for _ in range(3):  # in two children
            error = worker.do("echo", 1)
            assert f"was forked from process {imported['pid']}, in which a JVM was running" in str(error)
    assert [line["session"] for line in worker.noted("shutdown")] == [imported["session"]]
    eventually("all sessions end", lambda: not sessions(mariadb, entry["NAME"]))
