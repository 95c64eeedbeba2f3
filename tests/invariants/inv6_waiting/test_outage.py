"""Invariant 6 where there is no server: waiting checkouts fail at once, and few attempts are made."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import MySQLdb
import pytest
from django.db import OperationalError, connections
from sqlalchemy.pool import NullPool

from poollife import clock
from poollife.drivers.mysql import mysqlclient
from poollife.errors import PoolTimeout
from poollife.pools import outage as module
from poollife.pools.outage import FIRST_PAUSE, JITTER, LONGEST_PAUSE, Outage
from poollife.pools.pool import LeasePool
from poollife.pools.poolclass import Counted
from poollife.pools.tickets import Postponed, Ticket
from servers import MariaDB, Proxy
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, connection_id
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubConnection, StubDriver, StubServer, refused, stub_pool
from tests.support.web_server import eventually


@pytest.fixture
def server() -> StubServer:
    return StubServer()


@pytest.fixture
def pool() -> Iterator[LeasePool]:
    """A pool in which no checkout waits for a server that is away."""
    pool = stub_pool("stub", pool_size=8, timeout=PATIENCE, outage_wait=0)
    yield pool
    pool.drain("the test is over")


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tries again."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1000.0)


def crowd(pool: LeasePool, server: StubServer, number: int = 8) -> list[Exception | None]:
    """What becomes of so many at once, each with a session at the same time."""
    barrier = threading.Barrier(number)

    def visit() -> Exception | None:
        borrower = StubBorrower(server)
        barrier.wait(PATIENCE)
        try:
            borrower.borrow(pool)
        except Exception as error:
            barrier.wait(PATIENCE)
            return error
        barrier.wait(PATIENCE)
        borrower.give_back()
        return None

    with ThreadPoolExecutor(number) as executor:
        return [done.result(PATIENCE) for done in [executor.submit(visit) for _ in range(number)]]


# --- what is tried ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("endless")
def test_after_a_failure_all_are_told_and_nobody_tries(pool: LeasePool, server: StubServer) -> None:
    pool._outage._pause = 1000.0
    server.down = refused()
    for _ in range(3):
        errors = crowd(pool, server)
        assert {str(error) for error in errors} == {str(refused())}
        assert not any(isinstance(error, PoolTimeout) for error in errors)
    # At first nobody knew.
    assert server.attempts <= 3
    assert (pool.out, pool.opened, pool._slots.opening) == (0, 0, 0)


@pytest.mark.usefixtures("endless")
def test_who_has_a_session_goes_on(pool: LeasePool, server: StubServer) -> None:
    """And so does who comes when one is idle."""
    pool._outage._pause = 1000.0
    holder, idle = StubBorrower(server), StubBorrower(server)
    for each in (holder, idle):
        each.borrow(pool)
    idle.give_back()
    server.down = refused()
    others = [StubBorrower(server), StubBorrower(server)]
    others[0].borrow(pool)
    with pytest.raises(OperationalError):
        others[1].borrow(pool)
    holder.give_back()
    others[1].borrow(pool)
    assert server.attempts == 3


def test_one_at_a_time_tries_again(server: StubServer) -> None:
    pool = stub_pool("stub", pool_size=8, timeout=PATIENCE, outage_wait=PATIENCE)
    pool._outage.doubt()
    server.down, server.connect_time = refused(), 0.02
    with ThreadPoolExecutor(1) as executor:
        came = executor.submit(crowd, pool, server)
        eventually("they have tried", lambda: server.attempts >= 3)
        assert server.most_connecting == 1
        server.down = None
        assert not any(came.result(PATIENCE))
    pool.drain("the test is over")


def test_when_it_is_back_all_go_on(pool: LeasePool, server: StubServer) -> None:
    server.down = refused()
    with pytest.raises(OperationalError):
        StubBorrower(server).borrow(pool)
    server.down = None
    eventually("the probe has found it", lambda: pool._outage.error is None)
    assert not any(crowd(pool, server))


def test_after_a_session_was_lost_one_goes_ahead(pool: LeasePool, server: StubServer) -> None:
    """The others wait for him: nothing is known of the server yet."""
    assert not any(crowd(pool, server))
    for connection in server.alive:
        connection.killed = True
    entered: list[int] = []
    alone, connect = [], server.connect

    def slow() -> Any:
        entered.append(1)
        if len(entered) == 1:
            time.sleep(0.1)  # the others come meanwhile
            alone.append(len(entered))
        return connect()

    server.connect = slow  # type: ignore[method-assign]
    assert not any(crowd(pool, server))
    assert (alone, server.opened, len(entered)) == ([1], 16, 8)
    assert not any(connection.killed for connection in server.alive)


def test_who_waits_for_the_one_that_tries_does_so_for_his_timeout_only(server: StubServer) -> None:
    pool = stub_pool("stub", pool_size=5, max_overflow=0, timeout=0.05)
    holders = [StubBorrower(server) for _ in range(3)]
    for holder in holders:
        holder.borrow(pool)
    pool._outage.doubt()
    tries, go_on, connect = threading.Event(), threading.Event(), server.connect

    def slow() -> Any:
        tries.set()
        go_on.wait(PATIENCE)
        return connect()

    server.connect = slow  # type: ignore[method-assign]
    first = threading.Thread(target=StubBorrower(server).borrow, args=(pool,))
    first.start()
    assert tries.wait(PATIENCE)
    with pytest.raises(PoolTimeout) as caught:
        StubBorrower(server).borrow(pool)
    go_on.set()
    assert "the database is slow to open sessions, or out of reach" in caught.value.likeliest_cause
    first.join(PATIENCE)
    assert (server.attempts, pool.opened) == (4, 4)
    pool.drain("the test is over")


def test_sessions_that_are_asked_whether_they_live_are_named(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has them, and yet none can be had."""
    go_on = threading.Event()
    pool = stub_pool("stub", pool_size=2, max_overflow=0, timeout=0.1, pre_ping=True)
    holders = [StubBorrower(server), StubBorrower(server)]
    for holder in holders:
        holder.borrow(pool)
    for holder in holders:
        holder.give_back()
    monkeypatch.setattr(StubConnection, "answers", lambda session, seconds: go_on.wait(PATIENCE))
    threads = [threading.Thread(target=holder.borrow, args=(pool,)) for holder in holders]
    for thread in threads:
        thread.start()
    eventually("they are asked", lambda: pool.opening == 2)
    with pytest.raises(PoolTimeout) as caught:
        StubBorrower(server).borrow(pool)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (caught.value.out, caught.value.opening, pool.opening, pool.out) == (0, 2, 0, 2)
    assert "the database is slow to open sessions, or out of reach" in caught.value.likeliest_cause
    pool.drain("the test is over")


def test_an_answer_is_no_outage(pool: LeasePool, server: StubServer) -> None:
    """A wrong password, say: each attempt is made."""
    server.down = OperationalError(1045, "Access denied")
    for number in range(1, 6):
        with pytest.raises(OperationalError, match="Access denied"):
            StubBorrower(server).borrow(pool)
        assert server.attempts == number


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MySQLdb.OperationalError(2002, "refused"), True),
        (MySQLdb.OperationalError(2003, "refused"), True),
        (MySQLdb.OperationalError(2013, "lost connection"), None),
        (MySQLdb.OperationalError(1053, "shutdown in progress"), None),
        (MySQLdb.OperationalError(1045, "access denied"), False),
        (MySQLdb.OperationalError(1040, "too many connections"), False),
        (MySQLdb.OperationalError(1049, "unknown database"), False),
        (MySQLdb.OperationalError(), False),
        (ValueError(2002), False),
    ],
)
def test_what_counts_as_one(error: Exception, is_one: bool | None) -> None:
    assert mysqlclient.driver.unreachable(error) is is_one


def test_a_session_that_is_cut_off_as_it_is_opened_is_not_yet_one(
    pool: LeasePool, server: StubServer
) -> None:
    """The server may have been told to end it. Three in a row are one."""
    for _ in range(5):
        for _ in range(2):
            server.down = OperationalError(2013, "Lost connection during query")
            with pytest.raises(OperationalError):
                StubBorrower(server).borrow(pool)
        server.down = None
        assert not any(crowd(pool, server))
        pool.liveness.renewed = clock.monotonic()
    server.down, before = OperationalError(2013, "Lost connection during query"), server.attempts
    assert all(crowd(pool, server))
    assert server.attempts - before >= 3
    assert pool._outage.error


@pytest.mark.usefixtures("endless")
def test_what_one_pool_finds_out_all_know_that_lead_there(server: StubServer) -> None:
    """Databases and tenants have pools of their own: a hundred of them are not a hundred who try."""
    here = [stub_pool(f"tenant {number}", server, timeout=PATIENCE, outage_wait=0) for number in range(5)]
    elsewhere = stub_pool("elsewhere", timeout=PATIENCE)
    server.down = refused()
    assert all(crowd(here[0], server))
    attempts = server.attempts
    assert all(error for pool in here for error in crowd(pool, server))
    assert server.attempts == attempts
    assert not any(crowd(elsewhere, StubServer()))
    server.down = None
    here[0]._outage.over()
    assert not any(crowd(here[0], server, 1))
    assert not any(crowd(here[1], server))
    for pool in [*here, elsewhere]:
        pool.drain("the test is over")


@pytest.mark.usefixtures("endless")
def test_another_driver_is_another_way(server: StubServer) -> None:
    """Without HOST and PORT a file of SQLite's and a MySQL at its default socket have the same key."""
    here = stub_pool("here", server, timeout=PATIENCE, outage_wait=0)
    driver = StubDriver()
    there = LeasePool(here.key._replace(alias="there"), here.options, driver)
    server.down = refused()
    assert all(crowd(here, server))
    assert not any(crowd(there, StubServer()))
    assert here._outage.error
    for pool in (here, there):
        pool.drain("the test is over")


class Asking(StubBorrower):
    """Is asked for a password, which takes its time or fails."""

    def __init__(self, server: StubServer, ask: Callable[[], object]) -> None:
        super().__init__(server)
        self.ask = ask

    def get_connection_params(self) -> None:
        self.ask()


def test_who_asks_for_a_password_holds_up_nobody(server: StubServer) -> None:
    """The server has nothing to do with it."""
    go_on, pool = threading.Event(), stub_pool("stub", server, timeout=1)
    pool._outage.doubt()
    slow = threading.Thread(target=Asking(server, partial(go_on.wait, PATIENCE)).borrow, args=(pool,))
    slow.start()
    eventually("it is asked", lambda: pool._slots.opening == 1)
    assert not any(crowd(pool, server, 5))
    go_on.set()
    slow.join(PATIENCE)
    assert pool.opened == 6
    pool.drain("the test is over")


def test_a_password_from_a_database_at_the_same_server(server: StubServer) -> None:
    pool, vault = stub_pool("pool", server, timeout=1), stub_pool("vault", server, timeout=1)
    pool._outage.doubt()
    Asking(server, lambda: StubBorrower(server).borrow(vault)).borrow(pool)
    assert (pool.opened, vault.opened) == (1, 1)
    for each in (pool, vault):
        each.drain("the test is over")


@pytest.mark.usefixtures("endless")
def test_a_password_that_is_not_to_be_had_says_nothing_of_the_server(
    pool: LeasePool, server: StubServer
) -> None:
    def fail() -> None:
        asked.append(1)
        raise ValueError("no password")

    asked: list[int] = []
    server.down = refused()
    assert all(crowd(pool, server))
    pool._outage._next_attempt = 0.0
    with pytest.raises(ValueError, match="no password"):
        Asking(server, fail).borrow(pool)
    assert pool._outage.error
    assert (str(pool.connect_error), len(asked)) == ("no password", 1)
    # Nor is it asked for while nobody may try.
    pool._outage._next_attempt = math.inf
    with pytest.raises(OperationalError, match="2002"):
        Asking(server, fail).borrow(pool)
    assert len(asked) == 1


@pytest.mark.usefixtures("endless")
def test_a_time_limit_says_nothing_of_the_server(pool: LeasePool, server: StubServer) -> None:
    """Nor does anything else that is no error of the driver's."""
    server.down = refused()
    assert all(crowd(pool, server))
    server.down, pool._outage._next_attempt = TimeoutError("too slow"), 0.0
    with pytest.raises(TimeoutError, match="too slow"):
        StubBorrower(server).borrow(pool)
    assert pool._outage.error
    # And the next one may try.
    server.down = None
    StubBorrower(server).borrow(pool)
    assert not pool._outage.error


def test_who_tries_may_need_another_session_in_the_middle_of_it(server: StubServer) -> None:
    """A handler of a signal may query, or whoever has wrapped the driver's ``connect()``."""

    class Nested(StubBorrower):
        def open_connection(self, params: None) -> Any:
            StubBorrower(server).borrow(other)
            return super().open_connection(params)

    pool, other = stub_pool("pool", server, timeout=1), stub_pool("other", server, timeout=1)
    pool._outage.doubt()
    Nested(server).borrow(pool)
    assert (pool.opened, other.opened) == (1, 1)
    for each in (pool, other):
        each.drain("the test is over")


def test_a_child_forgets_the_attempt_of_its_parent() -> None:
    outage = Outage()
    outage.doubt()
    thread = threading.Thread(target=outage.admit, args=(Ticket(), 5.0))
    thread.start()
    thread.join(PATIENCE)
    assert not outage.admit(Ticket(deadline=-math.inf), 5.0)
    outage.abandon()
    assert outage.admit(Ticket(deadline=-math.inf), 5.0)


# --- when -------------------------------------------------------------------------------------------------


def test_pauses_grow_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under five attempts in any second, and never more than two seconds without one."""
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    outage, attempts = Outage(), []
    while now < 1030:
        ticket = Ticket()
        try:
            outage.admit(ticket, math.inf)
        except Postponed:
            now += 0.001
        else:
            attempts.append(now)
            outage.failed(ticket, refused())
            ticket.active = False
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert min(pauses) >= FIRST_PAUSE * JITTER
    assert max(pauses) <= LONGEST_PAUSE + 0.002
    assert LONGEST_PAUSE < 2
    assert all(sum(begin <= each < begin + 1 for each in attempts) < 5 for begin in attempts)
    assert len(set(pauses[3:])) > 5  # not all processes at the same moment
    outage.over()
    outage.failed(Ticket(), refused())
    assert outage._next_attempt - now <= FIRST_PAUSE


def test_many_processes_together_make_few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred processes that lose their server in the same moment, with waiting checkouts in each."""
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    outages, attempts = [Outage() for _ in range(100)], list[float]()
    while now < 1010:
        for outage in outages:
            ticket = Ticket()
            if outage.delay(ticket, math.inf):
                continue
            assert outage.admit(ticket, math.inf)
            attempts.append(now)
            outage.failed(ticket, refused())
            ticket.active = False
        now += 0.01
    seconds = [sum(begin <= each < begin + 1 for each in attempts) for begin in range(1002, 1010)]
    # At the longest pause each process makes one attempt in 0.96 to 1.2 s ...
    assert max(seconds) <= 2 * len(outages)
    # ... and they spread: no hundredth of a second has a quarter of them.
    later = [each for each in attempts if each > 1004]
    assert max(map(later.count, set(later))) < len(outages) / 4


def test_many_that_wait_for_one_look_up_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pool class whose own queue knows nothing of turns."""
    looks, slept = 0, 0.0

    def sleep(seconds: float) -> None:
        nonlocal looks, slept
        looks, slept = looks + 1, slept + seconds
        if slept > 10:
            go_on.append(True)

    go_on: list[bool] = []

    def connect() -> object:
        if not go_on:
            raise Postponed
        return taken

    counted, taken = Counted(NullPool(object), None), object()  # type: ignore[arg-type]
    counted.opening_delay = lambda ticket: 1.0
    monkeypatch.setattr(counted, "_pool", SimpleNamespace(connect=connect))
    monkeypatch.setattr(time, "sleep", sleep)
    assert counted.take(Ticket()) is taken
    assert looks < 110


def test_an_attempt_that_ended_without_a_word_holds_up_no_other() -> None:
    outage, struck, next_ = Outage(), Ticket(), Ticket()
    outage.doubt()
    assert outage.admit(struck, 5.0)
    struck.active = False
    assert outage.admit(next_, 5.0)


# --- a real server behind a bad network -------------------------------------------------------------------


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def alias(make_alias: MakeAlias, proxy: Proxy) -> str:
    options = {"connect_timeout": 1, "read_timeout": 1, "write_timeout": 1}
    return make_alias(POOL={"pool_size": 4, "timeout": 1}, PORT=str(proxy.port), OPTIONS=options)


def ask(alias: str) -> Exception | None:
    """One request."""
    try:
        connection_id(alias)
    except OperationalError as error:
        return error
    finally:
        connections[alias].close()
    return None


def requests(alias: str, number: int) -> list[Exception | None]:
    with ThreadPoolExecutor(8) as executor:
        return list(executor.map(lambda _: ask(alias), range(number)))


@pytest.mark.slow
def test_down_and_up_again(alias: str, proxy: Proxy) -> None:
    assert not any(requests(alias, 20))
    opened = pool_of(alias).opened
    with proxy.dropped():
        errors = requests(alias, 40)
        assert all(errors)
        assert not any(isinstance(error, PoolTimeout) for error in errors)
        assert pool_of(alias).out == 0
    eventually("it is noticed", lambda: ask(alias) is None)
    assert not any(requests(alias, 20))
    assert pool_of(alias).opened > opened


def test_a_deaf_network(alias: str, proxy: Proxy) -> None:
    """Each request ends with an error; when it hears again, the next one that tries works."""
    assert not any(requests(alias, 20))
    with proxy.deaf():
        assert all(requests(alias, 16))
    eventually("it is noticed", lambda: ask(alias) is None)
    assert not any(requests(alias, 20))
    assert (pool_of(alias).out, pool_of(alias)._slots.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("engine", "options"),
    [("poollife.backends.mysql", {}), ("poollife.backends.mysql_pymysql", {"ssl_disabled": True})],
)
def test_a_deaf_network_without_a_read_timeout(
    make_alias: MakeAlias, proxy: Proxy, engine: str, options: dict[str, Any]
) -> None:
    """Its kernels are alive, so they end nothing; the pool's pings come before any statement."""
    options, own = {"connect_timeout": 1, **options}, {"pool_size": 4, "timeout": 1, "ping_idle": 0}
    alias = make_alias(engine, PORT=str(proxy.port), OPTIONS=options, POOL=own)
    pool = pool_of(alias)
    assert not any(requests(alias, 20))
    with proxy.deaf():
        assert all(requests(alias, 16))
        assert (pool.out, pool._slots.waiting) == (0, 0)
    # One tries at a time, after a pause.
    eventually("another attempt is due", lambda: clock.monotonic() >= pool._outage._next_attempt)
    assert ask(alias) is None
    assert not any(requests(alias, 20))
    assert (pool.out, pool._slots.waiting) == (0, 0)


def test_a_stall_that_ends_costs_nothing(alias: str, proxy: Proxy) -> None:
    assert not any(requests(alias, 20))
    before = pool_of(alias).opened
    with ThreadPoolExecutor(1) as executor:
        with proxy.stalled():
            asked = executor.submit(ask, alias)
        assert asked.result(PATIENCE) is None
    assert pool_of(alias).opened == before


@pytest.mark.parametrize("bytes_", [0, 10, 90, 200])
def test_cut_in_the_middle(alias: str, proxy: Proxy, bytes_: int) -> None:
    """Of the greeting, of the handshake, of an answer: an error, and nothing is kept of it."""
    proxy.cut_after = bytes_
    assert ask(alias)
    assert (pool_of(alias).out, pool_of(alias).idle, pool_of(alias)._slots.opening) == (0, 0, 0)
    proxy.cut_after = None
    eventually("it is noticed", lambda: ask(alias) is None)


def test_cut_in_the_middle_of_a_tls_handshake(make_alias: MakeAlias, proxy: Proxy) -> None:
    """The driver has one number for all that goes wrong there: three in a row are an outage, too."""
    alias = make_alias(via="tls", POOL={"pool_size": 4, "timeout": 1}, PORT=str(proxy.port))
    assert ask(alias) is None
    pool_of(alias).drain("opened before")
    proxy.cut_after = 200
    errors = [ask(alias) for _ in range(3)]
    assert [error.args[0] for error in errors if error] == [2026] * 3
    assert pool_of(alias)._outage.error
    proxy.cut_after = None
    eventually("it is noticed", lambda: ask(alias) is None)


def test_a_slow_network(alias: str, proxy: Proxy) -> None:
    proxy.delay = 0.02
    assert not any(requests(alias, 8))
