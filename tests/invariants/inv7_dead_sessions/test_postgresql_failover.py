"""Invariant 7: a standby of PostgreSQL's is promoted, and its primary goes or stays."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from django.db import connections

from poollife import pool_stats
from poollife.drivers.postgresql.errors import sqlstate_of
from poollife.pools import liveness
from poollife.pools.registry import registry
from servers import PostgreSQL, Proxy
from servers.postgresql import REPLICATES
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.visitors import POOL, THREADS, Visitors, sessions
from tests.support.web_server import eventually

pytestmark = pytest.mark.slow

INSERT, COUNT = "INSERT INTO log VALUES (1)", "SELECT COUNT(*) FROM log"


class Pair(NamedTuple):
    """A primary, its standby, and aliases that list both."""

    primary: PostgreSQL
    standby: PostgreSQL
    #: They find the server that takes writes.
    writers: Visitors
    #: They find a standby, if there is one.
    readers: Visitors

    def promote(self) -> None:
        assert self.standby.execute("SELECT pg_promote()") == [(True,)]

    def turn_read_only(self) -> None:
        """Make the primary one that takes no writes. Its sessions stay."""
        self.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        self.primary.execute("SELECT pg_reload_conf()")
        # The server tells its sessions before it opens another.
        eventually(
            "it is read-only",
            lambda: self.primary.execute("SHOW default_transaction_read_only") == [("on",)],
        )

    def rows(self, server: PostgreSQL) -> int:
        return int(server.execute(COUNT, database="shop")[0][0])


@pytest.fixture
def pair(make_alias: MakeAlias) -> Iterator[Pair]:
    """All sessions that the pools may have are open: of writers at the primary, of readers at the standby."""
    with PostgreSQL(options=REPLICATES) as primary:
        primary.create_database("shop")
        primary.execute("CREATE TABLE log (n int); GRANT ALL ON log TO poollife", database="shop")
        with primary.standby() as standby:

            def make(sql: str, wanted: str) -> Visitors:
                both: dict[str, Any] = {
                    "HOST": f"{primary.host},{standby.host}",
                    "PORT": f"{primary.port},{standby.port}",
                    "OPTIONS": {"sslmode": "disable", "target_session_attrs": wanted},
                }
                engine = "poollife.backends.postgresql"
                return Visitors(make_alias(engine, server=primary, NAME="shop", POOL=POOL, **both), sql)

            pair = Pair(primary, standby, make(INSERT, "read-write"), make(COUNT, "prefer-standby"))
            for visitors, server in [(pair.writers, primary), (pair.readers, standby)]:
                visitors.fill()
                assert len(sessions(server, visitors.alias)) == THREADS
            yield pair
            for visitors in (pair.writers, pair.readers):
                connections[visitors.alias].close()
                registry.dispose(visitors.alias, "the test is over")


def code_of(error: Exception | None) -> str | None:
    """Return the SQLSTATE of an error of Django's."""
    assert error
    assert error.__cause__
    return sqlstate_of(error.__cause__)


def test_promotion_after_the_primary_is_gone_fails_no_request(pair: Pair) -> None:
    pair.primary.stop(immediate=True)
    pair.promote()
    for visitors in (pair.writers, pair.readers):
        visitors.come(1000)
        assert visitors.failed == []
    assert pair.rows(pair.standby) == 1000


def test_sessions_leave_a_server_whose_role_changes_after_any_answer(pair: Pair) -> None:
    """The sessions of both servers live on. A read tells the pool, so no write fails."""
    old = {
        visitors.alias: sessions(server, visitors.alias)
        for visitors, server in [(pair.writers, pair.primary), (pair.readers, pair.standby)]
    }
    pair.turn_read_only()
    pair.promote()
    for visitors in (pair.writers, pair.readers):
        visitors.sql, sql = COUNT, visitors.sql
        visitors.come(1, threads=1)
        visitors.sql = sql
        visitors.fill()
        visitors.come(1000)
        assert visitors.failed == []
        from_old = [request.session in old[visitors.alias] for request in visitors.requests]
        assert from_old == [True] + [False] * 1000
        assert pool_of(visitors.alias).opened == 2 * THREADS
    assert (pair.rows(pair.primary), pair.rows(pair.standby)) == (0, 1000)


def test_write_that_fails_after_a_failover_is_the_only_one(pair: Pair) -> None:
    """A write that a standby refuses is none of these: the readers' pool keeps its sessions."""
    pair.readers.sql = INSERT
    pair.readers.come(4, threads=1)
    pair.turn_read_only()
    pair.promote()
    pair.writers.come(1, threads=1)
    pair.writers.come(1000)
    for visitors, failures, opened in [(pair.writers, 1, 2 * THREADS), (pair.readers, 4, THREADS)]:
        assert [code_of(request.error) for request in visitors.failed] == ["25006"] * failures
        assert pool_of(visitors.alias).opened == opened
    assert (pair.rows(pair.primary), pair.rows(pair.standby)) == (0, 1000)
    assert sessions(pair.primary, pair.writers.alias) == set()


@pytest.mark.parametrize(("role", "sql"), [("primary", INSERT), ("replica", COUNT)])
def test_pool_with_a_role_leaves_the_server_that_a_proxy_led_it_to_by_mistake(
    role: str,
    sql: str,
    pair: Pair,
    make_alias: MakeAlias,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server reports its role with each answer: nothing is sent for that."""
    # As if all of it were in one second.
    monkeypatch.setattr(liveness, "FIRST_RENEWAL_PAUSE", 1000.0)
    right, wrong = (pair.primary, pair.standby) if role == "primary" else (pair.standby, pair.primary)
    with Proxy(wrong.host, wrong.port) as proxy:
        entry: dict[str, Any] = {
            "PORT": str(proxy.port),
            "OPTIONS": {"sslmode": "disable"},
            "POOL": {**POOL, "role": role, "outage_wait": 0},
        }
        alias = make_alias("poollife.backends.postgresql", server=wrong, NAME="shop", **entry)
        visitors, pool = Visitors(alias, COUNT), pool_of(alias)
        pool.liveness._renewal_pause = 1000.0
        with caplog.at_level(logging.WARNING, "poollife"):
            visitors.come(20, threads=1)
        # One renewal: the next session led to the same server, and the pause has begun.
        assert (len(visitors.failed), pool.opened, pool.idle, len(caplog.records)) == (0, 2, 1, 1)
        pool.liveness._next_renewal = time.monotonic()
        proxy.server = (right.host, right.port)
        visitors.come(1, threads=1)
        visitors.sql = sql
        visitors.come(20, threads=1)
        assert (visitors.failed, pool.opened) == ([], 3)
        connections[alias].close()
        registry.dispose(alias, "the test is over")


def test_return_shows_that_the_standby_was_promoted(pair: Pair, make_alias: MakeAlias) -> None:
    """The checkouts wait in the next failover as well, although no session is opened until then."""
    pool_wants = {**POOL, "role": "primary", "outage_wait": 0.01}
    entry: dict[str, Any] = {"OPTIONS": {"sslmode": "disable"}, "POOL": pool_wants}
    alias = make_alias("poollife.backends.postgresql", server=pair.standby, NAME="shop", **entry)
    visitors, pool = Visitors(alias, COUNT), pool_of(alias)
    # As if the pool had been renewed just now: its session stays.
    pool.liveness._next_renewal = time.monotonic() + 1000
    for accepts_any_role in (True, False):
        visitors.come(1, threads=1)
        assert (visitors.failed, pool.opened, pool.idle) == ([], 1, 1)
        assert pool._outage.accepts_any_role is accepts_any_role
        if accepts_any_role:
            pair.promote()
            eventually(
                "it takes writes", lambda: pair.standby.execute("SELECT pg_is_in_recovery()") == [(False,)]
            )
    connections[alias].close()
    registry.dispose(alias, "the test is over")


def test_writers_wait_while_a_proxy_leads_to_the_standby(pair: Pair, make_alias: MakeAlias) -> None:
    """A new session says by itself which role its server has."""
    with Proxy(pair.standby.host, pair.standby.port) as proxy:
        entry: dict[str, Any] = {
            "PORT": str(proxy.port),
            "OPTIONS": {"sslmode": "disable"},
            "POOL": {**POOL, "role": "primary", "outage_wait": 20},
        }
        alias = make_alias("poollife.backends.postgresql", server=pair.standby, NAME="shop", **entry)
        visitors, pool = Visitors(alias, INSERT), pool_of(alias)
        with ThreadPoolExecutor(1) as executor:
            later = executor.submit(visitors.come, 20)
            eventually("an attempt has failed", lambda: pool_stats()[alias]["connect_errors"] > 0)
            proxy.server = (pair.primary.host, pair.primary.port)
            later.result()
        assert visitors.failed == []
        assert pool.opened <= THREADS
        assert pair.rows(pair.primary) == 20
        connections[alias].close()
        registry.dispose(alias, "the test is over")
