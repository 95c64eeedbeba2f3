"""Invariant 6, the queue: first come first served, and nothing of a checkout that gave up is kept."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, cast

import pytest
from django.db import OperationalError, connections

from poollife import close_pool, pool_stats
from poollife.errors import PoolTimeout
from poollife.pools import pool as module
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.tickets import Ticket
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, Busy, connection_id, out, run
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, stub_pool
from tests.support.web_server import eventually

WAITERS = 40


def queue_of(alias: str) -> FairQueuePool:
    return cast(FairQueuePool, pool_of(alias)._sessions)


def start(threads: list[threading.Thread], work: Callable[..., object], *arguments: Any) -> None:
    threads.append(threading.Thread(target=work, args=arguments))
    threads[-1].start()


def test_first_come_first_served(make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they have to ask again meanwhile."""
    monkeypatch.setattr(module, "RECLAIM_INTERVAL", 0.01)
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": PATIENCE})
    connection_id(alias)
    asked, served = 0, []
    look = pool_of(alias).reclaim

    def reclaim(**options: Any) -> None:
        nonlocal asked
        asked += 1
        look(**options)

    def borrow(number: int) -> None:
        connection_id(alias)
        served.append(number)
        connections[alias].close()

    monkeypatch.setattr(pool_of(alias), "reclaim", reclaim)
    threads: list[threading.Thread] = []
    for number in range(WAITERS):
        start(threads, borrow, number)
        eventually("it waits", lambda: len(queue_of(alias)._waiting) == len(threads))
    so_far = asked
    eventually("all have asked again", lambda: asked > so_far + 2 * WAITERS)
    connections[alias].close()
    for thread in threads:
        thread.join(PATIENCE)
    assert served == list(range(WAITERS))


def test_a_handler_of_a_signal_comes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """It borrows in the middle of another borrowing, in the same thread, and serves that as well."""
    pool, server = stub_pool("stub", pool_size=3, max_overflow=0, timeout=1), StubServer()
    slots = cast(FairQueuePool, pool._slots)
    may_open = slots._may_open
    entered: list[int] = []

    def interrupted(ticket: Ticket) -> bool:
        if not entered:
            entered.append(1)
            handler = StubBorrower(server)
            handler.borrow(pool)
            handler.give_back()
        return may_open(ticket)

    monkeypatch.setattr(slots, "_may_open", interrupted)
    borrower = StubBorrower(server)
    borrower.borrow(pool)
    # What the handler gave back is what the interrupted checkout got.
    assert (pool.out, pool.idle, pool.opened, len(slots._slots), pool.waiting) == (1, 0, 1, 1, 0)
    borrower.give_back()
    pool.drain("the test is over")


def test_nothing_of_who_gave_up_is_kept(make_alias: MakeAlias) -> None:
    """Not even while nothing comes back."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.02})
    mine = connection_id(alias)
    wrappers: list[weakref.ref[Any]] = []

    def give_up() -> None:
        wrappers.append(weakref.ref(connections[alias]))
        with pytest.raises(PoolTimeout):
            connection_id(alias)

    for _ in range(5):
        run(threading.Thread(target=give_up))
    assert not queue_of(alias)._waiting
    gc.collect()
    assert [wrapper() for wrapper in wrappers] == [None] * 5
    assert connection_id(alias) == mine


def test_what_is_being_opened_is_named(make_alias: MakeAlias) -> None:
    """Nobody has a session, and yet none is free: a stub for a server takes connections, and says nothing."""
    threads: list[threading.Thread] = []
    with ExitStack() as stack:
        stub = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        alias = make_alias(
            POOL={"pool_size": 2, "max_overflow": 0, "timeout": 0.1}, PORT=str(stub.getsockname()[1])
        )
        for _ in range(2):
            start(threads, fail_to_connect, alias)
            stack.enter_context(closing(stub.accept()[0]))
        with pytest.raises(PoolTimeout, match=r"all 0 are out, 2 more are being opened\. Likeliest"):
            connection_id(alias)
    for thread in threads:
        thread.join(PATIENCE)
    assert queue_of(alias).opening == out(alias) == 0


def fail_to_connect(alias: str) -> None:
    with pytest.raises(OperationalError):
        connection_id(alias)


@contextmanager
def waiters(alias: str, number: int) -> Iterator[tuple[list[threading.Thread], list[int]]]:
    """One has the only connection until the block ends, and so many wait: they, and what they are served."""
    busy, served = Busy(alias), []

    def borrow() -> None:
        served.append(connection_id(alias))
        connections[alias].close()

    threads: list[threading.Thread] = []
    start(threads, busy.work)
    assert busy.begun.wait(PATIENCE)
    for _ in range(number):
        start(threads, borrow)
    eventually("they wait", lambda: len(queue_of(alias)._waiting) == number)
    try:
        yield threads[1:], served
    finally:
        busy.go_on.set()
        threads[0].join(PATIENCE)
    # What that thread had ends when somebody looks.
    pool_stats()


def test_who_waits_in_a_closed_pool_is_told_at_once(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He need not look up first."""
    monkeypatch.setattr(module, "RECLAIM_INTERVAL", 2 * PATIENCE)
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 3 * PATIENCE})
    with waiters(alias, 5) as (threads, served):
        close_pool(alias)
        for thread in threads:
            thread.join(PATIENCE)
        assert len(served) == 5


def test_who_waits_in_a_closed_pool_is_served_by_its_successor(make_alias: MakeAlias) -> None:
    """What is out of the closed one stays out, and is not waited for."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 5})
    with waiters(alias, 1) as ((thread,), served):
        close_pool(alias)
        thread.join(PATIENCE)
        assert out(alias) == 1
        assert served == [connection_id(alias)]
