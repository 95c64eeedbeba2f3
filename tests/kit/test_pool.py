"""Invariants 2, 4, 5, 6 and 7 with each driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction

from poollife import PooledThread, auto_close_db
from poollife.errors import PoolTimeout
from tests.kit.backends import ask, do
from tests.kit.conftest import Bed


def in_thread(work: Callable[[], Any]) -> Any:
    """Run a function in a thread of its own, and return its result."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result(60)


# --- 2: a borrower returns its session ---------------------------------------------------------------------


def test_block_returns_its_session(bed: Bed) -> None:
    with auto_close_db():
        do(bed.alias, "SELECT 1")
        assert bed.pool.out == 1
    assert bed.pool.out == 0


def test_thread_returns_its_session(bed: Bed) -> None:
    thread = PooledThread(target=lambda: do(bed.alias, "SELECT 1"))
    thread.start()
    thread.join()
    assert (bed.pool.out, bed.pool.idle) == (0, 1)


def test_failed_work_returns_its_session(bed: Bed) -> None:
    with pytest.raises(DatabaseError), auto_close_db():
        do(bed.alias, "SELECT 1 FROM kit_missing")
    assert (bed.pool.out, bed.pool.idle) == (0, 1)


def test_work_that_fails_in_a_transaction_rolls_it_back(bed: Bed) -> None:
    @auto_close_db
    def work() -> None:
        transaction.atomic(using=bed.alias).__enter__()
        do(bed.alias, "INSERT INTO kit VALUES (3, 'three')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert bed.pool.out == 0
    assert ask(bed.alias, "SELECT COUNT(*) FROM kit") == 1
    connections[bed.alias].close()


def test_statements_of_a_work_run_in_one_session(bed: Bed) -> None:
    def work() -> set[Any]:
        with auto_close_db():
            return {bed.session() for _ in range(5)}

    assert len(in_thread(work)) == 1


# --- 4: the limit ------------------------------------------------------------------------------------------


def test_no_more_sessions_than_the_limit(bed: Bed) -> None:
    most = 0
    lock = threading.Lock()

    @auto_close_db
    def work(number: int) -> None:
        nonlocal most
        assert ask(bed.alias, f"SELECT {number}") == number
        with lock:
            most = max(most, bed.pool.out)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(100)))
    assert most <= 2
    assert bed.pool.opened - bed.pool.closed <= 2
    assert bed.pool.out == 0


# --- 5: a warm checkout sends nothing ----------------------------------------------------------------------


def test_same_session_serves_the_next_borrower(bed: Bed) -> None:
    sessions = set()
    with auto_close_db():
        do(bed.alias, "SELECT 1")
    opened = bed.pool.opened
    for _ in range(10):
        with auto_close_db():
            do(bed.alias, "SELECT 1")
            sessions.add(bed.session())
    assert len(sessions) == 1
    assert bed.pool.opened == opened


# --- 6: waiting ends ---------------------------------------------------------------------------------------


def test_exhausted_pool_names_its_borrowers(bed: Bed) -> None:
    alias = bed.make(pool_size=1, timeout=0.1)
    with auto_close_db():
        do(alias, "SELECT 1")
        with pytest.raises(PoolTimeout, match="all 1 are out"):
            in_thread(lambda: do(alias, "SELECT 1"))


# --- 7: dead sessions are replaced -------------------------------------------------------------------------


@pytest.fixture
def served(bed: Bed) -> Bed:
    """The bed, if it has a server that can end sessions."""
    if bed.server is None:
        pytest.skip("a file has no server")
    return bed


def test_session_that_was_killed_while_idle_is_replaced(served: Bed) -> None:
    session = served.session()
    connections[served.alias].close()
    served.server.kill(session)
    for _ in range(10):
        assert ask(served.alias, "SELECT 1") == 1
        connections[served.alias].close()
    assert served.session() != session
    connections[served.alias].close()


def test_session_that_was_killed_in_use_costs_one_statement(served: Bed) -> None:
    with auto_close_db():
        session = served.session()
        served.server.kill(session)
        with pytest.raises(DatabaseError):
            do(served.alias, "INSERT INTO kit VALUES (4, 'four')")
    for _ in range(10):
        with auto_close_db():
            assert ask(served.alias, "SELECT 1") == 1
    assert served.pool.out == 0


def test_session_lost_in_a_transaction_fails_the_block_as_in_django(served: Bed) -> None:
    @transaction.atomic(using=served.alias)
    def work() -> None:
        served.server.kill(served.session())
        do(served.alias, "INSERT INTO kit VALUES (4, 'four')")

    with pytest.raises(DatabaseError):
        work()
    connections[served.alias].close()
    assert ask(served.alias, "SELECT COUNT(*) FROM kit") == 1
    connections[served.alias].close()
