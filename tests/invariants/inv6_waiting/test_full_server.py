"""Invariant 6 where the server refuses more sessions: a checkout waits for a session of its own pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import MySQLdb
import pytest
from django.db import OperationalError, connections

from poollife import clock
from poollife.drivers.mysql import mysqlclient
from poollife.errors import PoolOverloaded, PoolTimeout
from poollife.pools import gate
from poollife.pools.pool import LeasePool
from poollife.pools.slots import OPENINGS
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, stub_pool
from tests.support.web_server import eventually

FULL = OperationalError(1226, "User has exceeded 'max_user_connections'")


class Limited(StubServer):
    """It allows so many sessions, and says so to all others."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        #: Set, unless sessions take their time after the server has counted them.
        self.is_quick = threading.Event()
        self.is_quick.set()

    def refusal(self) -> Exception | None:
        return OperationalError(*FULL.args) if len(self.alive) >= self.limit else None

    def connect(self) -> Any:
        connection = super().connect()
        assert self.is_quick.wait(PATIENCE)
        return connection


@pytest.fixture
def server() -> Limited:
    return Limited(2)


@pytest.fixture
def pool(server: Limited) -> Iterator[LeasePool]:
    pool = stub_pool("stub", server, pool_size=8, timeout=PATIENCE)
    yield pool
    pool.drain("the test is over")


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session is asked for again."""
    monkeypatch.setattr(gate, "FIRST_PAUSE", 1000.0)


def in_threads(number: int, work: Callable[[], object]) -> list[BaseException | None]:
    with ThreadPoolExecutor(number) as executor:
        return [each.exception(PATIENCE) for each in [executor.submit(work) for _ in range(number)]]


def hold_in_thread(pool: LeasePool, server: StubServer, go_on: threading.Event) -> threading.Thread:
    """Have another thread borrow, and give back when it is told to."""
    has = threading.Event()

    def hold() -> None:
        borrower = StubBorrower(server)
        borrower.borrow(pool)
        has.set()
        go_on.wait(PATIENCE)
        borrower.give_back()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(PATIENCE)
    return thread


@pytest.mark.parametrize("code", [1040, 1203, 1226])
def test_each_of_these_means_that_the_server_is_full(code: int) -> None:
    assert mysqlclient.driver.is_full(MySQLdb.OperationalError(code, "too many"))
    assert mysqlclient.driver.unreachable(MySQLdb.OperationalError(code, "too many")) is False


@pytest.mark.usefixtures("long_pause")
def test_a_refused_checkout_waits_for_a_session_of_its_pool(pool: LeasePool, server: Limited) -> None:
    go_on = threading.Event()
    pool._gate._full_pause = 1000.0
    holders = [hold_in_thread(pool, server, go_on) for _ in range(2)]
    borrower = StubBorrower(server)
    threading.Timer(0.2, go_on.set).start()
    borrower.borrow(pool)
    assert (server.opened, server.attempts) == (2, 3)
    borrower.give_back()
    for holder in holders:
        holder.join(PATIENCE)


@pytest.mark.usefixtures("long_pause")
def test_a_refused_checkout_waits_for_a_session_that_is_being_opened(
    pool: LeasePool, server: Limited
) -> None:
    """The server counts a session before the pool does."""
    go_on = threading.Event()
    server.limit = 1
    server.is_quick.clear()
    pool._gate._full_pause = 1000.0
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(hold_in_thread, pool, server, go_on)
        eventually("the first is being opened", lambda: server.opened == 1)
        second = executor.submit(StubBorrower(server).borrow, pool)
        eventually("the second was refused", lambda: pool._gate.full)
        eventually("it waits", lambda: pool.waiting == 1)
        assert not second.done()
        server.is_quick.set()
        # When the first is there, the second asks once more.
        eventually("it was refused again", lambda: server.attempts == 3)
        go_on.set()
        assert second.result(PATIENCE)
        first.result(PATIENCE).join(PATIENCE)
    assert (server.opened, server.attempts) == (1, 3)


def test_a_crowd_on_a_full_server_is_served_by_what_there_is(pool: LeasePool, server: Limited) -> None:
    def visit() -> None:
        for _ in range(50):
            borrower = StubBorrower(server)
            borrower.borrow(pool)
            borrower.give_back()

    assert in_threads(16, visit) == [None] * 16
    assert server.opened <= 2
    # One attempt in each growing pause, and not one for each of 800 checkouts.
    assert server.attempts < 100


def test_where_nothing_can_come_back_the_error_is_told_at_once(pool: LeasePool, server: Limited) -> None:
    """Other processes have all: waiting here is waiting for them."""
    server.limit = 0
    assert {type(each) for each in in_threads(6, lambda: StubBorrower(server).borrow(pool))} == {
        OperationalError
    }
    assert pool._outage.error is None


def test_a_thread_does_not_wait_for_what_it_has_itself(pool: LeasePool, server: Limited) -> None:
    holders = [StubBorrower(server), StubBorrower(server)]
    for holder in holders:
        holder.borrow(pool)
    with pytest.raises(OperationalError, match="1226"):
        StubBorrower(server).borrow(pool)
    for holder in holders:
        holder.give_back()


@pytest.mark.usefixtures("long_pause")
def test_the_wait_ends_with_the_timeout_and_the_servers_refusal(server: Limited) -> None:
    """For each of a crowd, and without an attempt of each."""
    pool, go_on = stub_pool("stub", server, pool_size=20, timeout=0.2), threading.Event()
    pool._gate._full_pause = 1000.0
    holders = [hold_in_thread(pool, server, go_on) for _ in range(2)]
    errors = in_threads(16, lambda: StubBorrower(server).borrow(pool))
    assert {str(error) for error in errors} == {str(FULL)}
    # One for each holder, and those that were under way when the first of them was refused.
    assert server.attempts <= 2 + OPENINGS
    go_on.set()
    for holder in holders:
        holder.join(PATIENCE)
    pool.drain("the test is over")


def test_a_refusal_of_long_ago_is_no_reason_for_a_timeout_of_now(server: Limited) -> None:
    """Today the server is slow to open sessions."""
    pool, go_on = stub_pool("stub", server, pool_size=8, timeout=0.2), threading.Event()
    holders = [hold_in_thread(pool, server, go_on) for _ in range(2)]
    assert [str(each) for each in in_threads(1, lambda: StubBorrower(server).borrow(pool))] == [str(FULL)]
    eventually("the pause is over", lambda: clock.monotonic() > pool._gate._full_until)
    server.limit, connect = 8, server.connect

    def hang() -> Any:
        assert go_on.wait(PATIENCE)
        return connect()

    server.connect = hang  # type: ignore[method-assign]
    slow = [threading.Thread(target=StubBorrower(server).borrow, args=(pool,)) for _ in range(OPENINGS)]
    for thread in slow:
        thread.start()
    eventually("they are being opened", lambda: pool.opening == OPENINGS)
    with pytest.raises(PoolTimeout):
        StubBorrower(server).borrow(pool)
    go_on.set()
    for thread in (*holders, *slow):
        thread.join(PATIENCE)
    pool.drain("the test is over")


@pytest.mark.usefixtures("long_pause")
def test_max_waiting_bounds_those_that_wait_on_a_full_server(server: Limited) -> None:
    """There is room in the pool, and none at the server."""
    pool, go_on = stub_pool("stub", server, pool_size=8, timeout=PATIENCE, max_waiting=2), threading.Event()
    pool._gate._full_pause = 1000.0
    threads = [hold_in_thread(pool, server, go_on) for _ in range(2)]
    for number in (1, 2):
        threads.append(threading.Thread(target=lambda: StubBorrower(server).borrow(pool)))
        threads[-1].start()
        eventually("it waits", lambda number=number: pool.waiting == number)  # type: ignore[misc]
    with pytest.raises(PoolOverloaded):
        StubBorrower(server).borrow(pool)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    pool.drain("the test is over")


def test_with_no_time_to_wait_the_servers_error_is_told(server: Limited) -> None:
    pool, go_on = stub_pool("stub", server, pool_size=8, timeout=0), threading.Event()
    holders = [hold_in_thread(pool, server, go_on) for _ in range(2)]
    with pytest.raises(OperationalError, match="1226"):
        StubBorrower(server).borrow(pool)
    go_on.set()
    for holder in holders:
        holder.join(PATIENCE)
    pool.drain("the test is over")


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["user", "server"])
@pytest.mark.parametrize(
    "poolclass", ["poollife.pools.fair_queue.FairQueuePool", "sqlalchemy.pool.QueuePool"]
)
def test_a_real_server_that_is_full_fails_no_request(
    make_alias: MakeAlias, limit: str, poolclass: str
) -> None:
    """Eight threads, and three sessions for them: by the user's limit (1226), or by the server's (1040)."""
    with MariaDB() as server:
        server.create_database("shop")
        server.execute("CREATE USER few@'%' IDENTIFIED BY 'few'")
        server.execute("GRANT ALL ON shop.* TO few@'%'")
        if limit == "user":
            server.execute("ALTER USER few@'%' WITH MAX_USER_CONNECTIONS 3")
        else:
            # The least that MariaDB takes is 10; the administrator has one more than that.
            server.execute("SET GLOBAL max_connections = 10")
        blockers = [
            MySQLdb.connect(host=server.host, port=server.port, user=server.user, passwd=server.password)
            for _ in range(7 if limit == "server" else 0)
        ]
        pool = {"pool_size": 8, "timeout": PATIENCE, "poolclass": poolclass}
        alias = make_alias(server=server, NAME="shop", USER="few", PASSWORD="few", POOL=pool)

        def visit() -> None:
            for _ in range(30):
                with connections[alias].cursor() as cursor:
                    cursor.execute("SELECT SLEEP(0.005)")
                connections[alias].close()

        assert in_threads(8, visit) == [None] * 8
        eventually("all are back", lambda: pool_of(alias).out == 0)
        assert pool_of(alias).meters.connect_errors > 0
        for blocker in blockers:
            blocker.close()
        connections[alias].close()
