"""Invariant 7: a session that is dead at checkout is replaced; one that dies later costs one request."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import MySQLdb
import pytest
from django.db import OperationalError, connections
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from benchmarks.wiretap import Wiretap
from poollife.drivers.contract import Guarded
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from poollife.pools import liveness
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.pool import LeasePool
from servers import MariaDB, PostgreSQL, PrivateServer
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.failover import Failover, rows
from tests.support.stubs import stub_pool
from tests.support.visitors import POOL, THREADS, Visitors, are_gone, kill, sessions
from tests.support.web_server import eventually

#: The client's "gone away" and "lost connection", and the server's own "connection was killed".
LOST = {2006, 2013, 1927}


# --- between requests ---------------------------------------------------------------------------------------


REQUESTS = 1000
ENGINES = {"MariaDB": "poollife.backends.mysql", "PostgreSQL": "poollife.backends.postgresql"}
#: OPTIONS of a login whose sessions end after they were idle for two seconds.
IDLE_LIMITS = {
    "MariaDB": {"init_command": "SET SESSION wait_timeout = 2"},
    "PostgreSQL": {"options": "-c idle_session_timeout=2000"},
}


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> PrivateServer:
    """Each of the servers that all tests share."""
    found: PrivateServer = request.getfixturevalue(request.param)
    return found


def disturb(visitors: Visitors, server: PrivateServer, times: int, strike: Callable[[], object]) -> None:
    """A thousand requests, with so many strikes between them."""
    seen: set[int] = set()
    for _ in range(times):
        visitors.come(REQUESTS // (times + 1))
        visitors.fill()
        now = sessions(server, visitors.alias)
        assert len(now) == THREADS
        assert not now & seen  # or nothing had ended them
        seen |= now
        strike()
        are_gone(server, visitors.alias)
    visitors.come(REQUESTS // (times + 1))
    assert len(visitors.requests) == REQUESTS
    assert [request.error for request in visitors.failed] == []


def test_killed_between_requests_none_fails(server: PrivateServer, make_alias: MakeAlias) -> None:
    alias = make_alias(ENGINES[server.name], server=server, POOL=POOL)
    times = 9 if server.name == "MariaDB" else 4
    disturb(Visitors(alias), server, times, lambda: kill(server, alias))
    pool = pool_of(alias)
    assert (pool.out, pool.opened, pool.closed) == (0, (times + 1) * THREADS, times * THREADS)


@pytest.mark.slow
def test_idle_for_too_long_between_requests_none_fails(server: PrivateServer, make_alias: MakeAlias) -> None:
    """``recycle`` would replace them before; without it, it is seen all the same."""
    options = {**server.database("")["OPTIONS"], **IDLE_LIMITS[server.name]}
    pool = {**POOL, "recycle": -1}
    alias = make_alias(ENGINES[server.name], server=server, POOL=pool, OPTIONS=options)
    disturb(Visitors(alias), server, 4 if server.name == "MariaDB" else 1, lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "immediate"),
    [
        pytest.param(MariaDB, False, id="MariaDB"),
        pytest.param(PostgreSQL, False, id="PostgreSQL"),
        pytest.param(PostgreSQL, True, id="PostgreSQL, at once"),
    ],
)
def test_restarted_between_requests_none_fails(
    make_alias: MakeAlias, kind: type[PrivateServer], immediate: bool
) -> None:
    with kind() as server:
        server.create_database("shop")
        alias = make_alias(ENGINES[kind.name], server=server, NAME="shop", POOL=POOL)
        visitors = Visitors(alias)
        for _ in range(4):
            visitors.come(REQUESTS // 5)
            visitors.fill()
            assert len(sessions(server, alias)) == THREADS
            server.restart(immediate=immediate)
        visitors.come(REQUESTS // 5)
        assert len(visitors.requests) == REQUESTS
        assert [request.error for request in visitors.failed] == []
        connections[alias].close()


# --- in the middle of them ----------------------------------------------------------------------------------


class Killer:
    """Kills sessions at random, and notes when each was gone."""

    def __init__(self, server: MariaDB, alias: str) -> None:
        self._server = server
        self._alias = alias
        self._random = random.Random(7)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: When each was gone for certain, on the monotonic clock.
        self.killed: dict[int, float] = {}

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(0, 0.02)):
            if alive := sorted(sessions(self._server, self._alias)):
                self._kill(self._random.choice(alive))

    def _kill(self, session: int) -> None:
        with suppress(MySQLdb.OperationalError):  # its pool was quicker
            self._server.execute(f"KILL {session}")
        eventually("it is gone", lambda: session not in sessions(self._server, self._alias))
        self.killed[session] = time.monotonic()


@pytest.mark.slow
def test_killed_at_random_only_what_was_on_its_way_fails(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL=POOL)
    visitors = Visitors(alias, "SELECT SLEEP(0.01)")
    visitors.fill()
    with Killer(mariadb, alias) as killer:
        visitors.come(REQUESTS)
    assert len(visitors.requests) == REQUESTS
    assert len(killer.killed) > 10
    # Or it would have proved nothing.
    assert visitors.failed
    for session, began, error in visitors.failed:
        assert isinstance(error, OperationalError)
        assert error.args[0] in LOST
        # It was alive when it was handed out, or killed while it was being set up.
        assert session is None or began < killer.killed[session]
    assert len(visitors.failed) <= len(killer.killed)
    # None was handed out again.
    struck = Counter(request.session for request in visitors.failed if request.session)
    assert set(struck.values()) == {1}

    pool, before = pool_of(alias), len(visitors.failed)
    assert pool.out == 0
    visitors.fill()
    visitors.come(100)
    assert len(visitors.failed) == before
    assert (pool.out, pool.idle, len(sessions(mariadb, alias))) == (0, THREADS, THREADS)


# --- and what becomes of the others -------------------------------------------------------------------------


def next_session(alias: str) -> Any:
    """The one that the next borrower gets."""
    connections[alias].ensure_connection()
    connection = connections[alias].connection
    connections[alias].close()
    return connection


def dead_at_checkout(server: MariaDB, alias: str) -> None:
    connection = next_session(alias)
    server.execute(f"KILL {connection.thread_id()}")
    # The end of the session comes by way of the tap.
    eventually("it is told", connection.closed_by_server)
    visitors = Visitors(alias)
    visitors.come(1, threads=1)
    assert not visitors.failed


def lost_at_work(server: MariaDB, alias: str) -> None:
    visitors = Visitors(alias, "SELECT SLEEP(60)")
    visitor = threading.Thread(target=visitors.come, args=(1, 1))
    visitor.start()
    asleep: list[int] = []

    def at_work() -> bool:
        asleep[:] = [each.id for each in server.sessions() if each.info == "SELECT SLEEP(60)"]
        return bool(asleep)

    eventually("it is at work", at_work)
    server.execute(f"KILL {asleep[0]}")
    visitor.join()
    assert len(visitors.failed) == 1


@pytest.mark.parametrize(("strike", "asked"), [(dead_at_checkout, THREADS - 1), (lost_at_work, THREADS)])
def test_after_a_death_the_others_are_asked_once(
    make_alias: MakeAlias,
    mariadb: MariaDB,
    tap: Wiretap,
    strike: Callable[[MariaDB, str], None],
    asked: int,
) -> None:
    """What has ended one may have ended all, without a word that a poll could see.

    So is the one that was opened in its place: after ``dead_at_checkout`` that was before.
    """
    alias = make_alias(POOL=POOL, PORT=str(tap.port))
    visitors = Visitors(alias)
    visitors.fill()
    strike(mariadb, alias)
    for pings in asked, 0:
        with tap.listening() as heard:
            visitors.fill()
        assert heard.count("DO 1") == pings
    assert (pool_of(alias).opened, pool_of(alias).closed) == (THREADS + 1, 1)


def test_a_failover_costs_one_request(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB, tap: Wiretap
) -> None:
    name = new_database()
    with MariaDB() as heir, Failover(mariadb, heir, name) as failover:
        alias = make_alias(NAME=name, USER="writer", PASSWORD="writer", PORT=str(tap.port), POOL=POOL)
        visitors = Visitors(alias, "INSERT INTO log VALUES (1)")
        visitors.fill()
        visitors.come(20)
        assert (visitors.failed, rows(mariadb, name)) == ([], 20)
        failover.happen(tap)
        visitors.come(1, threads=1)
        visitors.fill()
        visitors.come(100)
        assert [type(each.error) for each in visitors.failed] == [OperationalError]
        assert visitors.failed[0].error
        assert visitors.failed[0].error.args[0] == 1290
        assert (rows(mariadb, name), rows(heir, name)) == (20, 100)
        assert len(sessions(heir, alias)) == THREADS
        are_gone(mariadb, alias)
        pool = pool_of(alias)
        assert (pool.out, pool.opened, pool.closed) == (0, 2 * THREADS, THREADS)
        connections[alias].close()


def test_sessions_that_are_out_at_a_failover_do_not_come_back(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB, tap: Wiretap
) -> None:
    name = new_database()
    with MariaDB() as heir, Failover(mariadb, heir, name) as failover:
        alias = make_alias(NAME=name, USER="writer", PASSWORD="writer", PORT=str(tap.port), POOL=POOL)
        reader = connections.create_connection(alias)
        reader.ensure_connection()
        visitors, pool = Visitors(alias, "INSERT INTO log VALUES (1)"), pool_of(alias)
        visitors.come(1, threads=1)
        failover.happen(tap)
        visitors.come(1, threads=1)
        assert (len(visitors.failed), pool.opened, pool.closed) == (1, 2, 1)
        # It has met no error, but it is of the same generation.
        reader.close()
        assert (pool.out, pool.idle, pool.closed) == (0, 0, 2)
        visitors.come(4, threads=1)
        assert (len(visitors.failed), rows(heir, name)) == (1, 4)
        connections[alias].close()


@pytest.mark.parametrize(
    ("sql", "error", "renewed"),
    [
        ("INSERT INTO log VALUES (1)", 1792, True),
        ("SELECT 1 INTO OUTFILE '/poollife'", 1290, False),
    ],
    ids=["read-only transaction", "secure-file-priv"],
)
def test_what_counts_as_read_only(
    make_alias: MakeAlias,
    new_database: Callable[[], str],
    mariadb: MariaDB,
    sql: str,
    error: int,
    renewed: bool,
) -> None:
    """1290 has the option's name in it, which may be another."""
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.log (n INT) ENGINE=InnoDB")
    alias = make_alias(NAME=name, POOL=POOL)
    Visitors(alias).fill()
    with connections[alias].cursor() as cursor:
        cursor.execute("START TRANSACTION READ ONLY" if error == 1792 else "SELECT 1")
        with pytest.raises(OperationalError) as caught:
            cursor.execute(sql)
    assert caught.value.args[0] == error
    connections[alias].close()
    Visitors(alias).fill()
    assert pool_of(alias).closed == (THREADS if renewed else 0)


@pytest.mark.usefixtures("read_only_account")
def test_a_server_that_stays_read_only_is_no_failover(
    make_alias: MakeAlias, mariadb: MariaDB, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a maintenance new sessions lead to the same server: one renewal in each of the growing pauses."""
    alias = make_alias(NAME=name, USER="writer", PASSWORD="writer", POOL=POOL)
    visitors, pool = Visitors(alias, "INSERT INTO log VALUES (1)"), pool_of(alias)
    visitors.fill()
    mariadb.execute("SET GLOBAL read_only = 1")
    # As if all of it were in one second.
    monkeypatch.setattr(liveness, "FIRST_RENEWAL_PAUSE", 1000.0)
    pool.liveness._renewal_pause = 1000.0
    visitors.come(200)
    assert len(visitors.failed) == 200
    assert pool.opened <= 2 * THREADS
    # The pause is over: it may have been a failover after all.
    pool.liveness._next_renewal = time.monotonic()
    visitors.come(200)
    assert pool.opened <= 3 * THREADS
    mariadb.execute("SET GLOBAL read_only = 0")
    before = len(visitors.failed)
    visitors.come(40)
    assert (len(visitors.failed), pool.out) == (before, 0)


@pytest.mark.usefixtures("read_only_account")
def test_a_session_that_is_kept_in_the_pause_tells_nothing_by_its_next_return(
    make_alias: MakeAlias, mariadb: MariaDB, name: str
) -> None:
    """What counts is another error, and not that it had one once."""
    alias = make_alias(NAME=name, USER="writer", PASSWORD="writer", POOL=POOL)
    writer, reader, pool = Visitors(alias, "INSERT INTO log VALUES (1)"), Visitors(alias), pool_of(alias)
    mariadb.execute("SET GLOBAL read_only = 1")
    writer.come(2, threads=1)
    opened = pool.opened
    pool.liveness._next_renewal = time.monotonic()
    reader.come(20, threads=1)
    assert (pool.opened, reader.failed) == (opened, [])


def test_pauses_between_renewals_grow_and_begin_anew() -> None:
    """A second failover, after all was well for a while, is met at once."""
    renewals: list[float] = []
    liveness_of = pool_with_stub().liveness
    for now in [number / 10 for number in range(10_000, 12_000)]:
        before = liveness_of.renewed
        liveness_of._renew(now)
        if liveness_of.renewed != before:
            renewals.append(now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(renewals)]
    assert pauses == sorted(pauses)
    assert len(renewals) < 20
    liveness_of._renew(2000.0)
    liveness_of._renew(2000.0 + 2 * liveness.FIRST_RENEWAL_PAUSE)
    assert liveness_of.renewed > 2000.0


def pool_with_stub() -> LeasePool:
    return stub_pool("stub")


@pytest.fixture
def name(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def read_only_account(mariadb: MariaDB, name: str) -> Iterator[None]:
    """An account that may not write where the server is read-only."""
    mariadb.execute(f"CREATE TABLE {name}.log (n INT) ENGINE=InnoDB")
    mariadb.execute("CREATE OR REPLACE USER writer@'%' IDENTIFIED BY 'writer'")
    mariadb.execute(f"GRANT ALL ON {name}.* TO writer@'%'")
    yield
    mariadb.execute("SET GLOBAL read_only = 0")
    mariadb.execute("DROP USER writer@'%'")


@pytest.mark.parametrize("poolclass", [FairQueuePool, QueuePool], ids=["fair", "SQLAlchemy's"])
def test_who_fails_to_look_at_a_session_leaves_it_to_nobody(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch, poolclass: type[QueuePool]
) -> None:
    """Whatever goes wrong there: the checkout fails, and the slot is free."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 5, "poolclass": poolclass})
    first, pool = next_session(alias), pool_of(alias)

    def fail(connection: Guarded) -> bool:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(GuardedConnection, "closed_by_server", fail)
        with pytest.raises(MemoryError):
            connections[alias].ensure_connection()
        assert (pool.out, pool.closed) == (0, 1)
    assert next_session(alias) != first
    assert (pool.out, pool.idle, pool.opened) == (0, 1, 2)


@pytest.mark.parametrize("when", ["checkout", "checkin"])
def test_a_listener_of_somebodys_own_that_fails_costs_the_session(make_alias: MakeAlias, when: str) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 5})
    first, pool = next_session(alias), pool_of(alias)
    failing = [True]

    def listener(*_: object) -> None:
        if failing:
            failing.clear()
            raise RuntimeError("of somebody's own")

    event.listen(pool._sessions, when, listener)
    with pytest.raises(RuntimeError, match="of somebody's own"):
        next_session(alias)
    assert next_session(alias) != first
    assert (pool.out, pool.idle, pool.opened, pool.closed) == (0, 1, 2, 1)


# --- a session's life ---------------------------------------------------------------------------------------


def test_what_was_opened_together_is_not_replaced_together(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 20, "recycle": 100})
    borrowers = [connections.create_connection(alias) for _ in range(20)]
    for borrower in borrowers:
        borrower.ensure_connection()
    lifetimes = [borrower.connection.lifetime for borrower in borrowers]
    assert len(set(lifetimes)) == 20
    assert all(0.9 <= lifetime <= 1 for lifetime in lifetimes)
    for number, borrower in enumerate(borrowers):
        borrower.connection.lifetime = 0.9 if number < 7 else 1.0
        borrower.connection.born -= 95
        borrower.close()
    for borrower in borrowers:
        borrower.ensure_connection()
    assert pool_of(alias).opened == 20 + 7
    for borrower in borrowers:
        borrower.close()
