"""Invariant 6 where a server goes away for a short while: checkouts wait, and none fails after its return."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import MySQLdb
import pytest
from django.db import OperationalError, connections

from poollife import clock
from poollife.errors import PoolOverloaded, PoolTimeout
from poollife.pools.outage import FIRST_PAUSE, GRACE, Outage, ProbeTicket, State
from poollife.pools.pool import LeasePool
from poollife.pools.tickets import Postponed, SpareTicket, Ticket
from servers import MariaDB, Proxy
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, refused, stub_pool
from tests.support.web_server import eventually

THREADS = 8
ENGINES = ["poollife.backends.mysql", "poollife.backends.mysql_pymysql"]


@pytest.fixture
def server() -> StubServer:
    return StubServer()


@pytest.fixture
def make(server: StubServer) -> Iterator[Callable[..., LeasePool]]:
    """A function that makes a pool of that server's sessions."""
    pools: list[LeasePool] = []

    def make(name: str = "stub", **options: Any) -> LeasePool:
        pools.append(stub_pool(name, server, **{"timeout": PATIENCE, "outage_wait": PATIENCE, **options}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.suspend(False)
        pool.drain("the test is over")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as executor:
        yield executor


def visit(pool: LeasePool, server: StubServer) -> None:
    borrower = StubBorrower(server)
    borrower.borrow(pool)
    borrower.give_back()


def come(
    executor: ThreadPoolExecutor, pool: LeasePool, server: StubServer, number: int
) -> list[Future[None]]:
    """Have so many borrow at once."""
    return [executor.submit(visit, pool, server) for _ in range(number)]


def ends(coming: list[Future[None]]) -> list[BaseException | None]:
    """Return what became of them."""
    return [each.exception(PATIENCE) for each in coming]


def find_down(pool: LeasePool, server: StubServer, error: Exception | None = None) -> None:
    """Have a pool find out that its server is away."""
    server.down = error or refused()
    failed, pool._outage._pause = Ticket(), FIRST_PAUSE
    pool._outage.failed(failed, server.down)


# --- a real server ------------------------------------------------------------------------------------------


class Requests:
    """Threads that do what requests do, one after the other, and note when one failed."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._stop = threading.Event()
        self.done = 0
        self.failed: list[tuple[float, Exception]] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def __enter__(self) -> Requests:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self) -> None:
        connection = connections[self._alias]
        while not self._stop.wait(0.005):
            began = time.monotonic()
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                self.done += 1
            except Exception as error:
                self.failed.append((began, error))
            finally:
                connection.close()

    def go_on(self, number: int = 200) -> None:
        """Wait until so many more were well."""
        enough = self.done + number
        eventually("they go on", lambda: self.done >= enough)


def answers(server: MariaDB, port: int) -> bool:
    with suppress(MySQLdb.OperationalError):
        MySQLdb.connect(host=server.host, port=port, user=server.user, passwd=server.password).close()
        return True
    return False


def back_at(server: MariaDB, port: int) -> float:
    """Return a moment by which the server accepts again."""
    eventually("it answers", lambda: answers(server, port))
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_restart_of_two_seconds_no_request_fails(
    make_alias: MakeAlias, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At most the requests fail that were in the middle of a statement."""
    caplog.set_level(logging.INFO, "poollife")
    with MariaDB() as server:
        server.create_database("shop")
        alias = make_alias(engine, server=server, NAME="shop", POOL={"timeout": PATIENCE})
        with Requests(alias) as requests:
            requests.go_on()
            server.halt()
            time.sleep(2)
            server.start()
            back = back_at(server, server.port)
            requests.go_on()
        assert [error for began, error in requests.failed if began > back] == []
        assert len(requests.failed) <= THREADS
        pool = pool_of(alias)
        assert (pool.out, pool.waiting, pool._outage.error) == (0, 0, None)
        # It tells of both once.
        name = f"Server {server.host}:{server.port}"
        told = [(each.levelname, each.getMessage()) for each in caplog.records if name in each.getMessage()]
        assert [level for level, _ in told] == ["WARNING", "INFO"]
        assert told[0][1].startswith(f"{name} is out of reach, ")
        assert told[1][1].startswith(f"{name} is back after ")
        connections[alias].close()


class Closing(Proxy):
    """A balancer whose server is away: it accepts, and closes at once."""

    closing = False

    def _connect(self, client: socket.socket) -> None:
        if self.closing:
            with suppress(OSError):  # it may have gone meanwhile
                client.shutdown(socket.SHUT_RDWR)
        else:
            super()._connect(client)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_after_a_listener_that_accepts_and_closes_no_request_fails(
    make_alias: MakeAlias, mariadb: MariaDB, engine: str, tls: bool
) -> None:
    assert mariadb.certificates
    ca = str(mariadb.certificates.ca)
    ours = {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": ca}}
    theirs = {"ssl_ca": ca, "ssl_verify_identity": True}
    options = (theirs if engine.endswith("pymysql") else ours) if tls else {}
    proxy = Closing(mariadb.host, mariadb.port)
    with proxy:
        alias = make_alias(engine, OPTIONS=options, PORT=str(proxy.port), POOL={"timeout": PATIENCE})
        with Requests(alias) as requests:
            requests.go_on()
            proxy.closing = True
            proxy.cut()
            eventually("it is noticed", lambda: pool_of(alias)._outage.error is not None)
            time.sleep(0.5)
            proxy.closing = False
            back = back_at(mariadb, proxy.port)
            requests.go_on()
        assert [error for began, error in requests.failed if began > back] == []
        assert len(requests.failed) <= THREADS
        assert pool_of(alias)._outage.error is None


@pytest.mark.parametrize("pool", [False, {"poolclass": "sqlalchemy.pool.QueuePool"}], ids=["none", "another"])
def test_without_our_queue_requests_wait_as_well(make_alias: MakeAlias, mariadb: MariaDB, pool: Any) -> None:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        alias = make_alias(PORT=str(proxy.port), POOL=pool)
        with Requests(alias) as requests:
            requests.go_on(50)
            with proxy.dropped():
                eventually("it is noticed", lambda: pool_of(alias)._outage.error is not None)
                time.sleep(0.5)
            back = back_at(mariadb, proxy.port)
            requests.go_on(50)
        assert [error for began, error in requests.failed if began > back] == []
        assert len(requests.failed) <= THREADS


def test_a_name_that_is_not_found_is_waited_for(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a DNS server is restarted, say."""
    connect, attempts = MySQLdb.connect, list[int]()

    def fail_three_times(*args: Any, **kwargs: Any) -> Any:
        attempts.append(1)
        if len(attempts) <= 3:
            raise MySQLdb.OperationalError(2005, "Unknown server host 'db' (-3)")
        return connect(*args, **kwargs)

    alias = make_alias()
    monkeypatch.setattr(MySQLdb, "connect", fail_three_times)
    connections[alias].ensure_connection()
    assert len(attempts) == 4


# --- what is waited for, and for how long -------------------------------------------------------------------


def test_a_checkout_that_waits_holds_no_slot_and_takes_what_comes_back(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """Sessions that have outlived the failover of a proxy serve all."""
    pool = make(pool_size=4, max_overflow=0)
    holders = [StubBorrower(server), StubBorrower(server)]
    for holder in holders:
        holder.borrow(pool)
    find_down(pool, server)
    waiting = come(executor, pool, server, 6)
    eventually("they wait", lambda: pool.waiting == 6)
    holders[0].give_back()
    assert ends(waiting) == [None] * 6
    assert server.opened == 2
    holders[1].give_back()


def test_max_waiting_bounds_those_that_wait_for_a_server(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    pool = make(pool_size=2, max_overflow=0, max_waiting=3)
    find_down(pool, server)
    pool._outage._next_attempt += PATIENCE
    # There is room in the pool for two of them, but no session can be opened there.
    waiting = come(executor, pool, server, 3)
    eventually("they wait", lambda: pool.waiting == 3)
    with pytest.raises(PoolOverloaded):
        visit(pool, server)
    server.down = None
    pool._outage.over()
    assert ends(waiting) == [None] * 3


def test_max_waiting_is_not_for_the_checkout_that_has_made_the_attempt(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """It stands in the queue again after that, and was not refused when it came."""
    pool = make(max_waiting=0)
    server.down = refused()
    (first,) = come(executor, pool, server, 1)
    eventually("it has tried, and waits", lambda: server.attempts == 1 and pool.waiting == 1)
    with pytest.raises(PoolOverloaded):
        visit(pool, server)
    server.down = None
    assert ends([first]) == [None]


def test_a_timeout_that_is_shorter_ends_the_wait_with_the_servers_error(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    pool = make(timeout=0.2)
    find_down(pool, server)
    errors = ends(come(executor, pool, server, 10))
    assert {str(error) for error in errors} == {str(refused())}
    assert not any(isinstance(error, PoolTimeout) for error in errors)
    assert (pool.waiting, pool.opening, pool.out) == (0, 0, 0)


def test_a_server_that_is_back_in_the_last_pause_is_found_before_the_wait_ends(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    pool = make(outage_wait=0.5)
    find_down(pool, server)
    pool._outage._next_attempt += PATIENCE
    waiting = come(executor, pool, server, 6)
    eventually("they wait", lambda: pool.waiting == 6)
    server.down = None
    assert ends(waiting) == [None] * 6


def test_the_last_attempt_of_an_outage_wait_is_one_for_all_that_wait(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """When that fails, they are told at once, and not at their timeout."""
    pool = make(timeout=3 * PATIENCE, outage_wait=0.5)
    find_down(pool, server)
    pool._outage._next_attempt += PATIENCE
    pool._outage._pause = 10 * PATIENCE
    assert {str(error) for error in ends(come(executor, pool, server, 10))} == {str(refused())}
    assert server.attempts == 1
    server.down = None


def test_a_long_outage_refuses_at_once_and_a_thread_finds_the_server(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """No checkout makes an attempt, and none of a pool that leads there as well."""
    pool, other = make(outage_wait=0.5), make("other", outage_wait=0.5)
    find_down(pool, server)
    assert all(ends(come(executor, pool, server, 10)))
    tried: set[int] = set()
    connect = server.connect

    def note() -> Any:
        tried.add(threading.get_ident())
        return connect()

    server.connect = note  # type: ignore[method-assign]
    here = threading.get_ident()
    eventually("it was tried again", lambda: bool(tried))
    for each in (pool, other):
        with pytest.raises(OperationalError, match="2002"):
            visit(each, server)
    server.down = None
    eventually("it was found", lambda: pool._outage.error is None)
    assert (pool.out, pool.idle, len(tried), here in tried) == (0, 1, 1, False)
    assert ends(come(executor, pool, server, 5)) == [None] * 5
    # Not that of another test's server.
    name = f"probe of {pool._outage.name}"
    eventually("the thread ends", lambda: not any(name in each.name for each in threading.enumerate()))


def test_a_pool_that_is_drained_leaves_the_search_to_another(
    make: Callable[..., LeasePool], server: StubServer
) -> None:
    first, second = make("first", outage_wait=0), make("second", outage_wait=0)
    find_down(first, server)
    with pytest.raises(OperationalError, match="2002"):
        visit(first, server)
    first.drain("its tenant is gone")
    server.down = None
    outage = first._outage

    def is_found() -> bool:
        outage.probe.rests_until = 0.0
        with suppress(OperationalError):
            visit(second, server)
        return outage.error is None

    eventually("it was found", is_found)
    assert (first.idle, first.out, server.opened) == (0, 0, second.opened)


def test_where_no_thread_runs_a_checkout_makes_the_attempt(
    make: Callable[..., LeasePool], server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uWSGI without threads. No checkout is refused for an outage that was over long ago."""
    pool = make(outage_wait=0)
    monkeypatch.setattr(pool._outage.probe.thread, "call", int)
    find_down(pool, server)
    with pytest.raises(OperationalError, match="2002"):
        visit(pool, server)
    server.down = None
    pool._outage._next_attempt -= 3600
    visit(pool, server)
    assert pool._outage.error is None


def test_all_that_come_during_an_overdue_attempt_get_what_comes_of_it(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    pool = make(outage_wait=0)
    find_down(pool, server)
    server.down, server.connect_time = None, 0.2
    pool._outage._next_attempt -= 3600
    assert ends(come(executor, pool, server, 10)) == [None] * 10


def test_after_a_failed_attempt_those_that_waited_for_it_are_refused(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    pool = make(outage_wait=0)
    find_down(pool, server)
    server.connect_time = 0.2
    pool._outage._next_attempt -= 3600
    assert {str(error) for error in ends(come(executor, pool, server, 10))} == {str(refused())}
    server.down = None


def test_no_checkout_waits_where_outage_wait_is_zero(
    make: Callable[..., LeasePool], server: StubServer
) -> None:
    pool = make(outage_wait=0)
    server.down = refused()
    with pytest.raises(OperationalError, match="2002"):
        visit(pool, server)
    assert server.attempts == 1
    server.down = None


def test_an_answer_ends_the_wait(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """A server that is back, and does not take the password."""
    pool = make()
    find_down(pool, server)
    waiting = come(executor, pool, server, 4)
    eventually("they wait", lambda: pool.waiting + pool.opening == 4)
    server.down = OperationalError(1045, "Access denied")
    assert {str(error) for error in ends(waiting)} == {str(server.down)}
    assert pool._outage.error is None


def test_a_suspended_pool_waits_for_its_operator_and_not_for_its_server(
    make: Callable[..., LeasePool], server: StubServer
) -> None:
    pool = make(timeout=0.2)
    find_down(pool, server)
    pool.suspend()
    with pytest.raises(PoolTimeout, match="suspend_pool"):
        visit(pool, server)
    server.down = None


def test_a_pool_that_is_drained_hands_its_waiters_on(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    from poollife.pools.base import PoolClosed

    pool = make()
    find_down(pool, server)
    waiting = come(executor, pool, server, 4)
    eventually("they wait", lambda: pool.waiting + pool.opening == 4)
    pool.drain("closed")
    server.down = None
    # An attempt that was under way may have found the server.
    assert all(isinstance(error, PoolClosed | None) for error in ends(waiting))
    assert (pool.idle, pool.out, pool.opened) == (0, 0, pool.closed)


def test_min_idle_is_no_reason_for_attempts(make: Callable[..., LeasePool], server: StubServer) -> None:
    pool = make(min_idle=2)
    find_down(pool, server)
    server.down = None
    assert pool.housekeeping._slots.shortage == 2
    pool.housekeeping.opener = StubBorrower(server)
    pool.housekeeping.do()
    assert server.attempts == 0


def test_one_lost_session_leaves_min_idle_ready(
    make: Callable[..., LeasePool], server: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A KILL, say: the server is only doubted, and what was to be ready is as good a question as any."""
    caplog.set_level(logging.INFO, "poollife")
    pool = make(min_idle=2, pool_size=6, max_overflow=0)
    borrower = StubBorrower(server)
    borrower.borrow(pool)
    eventually("two are ready", lambda: pool.idle == 2)
    pool._outage.doubt()
    others = [StubBorrower(server), StubBorrower(server)]
    for each in others:
        each.borrow(pool)
    eventually("two are ready", lambda: pool.idle == 2)
    assert pool._outage._state is State.REACHABLE
    assert not any("min_idle" in each.getMessage() for each in caplog.records)
    for each in [borrower, *others]:
        each.give_back()


def test_where_another_makes_the_attempt_min_idle_is_put_off_in_silence(
    make: Callable[..., LeasePool], server: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poollife")
    pool, other = make(min_idle=2), Ticket()
    pool._outage.doubt()
    assert pool._outage.admit(other, PATIENCE)
    pool.housekeeping.opener = StubBorrower(server)
    pool.housekeeping.do()
    assert (server.attempts, pool.opening) == (0, 0)
    assert not any("min_idle" in each.getMessage() for each in caplog.records)


# --- one thread ---------------------------------------------------------------------------------------------


def test_a_signal_handler_that_queries_in_the_middle_of_an_attempt_goes_through(
    make: Callable[..., LeasePool], server: StubServer, executor: ThreadPoolExecutor
) -> None:
    """All others wait for that attempt, and so for the handler: it must not stand behind them."""
    pool = make(pool_size=2, max_overflow=0)
    pool._outage.doubt()
    here, came, coming = threading.main_thread().ident, threading.Event(), list[Future[None]]()

    class Interrupted(StubBorrower):
        def open_connection(self, params: None) -> Any:
            coming.extend(come(executor, pool, server, 5))
            eventually("they wait", lambda: pool.waiting == 5)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert came.wait(PATIENCE)
            return super().open_connection(params)

    def query(*_: object) -> None:
        StubBorrower(server).borrow(pool)
        came.set()

    assert threading.get_ident() == here
    before = signal.signal(signal.SIGUSR1, query)
    try:
        began = time.monotonic()
        borrower = Interrupted(server)
        borrower.borrow(pool)
        assert time.monotonic() - began < PATIENCE
        borrower.give_back()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ends(coming) == [None] * 5


def test_a_child_waits_for_no_attempt_of_its_parent(
    make: Callable[..., LeasePool], server: StubServer
) -> None:
    pool = make(outage_wait=0)
    find_down(pool, server)
    with pytest.raises(OperationalError, match="2002"):
        visit(pool, server)
    outage = pool._outage
    if (child := os.fork()) == 0:
        # The hook has forgotten all outages; a checkout that forked in its middle may still have this one.
        well = (
            outage.probe.attempt is None
            and not outage.probe.thread._awake
            and outage.waiters.strong_references() == []
        )
        os._exit(0 if well else 1)
    assert os.waitpid(child, 0)[1] == 0
    server.down = None


# --- the states ---------------------------------------------------------------------------------------------


def test_each_state_leads_where_its_docstring_says() -> None:
    outage, error = Outage(), refused()
    steps: list[tuple[Callable[[], object], State]] = [
        (outage.over, State.REACHABLE),
        (outage.doubt, State.DOUBTFUL),
        (outage.over, State.REACHABLE),
        (lambda: outage.failed(Ticket(), error, certain=False), State.DOUBTFUL),
        (lambda: outage.failed(Ticket(), error, certain=False), State.DOUBTFUL),
        (lambda: outage.failed(Ticket(), error, certain=False), State.DOWN),
        (outage.doubt, State.DOWN),
        (outage.over, State.REACHABLE),
        (lambda: outage.failed(Ticket(), error), State.DOWN),
    ]
    for number, (step, state) in enumerate(steps):
        step()
        assert (number, outage._state, outage.error is not None) == (number, state, state is State.DOWN)


def test_attempts_that_began_before_the_first_failure_make_no_pause_longer() -> None:
    """Three were under way when the server went: that is one failure, and not three."""
    outage = Outage()
    for _ in range(3):
        outage.failed(Ticket(), refused())
    assert outage._next_attempt - outage._since <= FIRST_PAUSE


def test_the_end_of_the_wait_cuts_the_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    outage, first, second = Outage(), Ticket(deadline=1100.0), Ticket(deadline=1100.0)
    outage.failed(Ticket(), refused())
    outage._next_attempt, outage._haste = 1006.0, 0.0
    assert outage.delay(first, 5.0) == 5.0
    # A deadline that is earlier ends the wait, and is no reason for an attempt.
    assert outage.delay(Ticket(deadline=1002.0), 5.0) == 2.0
    now = 1005.0
    assert outage.admit(first, 5.0)
    with pytest.raises(Postponed):
        outage.admit(second, 5.0)
    assert not outage.is_long(5.0)
    now = 1005.5
    outage.failed(first, refused())
    first.active = False
    assert outage.is_long(5.0)
    for each in (first, second):
        assert not outage.is_worth_waiting(each, 5.0)
        with pytest.raises(OperationalError, match="2002"):
            outage.admit(each, 5.0)
    # A pool that waits for longer still does.
    with pytest.raises(Postponed):
        outage.admit(second, 10.0)


@pytest.mark.parametrize(("outage_wait", "spread"), [(5.0, 0.24), (0.5, 0.1), (0.0, 0.0)])
def test_processes_make_their_last_attempts_at_several_moments_and_none_later_than_before(
    monkeypatch: pytest.MonkeyPatch, outage_wait: float, spread: float
) -> None:
    """They have all lost their server at the same moment."""
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    delays = set()
    for outage in [Outage() for _ in range(50)]:
        now, last, other = 1000.0, Ticket(deadline=1100.0), Ticket(deadline=1100.0)
        outage.failed(Ticket(), refused())
        outage._next_attempt = 1010.0
        delay = outage.delay(last, outage_wait)
        delays.add(delay)
        assert outage_wait - spread - 1e-9 <= delay == outage.delay(other, outage_wait) <= outage_wait
        now += delay + 1e-9
        if outage_wait:
            assert outage.admit(last, outage_wait)
            outage.failed(last, refused())
        assert not outage.is_worth_waiting(other, outage_wait)
    assert len(delays) == (50 if outage_wait else 1)


def test_a_last_attempt_that_gets_no_answer_is_not_waited_for_much_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that drops packets: the attempt may take minutes."""
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    outage, silent, other = Outage(), Ticket(), Ticket(deadline=1100.0)
    outage.failed(Ticket(), refused())
    now = 1004.0
    assert outage.admit(silent, 5.0)
    now = 1005.0
    with pytest.raises(Postponed):
        outage.admit(other, 5.0)
    now = 1005.0 + GRACE
    with pytest.raises(OperationalError, match="2002"):
        outage.admit(other, 5.0)


def test_a_spare_session_waits_for_the_probe() -> None:
    outage = Outage()
    outage.failed(Ticket(), refused())
    outage._next_attempt = 0.0
    with pytest.raises(Postponed):
        outage.admit(SpareTicket(), 0.0)
    assert outage.admit(ProbeTicket(), 0.0)


def test_a_probe_that_can_make_no_attempt_ends_and_is_not_called_at_once() -> None:
    outage, calls = Outage(), list[int]()
    outage.failed(Ticket(), refused())
    outage._next_attempt = 0.0
    outage.probe.attempt = lambda: calls.append(1)
    assert outage.probe.work() is None
    outage.probe.call(lambda: pytest.fail("it was called"))
    assert calls == [1]
