"""gevent: other greenlets run while one waits for the server, and each gives back what it has borrowed.

On a real server, in processes that gevent has patched before anything else was imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymysql.constants import CLIENT

from servers import MariaDB
from tests.support.programs.running import run
from tests.support.web_server import WebServer, eventually

pytestmark = pytest.mark.slow

MYSQLCLIENT, PYMYSQL = "poollife.backends.mysql", "poollife.backends.mysql_pymysql"
STOCK = "django.db.backends.mysql"
ENGINES = [MYSQLCLIENT, PYMYSQL]

each_engine = pytest.mark.parametrize("engine", ENGINES)
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def greenlets(mariadb: MariaDB, new_database: Callable[[], str]) -> Run:
    """A function that runs a case of ``tests.support.programs.greenlets``."""
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.gate (n INT PRIMARY KEY)")
    mariadb.execute(f"INSERT INTO {name}.gate VALUES (0)")
    observer = {"unix_socket": str(mariadb.socket), "user": "root", "database": name}

    def run_case(case: str, *arguments: Any, engine: str = MYSQLCLIENT, **entry: Any) -> dict[str, Any]:
        pool = {"pool_size": 5, "max_overflow": 0, "timeout": 20, **entry.pop("POOL", {})}
        settings = {**mariadb.database(name), "ENGINE": engine, "POOL": pool, **entry}
        if engine == PYMYSQL:
            settings["OPTIONS"] = {"ssl_disabled": True, **settings["OPTIONS"]}
        return run("greenlets", case, observer, settings, *arguments)

    return run_case


@each_engine
def test_queries_overlap(greenlets: Run, engine: str) -> None:
    """The server has all of them at once: with one that blocks the others it would have one."""
    # Should one block the others, it waits in vain.
    options = {"init_command": "SET innodb_lock_wait_timeout = 10"}
    assert greenlets("overlap", 4, engine=engine, OPTIONS=options) == {"together": 4, "answers": [0, 1, 2, 3]}


@each_engine
def test_first_queries_of_blocks_overlap(greenlets: Run, engine: str) -> None:
    """With ``lazy_begin``, too, where the begin of the transaction has an answer of its own."""
    options: dict[str, Any] = {"init_command": "SET innodb_lock_wait_timeout = 10"}
    if engine == PYMYSQL:
        options["client_flag"] = CLIENT.MULTI_STATEMENTS
    report = greenlets("overlap", 4, True, engine=engine, OPTIONS=options, POOL={"lazy_begin": True})
    assert report == {"together": 4, "answers": [0, 1, 2, 3]}


@pytest.mark.parametrize(("engine", "count"), [(MYSQLCLIENT, 1000), (PYMYSQL, 1000)])
def test_a_storm_of_greenlets(greenlets: Run, engine: str, count: int) -> None:
    """A tenth of them is killed in mid-query."""
    report = greenlets(
        "storm", count, 10, engine=engine, POOL={"pool_size": 8, "max_overflow": 2, "timeout": 100}
    )
    assert report.pop("looks") > 10
    assert report.pop("opened") >= count // 10
    # Counted after each opening.
    assert 8 <= report.pop("most sockets") <= 10
    assert report.pop("most at once") <= 10
    assert report == {
        "killed": count // 10,
        "wrong": [],
        "failed": [],
        "out": 0,
        "sessions are the idle ones": True,
    }


def test_stock_django_has_one_query_at_a_time(greenlets: Run) -> None:
    """What the first test stands on: mysqlclient by itself lets nobody run while it waits."""
    options = {"init_command": "SET innodb_lock_wait_timeout = 1"}
    with pytest.raises(AssertionError, match="Lock wait timeout exceeded"):
        greenlets("overlap", 2, engine=STOCK, OPTIONS=options)


def test_what_waits_cooperatively(greenlets: Run) -> None:
    assert greenlets("round_trips") == {
        "class": "CooperativeConnection",
        "others ran": {"commit": True, "rollback": True, "ping": True},
        "others ran while the pool asked": True,
    }


def test_in_the_hub(greenlets: Run) -> None:
    """There the C client waits itself, and blocks all, as it always did."""
    assert greenlets("in_hub") == {"answers": [1, True, False]}


def test_a_read_timeout(greenlets: Run) -> None:
    """The driver's option bounds the waiting in the hub, too."""
    assert greenlets("read_timeout", OPTIONS={"read_timeout": 1}) == {
        "error": "OperationalError",
        "code": 2013,
        "out": 0,
        "idle": 0,
    }


@each_engine
def test_a_killed_greenlets_connection_is_thrown_away(greenlets: Run, engine: str) -> None:
    """Its answer is on its way still, and the cycle collector is off."""
    assert greenlets("killed", engine=engine, POOL={"pool_size": 1}) == {
        "killed": True,
        "next answer": 222,
        "replaced": True,
        "opened": 2,
        "out": 0,
    }


@each_engine
def test_a_timeout_of_gevents(greenlets: Run, engine: str) -> None:
    """The greenlet outlives it and goes on, with another connection."""
    assert greenlets("timed_out", engine=engine, POOL={"pool_size": 1}) == {
        "next answer": 222,
        "replaced": True,
    }


def test_a_timeout_of_gevents_in_a_block_is_told_as_what_it_is(greenlets: Run) -> None:
    report = greenlets("timed_out_in_a_block", POOL={"pool_size": 1})
    kind, text = report.pop("error")
    assert kind == "InterfaceError"
    assert "was interrupted (Timeout: 0.1 seconds)" in text
    assert "leave the atomic block" in text
    assert report == {"next answer": 333, "out": 0}


@each_engine
def test_what_ends_without_closing(greenlets: Run, engine: str) -> None:
    """Every kind of greenlet and of end: its connection is back without the cycle collector."""
    report = greenlets("ends", engine=engine)
    assert report == {
        "spawn use": True,
        "spawn fail": True,
        "spawn leave_block_open": True,
        "thread use": True,
        "thread leave_block_open": True,
        "raw use": True,
        "raw fail": True,
        "raw leave_block_open": True,
    }


@each_engine
def test_between_two_statements_nothing_is_out(greenlets: Run, engine: str) -> None:
    """Twenty that live on take turns with one connection."""
    assert greenlets("at_rest", 20, engine=engine, POOL={"pool_size": 1}) == {
        "out": 0,
        "sessions": 1,
        "opened": 1,
        "checkouts": 60,
    }


@each_engine
def test_what_keeps_a_connection(greenlets: Run, engine: str) -> None:
    assert greenlets("held", engine=engine, POOL={"pool_size": 1}) == {
        "with_cursor": [1, 0, 0],
        "in_transaction": [1, 0, 0],
        "by_hand": [1, 1, 0],
    }


@each_engine
def test_waiting_in_the_queue(greenlets: Run, engine: str) -> None:
    """First come, first served, while others run; who is killed there leaves the queue."""
    assert greenlets("waiters", engine=engine, POOL={"pool_size": 1}) == {
        "served": [0, 1, 2, 4, 5, 6, 7, 8, 9],
        "opened": 1,
        "out": 0,
    }


def test_waiting_in_vain(greenlets: Run) -> None:
    message = greenlets("in_vain", POOL={"pool_size": 1, "timeout": 0.5})["message"]
    assert "No connection of pool 'default' became free within 0.5 s: all 1 are out" in message
    assert "thread MainThread for" in message


@each_engine
def test_unused_pools_are_closed(greenlets: Run, engine: str) -> None:
    report = greenlets("unused", engine=engine, POOL={"max_pool_idle": 0.05})
    assert report == {"closed": True, "pools": 0}


def test_the_sweeper_is_nothing_that_gevent_waits_for(greenlets: Run) -> None:
    """``gevent.wait()`` is how programs wait for all their greenlets: it must not take an hour."""
    assert greenlets("unused") == {"sweepers": 1, "waited for all": True}


@each_engine
def test_waiting_for_a_server_that_is_away_lets_others_run(greenlets: Run, engine: str) -> None:
    assert greenlets("outage", 8, engine=engine) == {
        "down": True,
        "others ran": True,
        "answers": [1] * 8,
        "out": 0,
        "error": None,
    }


@each_engine
def test_the_probe_is_a_greenlet(greenlets: Run, engine: str) -> None:
    report = greenlets("long_outage", engine=engine, POOL={"outage_wait": 0})
    assert report == {"refused": 1, "found": True, "idle": 1, "answer": 1}


def test_no_greenlet_of_a_forking_process_runs_in_the_child_of_another(greenlets: Run) -> None:
    """The child has copies of all. They would go on at the first switch, and a thread's start is one."""
    report = greenlets("forking")
    assert report.pop("inherited") != []  # this process's own
    assert report == {"answer": 1, "others ran": 0, "pools": 1, "status": 0}


def test_a_fork_finds_no_sweeper_that_another_fork_has_started_again(greenlets: Run) -> None:
    assert greenlets("forking_at_once", 8) == {"statuses": [0] * 8, "at the forks": [0] * 8, "after that": 1}


@pytest.mark.servers
@each_engine
def test_a_worker_of_gunicorns(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path, engine: str
) -> None:
    """It serves four requests at once that wait for the server, and keeps nothing of any."""
    entry: dict[str, Any] = {**mariadb.database(new_database()), "ENGINE": engine}
    if engine == PYMYSQL:
        entry["OPTIONS"] = {"ssl_disabled": True}

    def asleep() -> int:
        return sum("SLEEP(3)" in str(session.info) for session in mariadb.sessions())

    with WebServer("gevent", tmp_path / "log", DATABASES={"default": entry}) as server:
        downloads = [server.open("/sleep/3") for _ in range(4)]
        eventually("all are at the server", lambda: asleep() == 4)
        for download in downloads:
            assert download.response.status == 200, server.log
            download.drop()
        assert server.stats()["pools"]["default"]["out"] == 0
