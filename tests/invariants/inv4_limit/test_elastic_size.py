"""Invariant 4 between calm and burst: what a pool opens, keeps and closes. A stub stands for the server."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections
from MySQLdb.converters import conversions
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from poollife import clock
from poollife.conf import PRESETS
from poollife.errors import PoolOverloaded, PoolTimeout
from poollife.pools.pool import LeasePool
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, sessions
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, stub_pool
from tests.support.web_server import eventually

MakePool = Callable[..., LeasePool]
#: Seconds that a stub's connect takes where it is to be slow.
SLOW = 0.15


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    pools: list[LeasePool] = []

    def make(**options: Any) -> LeasePool:
        pools.append(stub_pool("stub", **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.drain("the test is over")


class Crowd:
    """Threads that borrow at the same moment, hold for a moment each, and give back."""

    def __init__(self, pool: LeasePool, server: StubServer) -> None:
        self.pool, self.server = pool, server
        self.errors: list[Exception] = []

    def come(self, number: int, *, until_out: int | None = None) -> None:
        """
        :param until_out: nobody gives back before so many are out.
        """
        barrier, leave = threading.Barrier(number), threading.Event()
        threads = [threading.Thread(target=self._visit, args=(barrier, leave)) for _ in range(number)]
        for thread in threads:
            thread.start()
        if until_out is not None:
            eventually("so many are out", lambda: self.pool.out == until_out)
        leave.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _visit(self, barrier: threading.Barrier, leave: threading.Event) -> None:
        borrower = StubBorrower(self.server)
        barrier.wait(PATIENCE)
        try:
            borrower.borrow(self.pool)
        except Exception as error:
            self.errors.append(error)
        else:
            leave.wait(PATIENCE)
            time.sleep(0.002)
            borrower.give_back()


def fill(pool: LeasePool, server: StubServer, number: int) -> list[StubBorrower]:
    borrowers = [StubBorrower(server) for _ in range(number)]
    for borrower in borrowers:
        borrower.borrow(pool)
    return borrowers


def give_back(borrowers: list[StubBorrower]) -> None:
    for borrower in borrowers:
        borrower.give_back()


def leave_out(pool: LeasePool, server: StubServer) -> list[StubBorrower]:
    """A thread borrows, and ends; somebody has its wrapper still."""
    kept: list[StubBorrower] = []
    thread = threading.Thread(target=lambda: kept.extend(fill(pool, server, 1)))
    thread.start()
    thread.join(PATIENCE)
    assert pool.out == 1
    pool.lost = queue.SimpleQueue()  # as if nobody had told of its end
    return kept


class Uncopied(dict[Any, Any]):
    """What is no value to be copied."""

    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("it can't be copied")


# --- a burst ------------------------------------------------------------------------------------------------


def test_a_spike_is_served_by_what_comes_back(make_pool: MakePool) -> None:
    """Fifty at once on five idle sessions, where connecting takes far longer than their work."""
    pool, server = make_pool(pool_size=5, max_overflow=45), StubServer()
    give_back(fill(pool, server, 5))
    server.connect_time = SLOW
    crowd = Crowd(pool, server)
    crowd.come(50)
    assert not crowd.errors
    assert pool.opened <= 8
    assert server.most_connecting <= 3


def test_sqlalchemys_queue_opens_one_for_each() -> None:
    """Or the above would show nothing."""
    server = StubServer()
    creator: Any = server.connect
    stock, barrier = QueuePool(creator, 5, 45, reset_on_return=None), threading.Barrier(50)
    held = [stock.connect() for _ in range(5)]
    for each in held:
        each.close()
    server.connect_time = SLOW

    def visit() -> None:
        barrier.wait(PATIENCE)
        handle = stock.connect()
        time.sleep(0.002)
        handle.close()

    threads = [threading.Thread(target=visit) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert server.opened > 20
    stock.dispose()


def test_all_that_may_be_open_is_opened_where_nothing_comes_back(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=2, max_overflow=8), StubServer(0.01)
    crowd = Crowd(pool, server)
    crowd.come(10, until_out=10)
    assert not crowd.errors
    assert (pool.opened, server.most) == (10, 10)
    assert server.most_connecting <= 3


def test_a_burst_is_not_churned(make_pool: MakePool) -> None:
    """What one burst opened the next one has."""
    pool, server = make_pool(pool_size=2, max_overflow=4, retire_interval=60), StubServer()
    for _ in range(5):
        give_back(fill(pool, server, 6))
    assert (pool.opened, pool.closed, pool.idle) == (6, 0, 6)


@pytest.mark.parametrize(("quantity", "steps"), [(1, [1, 1, 1, 1]), (3, [3, 1])])
def test_the_surplus_is_retired_bit_by_bit(make_pool: MakePool, quantity: int, steps: list[int]) -> None:
    """Without anybody coming by; and the thread that did it is gone then."""
    options = {"core_size": 2, "retire_interval": 0.05, "retire_quantity": quantity}
    pool, server = make_pool(pool_size=6, max_overflow=0, **options), StubServer()
    threads, retired, all_idle = set(threading.enumerate()), [], threading.Event()
    retire = pool._slots.retire

    def note(*arguments: Any) -> None:
        all_idle.wait(PATIENCE)
        before = pool.closed
        retire(*arguments)
        retired.append(pool.closed - before)

    pool._slots.retire = note  # type: ignore[method-assign, assignment]
    give_back(fill(pool, server, 6))
    for connection in server.alive:
        connection.idle_since -= 60
    kept = sorted(server.alive, key=lambda each: each.idle_since)[-2:]
    all_idle.set()
    eventually("the surplus is retired", lambda: pool.idle == 2)
    eventually("its thread ends", lambda: set(threading.enumerate()) <= threads)
    assert [number for number in retired if number] == steps
    assert server.alive == set(kept)
    assert (pool.opened, pool.closed) == (6, 4)


def test_what_was_needed_of_late_is_no_surplus(make_pool: MakePool) -> None:
    """However often the housekeeper looks."""
    pool, server = make_pool(pool_size=1, max_overflow=3, retire_interval=60), StubServer()
    give_back(fill(pool, server, 3))
    pool.housekeeping._next_retirement = 0
    assert pool.housekeeping.do() == pytest.approx(60)
    assert (pool.idle, pool.closed) == (3, 0)
    for connection in server.alive:
        connection.idle_since -= 61
    give_back(fill(pool, server, 2))
    pool.housekeeping._next_retirement = 0
    pool.housekeeping.do()
    assert (pool.idle, pool.closed) == (2, 1)


def test_beyond_the_core_one_that_comes_back_is_waited_for(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=5, max_overflow=0, core_size=1, unload_timeout=20), StubServer()
    (first,) = fill(pool, server, 1)
    second = StubBorrower(server)
    thread = threading.Thread(target=second.borrow, args=(pool,))
    thread.start()
    eventually("it waits", lambda: pool._slots.waiting == 1)
    first.give_back()
    thread.join(PATIENCE)
    assert (pool.opened, second.lease is not None) == (1, True)


def test_but_not_for_ever(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=2, max_overflow=0, core_size=1, unload_timeout=0.1), StubServer()
    (first,) = fill(pool, server, 1)
    began = time.monotonic()
    (second,) = fill(pool, server, 1)
    assert time.monotonic() - began >= 0.1
    assert pool.opened == 2
    give_back([first, second])


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_better_late_than_never(make_pool: MakePool, timeout: float) -> None:
    """Who would give up sooner than ``unload_timeout`` has one opened before he does."""
    pool = make_pool(pool_size=2, max_overflow=0, core_size=1, unload_timeout=PATIENCE, timeout=timeout)
    give_back(fill(pool, StubServer(), 2))


def test_where_nothing_is_out_nothing_is_waited_for(make_pool: MakePool) -> None:
    pool, server = (
        make_pool(pool_size=2, core_size=0, unload_timeout=PATIENCE, timeout=PATIENCE),
        StubServer(),
    )
    began = time.monotonic()
    give_back(fill(pool, server, 1))
    assert time.monotonic() - began < PATIENCE


def test_who_can_not_wait_gets_what_there_is_room_for(make_pool: MakePool) -> None:
    """However many are being opened for others."""
    pool, server = make_pool(pool_size=8, max_overflow=0, timeout=0), StubServer(SLOW)
    crowd = Crowd(pool, server)
    crowd.come(8, until_out=8)
    assert (crowd.errors, server.most) == ([], 8)


def test_a_session_below_the_core_is_opened_at_once(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=2, max_overflow=0, core_size=2, unload_timeout=PATIENCE), StubServer()
    began = time.monotonic()
    give_back(fill(pool, server, 2))
    assert time.monotonic() - began < PATIENCE


# --- before it --------------------------------------------------------------------------------------------


def test_so_many_are_ready(make_pool: MakePool) -> None:
    """From the first checkout on, and again whenever some of them are taken."""
    pool, server = make_pool(pool_size=5, max_overflow=1, min_idle=2), StubServer()
    assert (pool.opened, pool.idle) == (0, 0)
    borrowers = fill(pool, server, 1)
    eventually("two are ready", lambda: pool.idle == 2)
    borrowers += fill(pool, server, 2)
    eventually("two are ready", lambda: pool.idle == 2)
    assert pool.opened == 5
    borrowers += fill(pool, server, 2)
    eventually("no more than the limit", lambda: pool.idle == 1)
    borrowers += fill(pool, server, 1)
    assert (pool.opened, server.most) == (6, 6)
    give_back(borrowers)


def test_what_can_not_be_had_ready_is_left_to_those_who_ask(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=3, max_overflow=0, min_idle=1), StubServer()
    server.connect_time = 0.01
    (first,) = fill(pool, server, 1)
    server.down = ValueError("not today")
    eventually("nothing is being opened", lambda: not pool._slots.opening)
    server.down = None
    second, third = fill(pool, server, 2)
    give_back([first, second, third])
    assert server.most <= 3


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that were started."""
    names: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    return names


def test_what_can_not_be_had_ready_is_not_tried_at_each_checkout(
    make_pool: MakePool, starts: list[str]
) -> None:
    """The server has had enough, say. Who asks is not held up, nor is the server."""
    pool, server = make_pool(pool_size=3, max_overflow=0, min_idle=2, retire_interval=PATIENCE), StubServer()
    pool.housekeeping._next_opening = clock.monotonic() + PATIENCE
    give_back(fill(pool, server, 1))
    server.down = OperationalError(1040, "Too many connections")
    pool.housekeeping._next_opening = -math.inf
    for _ in range(20):
        give_back(fill(pool, server, 1))
        eventually("it has tried", lambda: server.attempts == 2 and not pool.housekeeping._housekeeper._awake)
    assert (server.attempts, len(starts)) == (2, 1)
    # After a while it is.
    server.down, pool.housekeeping._next_opening = None, clock.monotonic()
    give_back(fill(pool, server, 1))
    eventually("they are there", lambda: pool.idle >= 2)


def test_where_there_is_no_room_nothing_is_tried(make_pool: MakePool, starts: list[str]) -> None:
    """All are out that may be, and some should be idle: that is no work for a thread."""
    pool, server = make_pool(pool_size=1, max_overflow=0, min_idle=1), StubServer()
    for _ in range(20):
        give_back(fill(pool, server, 1))
    assert (starts, pool.opened) == ([], 1)


def test_they_are_ready_where_somebody_listens_to_checkouts(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=3, max_overflow=0, min_idle=1), StubServer()
    event.listen(pool._sessions, "checkout", lambda *_: None)
    borrowers = fill(pool, server, 1)
    eventually("one is ready", lambda: pool.idle == 1)
    give_back(borrowers)


def test_what_is_ready_too_late_is_closed(make_pool: MakePool) -> None:
    """There is less room than there was when it began to be opened."""
    pool, server = make_pool(pool_size=3, max_overflow=0, min_idle=1), StubServer()
    entered, go_on = threading.Event(), threading.Event()
    connect = server.connect

    def slow() -> Any:
        entered.set()
        assert go_on.wait(PATIENCE)
        return connect()

    borrowers = fill(pool, server, 1)
    eventually("one is ready", lambda: pool.idle == 1)
    server.connect = slow  # type: ignore[method-assign]
    borrowers += fill(pool, server, 1)
    assert entered.wait(PATIENCE)
    pool.resize(pool.options.resized("stub", {"pool_size": 2}))
    go_on.set()
    eventually("it is closed", lambda: pool.closed == 1)
    assert (pool.idle, pool.out, len(server.alive)) == (0, 2, 2)
    give_back(borrowers)


class Querying(logging.Handler):
    """Keeps the log in the database."""

    def __init__(self, server: StubServer, pool: LeasePool) -> None:
        super().__init__()
        self.server, self.pool = server, pool
        self.asked = self.written = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.asked += 1
        give_back(fill(self.pool, self.server, 1))
        self.written += 1


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("poollife")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(level)
    for handler in logger.handlers.copy():
        if isinstance(handler, Querying):
            logger.removeHandler(handler)


def test_who_writes_into_the_log_that_none_is_ready_has_room(
    make_pool: MakePool, log: logging.Logger
) -> None:
    pool, server, down = (
        make_pool(pool_size=1, max_overflow=0, min_idle=1, timeout=0.1),
        StubServer(),
        StubServer(),
    )
    down.down = ValueError("not today")
    handler = Querying(server, pool)
    log.addHandler(handler)
    pool.housekeeping.opener = StubBorrower(down)
    pool.housekeeping.do()
    assert (handler.asked, handler.written, down.attempts, server.attempts) == (1, 1, 1, 1)


def test_who_writes_into_the_log_that_a_session_is_closed_has_room(
    make_pool: MakePool, log: logging.Logger
) -> None:
    pool, server = make_pool(pool_size=1, max_overflow=0, timeout=0.1), StubServer()
    handler = Querying(server, pool)
    log.addHandler(handler)
    borrower = StubBorrower(server)
    borrower.borrow(pool).killed = True
    borrower.give_back()
    assert (handler.written, server.attempts, server.most) == (1, 2, 1)


def test_nothing_is_opened_for_a_closed_pool(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=3, max_overflow=0, min_idle=2), StubServer(0.05)
    (borrower,) = fill(pool, server, 1)
    eventually("one is being opened", lambda: server.connecting > 0)
    pool.drain("closed")
    borrower.give_back()
    eventually("nothing is left", lambda: not (server.alive or server.connecting))


def test_warm_sessions_of_a_real_server(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """Which has options that can't be copied, as an SSLContext can't."""
    pool = {"pool_size": 4, "max_overflow": 0, "min_idle": 2}
    alias = make_alias(POOL=pool, OPTIONS={"conv": Uncopied(conversions)})
    connections[alias].ensure_connection()
    eventually("two are ready", lambda: pool_of(alias).idle == 2)
    assert len(sessions(mariadb, alias)) == 3
    for wrapper in [connections.create_connection(alias) for _ in range(2)]:
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT @@tx_isolation")
            assert cursor.fetchone() == ("READ-COMMITTED",)  # Django's own setting
        wrapper.close()


# --- too many ---------------------------------------------------------------------------------------------


def test_a_crowd_is_refused_at_once(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=1, max_overflow=0, max_waiting=3, timeout=PATIENCE), StubServer()
    (holder,) = fill(pool, server, 1)
    waiters = [StubBorrower(server) for _ in range(3)]
    threads = [threading.Thread(target=waiter.borrow, args=(pool,)) for waiter in waiters]
    for thread in threads:
        thread.start()
    eventually("they wait", lambda: pool._slots.waiting == 3)
    began = time.monotonic()
    with pytest.raises(PoolOverloaded, match=r"3 wait already\.(.|\n)*max_waiting=3") as caught:
        StubBorrower(server).borrow(pool)
    assert time.monotonic() - began < PATIENCE
    assert isinstance(caught.value, PoolTimeout)
    assert pool.meters.timeouts == 1
    assert pool._slots.waiting == 3
    holder.give_back()
    for _ in waiters:
        eventually("the next one has it", lambda: any(waiter.connection for waiter in waiters))
        give_back([waiter for waiter in waiters if waiter.connection])
    for thread in threads:
        thread.join(PATIENCE)


def test_nobody_waits(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=2, max_overflow=0, max_waiting=0), StubServer()
    borrowers = fill(pool, server, 2)
    with pytest.raises(PoolOverloaded, match="0 wait already"):
        StubBorrower(server).borrow(pool)
    give_back(borrowers)
    give_back(fill(pool, server, 2))


def test_who_waits_for_a_session_that_may_be_opened_is_no_crowd(make_pool: MakePool) -> None:
    """A few are opened at a time; there is room for all of them."""
    pool, server = make_pool(pool_size=10, max_overflow=0, max_waiting=0), StubServer(0.02)
    crowd = Crowd(pool, server)
    crowd.come(10, until_out=10)
    assert (crowd.errors, pool.opened) == ([], 10)


def test_a_dead_threads_connection_is_taken_back_before_somebody_is_refused(make_pool: MakePool) -> None:
    pool, server = make_pool(pool_size=1, max_overflow=0, max_waiting=0), StubServer()
    kept = leave_out(pool, server)
    give_back(fill(pool, server, 1))
    assert kept


@pytest.mark.parametrize("timeout", [0, 0.01, 0.3])
def test_nobody_waits_much_longer_than_he_must(make_pool: MakePool, timeout: float) -> None:
    """He looks up from time to time, and does not oversleep."""
    pool, server = make_pool(pool_size=1, max_overflow=0, timeout=timeout), StubServer()
    (holder,) = fill(pool, server, 1)
    waiter = StubBorrower(server)
    with pytest.raises(PoolTimeout):
        waiter.borrow(pool)
    holder.give_back()


def test_what_a_thread_that_ended_had_is_taken_back_before_somebody_gives_up(make_pool: MakePool) -> None:
    """Even if somebody has looked a moment ago."""
    pool, server = make_pool(pool_size=1, max_overflow=0, timeout=0.05), StubServer()
    (holder,) = fill(pool, server, 1)
    with pytest.raises(PoolTimeout):
        StubBorrower(server).borrow(pool)
    holder.give_back()
    kept = leave_out(pool, server)
    give_back(fill(pool, server, 1))
    assert kept


# --- presets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "limit", "kept"), [("slow_and_safe", 5, 5), ("fast_and_sane", 15, 5), ("fast_and_wild", 30, 5)]
)
def test_a_preset_in_a_burst(make_pool: MakePool, preset: str, limit: int, kept: int) -> None:
    """Forty come at once: how many sessions that takes at most, and how many are left of them."""
    hurried: dict[str, Any] = {"retire_interval": 0.01}
    if PRESETS[preset].get("unload_timeout"):
        hurried["unload_timeout"] = 0.02
    pool, server = make_pool(preset=preset, **hurried), StubServer()
    crowd = Crowd(pool, server)
    crowd.come(40, until_out=limit)
    assert not crowd.errors
    assert (pool.options.limit, server.most, pool.opened) == (limit, limit, limit)
    eventually("the surplus is retired", lambda: pool.idle == kept)
    crowd.come(kept, until_out=kept)
    assert pool.opened == limit


def test_the_wild_one_waits_before_it_opens_more(make_pool: MakePool) -> None:
    """What comes back within ``unload_timeout`` serves a burst."""
    pool, server = make_pool(preset="fast_and_wild", unload_timeout=PATIENCE), StubServer()
    crowd = Crowd(pool, server)
    crowd.come(30)
    assert not crowd.errors
    assert pool.opened == 5


def test_the_safe_one_asks_and_resets_each_time(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"preset": "slow_and_safe"})
    for _ in range(3):
        connections[alias].ensure_connection()
        connections[alias].close()
    assert pool_of(alias).options.pre_ping
    assert pool_of(alias).resets == 3
