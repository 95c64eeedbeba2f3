"""Invariant 2 without user code: what a thread has borrowed comes back when it ends."""

from __future__ import annotations

import _thread
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction

from poollife import close_pool, pool_stats
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.web_server import eventually

THREADS = 50


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={"pool_size": 3, "max_overflow": 0, "timeout": 5})


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What hangs on a reference cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


#: Wrappers that outlive their threads.
kept: list[Any] = []


def query(alias: str) -> int:
    kept.append(connections[alias])
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number: int = cursor.fetchone()[0]
    return number


def leave_block_open(alias: str) -> None:
    query(alias)
    transaction.atomic(using=alias).__enter__()


def fail(alias: str) -> None:
    query(alias)
    raise ValueError


def in_thread(work: Callable[..., object], *arguments: object) -> None:
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    thread.join()


def in_executor(work: Callable[..., object], *arguments: object) -> None:
    with ThreadPoolExecutor() as executor:
        executor.submit(work, *arguments)


def in_bare_thread(work: Callable[..., object], *arguments: object) -> None:
    """One that ``threading`` did not start, and knows nothing of the end of."""
    ended = threading.Event()

    class Local:
        """Gone with the thread."""

    locals_ = threading.local()

    def run() -> None:
        local = locals_.local = Local()
        weakref.finalize(local, ended.set)
        work(*arguments)

    _thread.start_new_thread(run, ())
    assert ended.wait(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("work", [query, leave_block_open, fail])
@pytest.mark.parametrize("run", [in_thread, in_executor])
def test_it_comes_back_when_the_thread_ends(
    alias: str, run: Callable[..., None], work: Callable[..., object]
) -> None:
    for _ in range(THREADS):
        run(work, alias)
        assert pool_stats()[alias]["out"] == 0
    assert pool_of(alias).opened <= 3


def test_waiters_get_it(alias: str) -> None:
    """Nobody asks how many are out: a full pool looks by itself."""
    go, full = threading.Event(), threading.Barrier(3)
    sessions: list[int] = []
    served = itertools.count()

    def borrow_and_leave() -> None:
        go.wait()
        sessions.append(query(alias))
        # The next thread would get the session of one that has ended already.
        if next(served) < 3:
            full.wait(5)

    threads = [threading.Thread(target=borrow_and_leave) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(sessions) == THREADS
    assert pool_of(alias).opened == 3


def test_the_wrapper_of_a_dead_thread_has_nothing(alias: str) -> None:
    in_thread(query, alias)
    assert pool_stats()[alias]["out"] == 0
    assert (kept[-1].connection, kept[-1].lease) == (None, None)


def test_a_shared_wrapper_keeps_it(alias: str) -> None:
    """Other threads may go on with it (LiveServerTestCase does)."""
    wrapper = connections[alias]
    wrapper.inc_thread_sharing()

    def connect() -> None:
        connections[alias] = wrapper
        wrapper.ensure_connection()

    try:
        in_thread(connect)
        assert pool_stats()[alias]["out"] == 1
        assert wrapper.connection is not None
    finally:
        wrapper.dec_thread_sharing()
        wrapper.close()
    assert pool_stats()[alias]["out"] == 0


def test_a_living_thread_keeps_it(alias: str) -> None:
    query(alias)
    in_thread(query, alias)
    assert pool_stats()[alias]["out"] == 1
    connections[alias].close()


def test_of_a_thread_that_threading_did_not_start_it_comes_back_with_its_wrapper(alias: str) -> None:
    """At the latest: from Python 3.13 on ``threading`` knows the end of that, too."""
    in_bare_thread(query, alias)
    kept.clear()
    gc.collect()
    assert pool_stats()[alias]["out"] == 0


def test_what_it_had_of_a_pool_that_was_closed_since_ends(alias: str, mariadb: MariaDB) -> None:
    """At the next checkout of anybody: nobody checks out from that pool any more."""
    begun, go_on = threading.Event(), threading.Event()
    sessions: list[int] = []

    def borrow() -> None:
        sessions.append(query(alias))
        begun.set()
        go_on.wait()

    thread = threading.Thread(target=borrow)
    thread.start()
    begun.wait()
    close_pool(alias)
    go_on.set()
    thread.join()
    query(alias)
    eventually("it ends", lambda: sessions[0] not in [session.id for session in mariadb.sessions()])
