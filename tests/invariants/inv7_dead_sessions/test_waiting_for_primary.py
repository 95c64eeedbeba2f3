"""Invariant 7: with ``"role": "primary"`` checkouts wait while new sessions lead to a read-only server."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from django.db import connections

from benchmarks.wiretap import Wiretap
from poollife import drain_pool, pool_available, pool_stats
from poollife.pools import liveness, log
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.failover import WRITER, Failover, rows
from tests.support.handlers import site
from tests.support.visitors import POOL, THREADS, Visitors, are_gone, sessions
from tests.support.web_server import eventually

INSERT = "INSERT INTO log VALUES (1)"


@pytest.fixture(params=["poollife.backends.mysql", "poollife.backends.mysql_pymysql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each driver."""
    return str(request.param)


def demote(server: MariaDB, read_only: bool = True) -> None:
    """Have a server refuse writes, or take them again."""
    server.execute(f"SET GLOBAL read_only = {int(read_only)}")


def test_writers_wait_until_the_address_leads_to_the_new_primary(
    engine: str, make_alias: MakeAlias, failover: Failover, tap: Wiretap
) -> None:
    """Each session that was open fails once at most. The proxy notices later."""
    pool = {**POOL, "role": "primary", "outage_wait": 30}
    alias = make_alias(engine, NAME=failover.name, PORT=str(tap.port), POOL=pool, **WRITER)
    visitors = Visitors(alias, INSERT)
    visitors.fill()
    demote(failover.primary)
    with ThreadPoolExecutor(1) as executor:
        later = executor.submit(visitors.come, 10 * THREADS)
        eventually("new sessions were tried", lambda: pool_stats()[alias]["connect_errors"] > 2)
        tap.server = (failover.heir.host, failover.heir.port)
        later.result()
    assert {each.error.args[0] for each in visitors.failed if each.error} == {1290}
    assert len(visitors.failed) <= THREADS
    assert rows(failover.heir, failover.name) == 10 * THREADS - len(visitors.failed)
    are_gone(failover.primary, alias)
    connections[alias].close()


def test_reads_go_on_after_outage_wait_at_a_server_that_stays_read_only(
    make_alias: MakeAlias, mariadb: MariaDB, failover: Failover, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is in maintenance: there is one wait, and not one for each session."""
    alias = make_alias(NAME=failover.name, POOL={**POOL, "role": "primary", "outage_wait": 0.01}, **WRITER)
    demote(mariadb)
    visitors = Visitors(alias, "SELECT COUNT(*) FROM log")
    with caplog.at_level(logging.WARNING, "poollife"):
        visitors.come(20 * THREADS)
        waited = pool_stats()[alias]["connect_errors"]
        pool_of(alias).close_idle()
        visitors.come(20 * THREADS)
    assert visitors.failed == []
    assert pool_stats()[alias]["connect_errors"] == waited > 0
    assert ["takes no writes" in each.getMessage() for each in caplog.records] == [True]
    demote(mariadb, False)
    writers = Visitors(alias, INSERT)
    writers.come(4 * THREADS)
    assert writers.failed == []
    connections[alias].close()


@pytest.mark.parametrize("finds", ["by a new session", "by one that is there"])
def test_pool_that_has_found_its_primary_waits_in_the_next_failover_as_well(
    finds: str,
    make_alias: MakeAlias,
    mariadb: MariaDB,
    failover: Failover,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of a wait is for one failover."""
    monkeypatch.setattr(liveness, "ROLE_INTERVAL", 1000.0 if finds == "by a new session" else -1.0)
    alias = make_alias(NAME=failover.name, POOL={**POOL, "role": "primary", "outage_wait": 0.01}, **WRITER)
    visitors, pool = Visitors(alias), pool_of(alias)
    for _ in range(2):
        before = pool_stats()[alias]["connect_errors"]
        demote(mariadb)
        pool.close_idle()
        visitors.come(1, threads=1)
        assert pool_stats()[alias]["connect_errors"] > before
        demote(mariadb, False)
        if finds == "by a new session":
            pool.close_idle()
        visitors.come(1, threads=1)
    assert visitors.failed == []
    connections[alias].close()


def test_pool_that_wants_no_primary_does_not_wait_for_it(
    make_alias: MakeAlias, mariadb: MariaDB, failover: Failover
) -> None:
    """A read-only server is out of reach for writers only: the outage is not shared."""
    pools: list[dict[str, Any]] = [
        {"role": "primary", "outage_wait": 50},
        {"role": "primary", "outage_wait": 0},
        {"role": "replica"},
        {},
    ]
    aliases = [make_alias(NAME=failover.name, POOL={**POOL, **pool}, **WRITER) for pool in pools]
    writers, *readers = map(Visitors, aliases)
    demote(mariadb)
    views: dict[str, Any] = {f"reader_{number}": visitors.view for number, visitors in enumerate(readers)}
    with site(writer=writers.view, **views), ThreadPoolExecutor(1) as executor:
        later = executor.submit(writers.ask, "/writer", THREADS)
        eventually("an attempt has failed", lambda: not pool_available(aliases[0]))
        for number, visitors in enumerate(readers):
            visitors.ask(f"/reader_{number}", THREADS)
        assert [pool_available(alias) for alias in aliases] == [False, True, True, True]
        assert not later.done()
        demote(mariadb, False)
        later.result()
    assert [visitors.failed for visitors in (writers, *readers)] == [[], [], [], []]
    for alias in aliases:
        connections[alias].close()


def test_pools_of_one_server_wait_for_its_primary_once(
    make_alias: MakeAlias, mariadb: MariaDB, failover: Failover, caplog: pytest.LogCaptureFixture
) -> None:
    """Of tenants, say: each would wait, and hold up the others' new sessions. The shortest wait counts."""
    pool = {**POOL, "role": "primary", "timeout": 2}
    first, second = (
        make_alias(NAME=failover.name, POOL={**pool, "outage_wait": wait}, **WRITER) for wait in (0.01, 50)
    )
    demote(mariadb)
    with caplog.at_level(logging.INFO, "poollife"):
        for alias in (first, second):
            visitors = Visitors(alias)
            visitors.come(4, threads=1)
            assert visitors.failed == []
        assert pool_stats()[second]["connect_errors"] == 0
        # The next pool of the alias does not wait either.
        drain_pool(first)
        visitors = Visitors(first)
        visitors.come(4, threads=1)
        assert visitors.failed == []
        demote(mariadb, False)
        pool_of(second).close_idle()
        Visitors(second).come(4, threads=1)
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("Server")]
    assert [each.partition(" ")[2].partition(" ")[2][:20] for each in told] == [
        "is out of reach, and",
        "takes no writes, and",
        "takes writes again",
    ]
    for alias in (first, second):
        connections[alias].close()


def test_min_idle_makes_one_attempt_at_a_read_only_server(
    make_alias: MakeAlias,
    mariadb: MariaDB,
    failover: Failover,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No checkout waits for the session. The log has the outage, and no line for each attempt."""
    options = {**POOL, "role": "primary", "outage_wait": 50, "min_idle": 1}
    alias = make_alias(NAME=failover.name, POOL=options, **WRITER)
    Visitors(alias).come(1, threads=1)
    pool, connection = pool_of(alias), cast(Any, connections[alias])
    eventually("another session is ready", lambda: pool.opened == 2)
    demote(mariadb)
    pool.close_idle()
    with caplog.at_level(logging.INFO, "poollife"):
        for _ in range(10):
            pool.housekeeping.opener = connection.opener()
            pool.housekeeping._warm()
            pool._outage._next_attempt -= 3600
        log.write()
    assert pool_stats()[alias]["connect_errors"] == 1
    assert (pool.opened, pool.closed) == (2, 2)
    assert sum("takes no writes" in each.getMessage() for each in caplog.records) == 2
    demote(mariadb, False)


@pytest.mark.parametrize("pool", [{"role": "replica"}, {"role": "primary", "outage_wait": 0}, {}])
def test_pool_without_a_wait_for_the_primary_asks_nothing_when_it_opens_a_session(
    pool: dict[str, Any], make_alias: MakeAlias, failover: Failover, tap: Wiretap
) -> None:
    alias = make_alias(NAME=failover.name, PORT=str(tap.port), POOL={**POOL, **pool}, **WRITER)
    demote(failover.primary)
    with tap.listening() as heard:
        Visitors(alias).come(1, threads=1)
    assert not any("read_only" in each for each in heard)
    assert sessions(failover.primary, alias)
    connections[alias].close()
