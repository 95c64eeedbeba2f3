"""Invariant 2 with each driver: a borrower returns its session when its work ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction

from poollife import PooledThread, auto_close_db
from tests.kit.backends import ask, cursor_of, do
from tests.kit.conftest import Bed
from tests.support.counting import pool_of

# --- a work that ends --------------------------------------------------------------------------------------


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


def test_statements_of_a_work_run_in_one_session(bed: Bed, thread: Callable[..., Any]) -> None:
    def work() -> set[Any]:
        with auto_close_db():
            return {bed.session() for _ in range(5)}

    assert len(thread(work)) == 1


def test_release_by_statement_keeps_only_what_the_next_statement_needs(bed: Bed) -> None:
    alias = bed.make(pool_size=1, release="statement")
    pool = pool_of(alias)
    with auto_close_db():
        checkouts = pool.checkouts
        for statement in "SELECT 1", "UPDATE kit SET name = 'uno' WHERE id = 1":
            do(alias, statement)
            assert pool.out == 0
        assert pool.checkouts == checkouts + 2
        with transaction.atomic(using=alias):
            first = session_of(alias)
            do(alias, "INSERT INTO kit VALUES (2, 'two')")
            assert (pool.out, session_of(alias)) == (1, first)
        assert (pool.out, ask(alias, "SELECT COUNT(*) FROM kit")) == (0, 2)
        connections[alias].set_autocommit(False)
        do(alias, "SELECT 1")
        assert pool.out == 1
        connections[alias].rollback()
        connections[alias].set_autocommit(True)
        assert pool.out == 0
        cursor = connections[alias].cursor()
        cursor.execute("SELECT 1")
        assert pool.out == 1
        assert cursor.fetchone() == (1,)
        cursor.close()
        assert pool.out == 0


# --- no hook: a thread that lives on -----------------------------------------------------------------------


def session_of(alias: str) -> int:
    """Run one statement, and return which driver connection it ran in. Nothing depends on that session."""
    with cursor_of(alias) as cursor:
        cursor.execute("SELECT 1")
        return id(connections[alias].connection)


@pytest.fixture
def single(bed: Bed) -> str:
    """An alias whose pool has one session."""
    return bed.make(pool_size=1)


def test_thread_that_lives_on_has_nothing_between_two_statements(
    single: str, thread: Callable[..., Any]
) -> None:
    pool = pool_of(single)
    session = thread(session_of, single)
    opened, checkouts = pool.opened, pool.checkouts
    for _ in range(3):
        assert (thread(session_of, single), pool.out) == (session, 0)
    assert (pool.opened, pool.checkouts) == (opened, checkouts + 3)


def test_threads_that_live_on_take_turns(single: str) -> None:
    with ThreadPoolExecutor(8) as executor:
        assert len(set(executor.map(lambda _: session_of(single), range(200)))) == 1
        assert pool_of(single).out == 0  # and all eight are there still


def test_session_is_returned_after_an_error(single: str, thread: Callable[..., Any]) -> None:
    pool = pool_of(single)
    thread(session_of, single)
    opened = pool.opened
    with pytest.raises(DatabaseError):
        thread(do, single, "SELECT nothing_of_that_name")
    assert pool.out == 0
    thread(session_of, single)
    assert pool.opened == opened


def test_session_is_returned_after_a_transaction_and_its_hooks(
    single: str, thread: Callable[..., Any]
) -> None:
    pool, seen = pool_of(single), []

    def transact() -> None:
        with transaction.atomic(using=single):
            transaction.on_commit(lambda: seen.append(session_of(single)), using=single)
            seen.append(session_of(single))
            do(single, "INSERT INTO kit VALUES (2, 'two')")
            with transaction.atomic(using=single):
                do(single, "INSERT INTO kit VALUES (3, 'three')")
            assert (pool.out, session_of(single)) == (1, seen[0])
        assert pool.out == 0

    checkouts = pool.checkouts
    thread(transact)
    # The hook went on with what the block had.
    assert (pool.out, pool.checkouts) == (0, checkouts + 1)
    assert seen == [seen[0]] * 2
    assert ask(single, "SELECT COUNT(*) FROM kit") == 3


def in_a_block(alias: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, "INSERT INTO kit VALUES (2, 'two')")
        raise IntegrityError


def in_a_hook(alias: str) -> None:
    def fail() -> None:
        raise IntegrityError

    with transaction.atomic(using=alias):
        do(alias, "INSERT INTO kit VALUES (2, 'two')")
        transaction.on_commit(fail, using=alias)


def by_hand(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    do(alias, "INSERT INTO kit VALUES (2, 'two')")
    assert pool_of(alias).out == 1
    transaction.commit(using=alias)
    assert pool_of(alias).out == 1
    transaction.set_autocommit(True, using=alias)
    raise IntegrityError


@pytest.mark.parametrize(("work", "rows"), [(in_a_block, 1), (in_a_hook, 2), (by_hand, 2)])
def test_session_is_returned_after_work_that_failed(
    single: str, thread: Callable[..., Any], work: Callable[[str], None], rows: int
) -> None:
    with pytest.raises(IntegrityError):
        thread(work, single)
    assert pool_of(single).out == 0
    assert ask(single, "SELECT COUNT(*) FROM kit") == rows


def test_session_whose_cursor_could_not_be_closed_is_replaced(
    single: str, thread: Callable[..., Any]
) -> None:
    def spoil() -> None:
        with cursor_of(single) as cursor:  # swallows the error, as Django does
            cursor.execute("SELECT 1")
            connections[single].connection.close()

    pool = pool_of(single)
    thread(session_of, single)
    opened = pool.opened
    thread(spoil)
    assert pool.out == 0
    thread(do, single, "SELECT 1")
    assert (pool.out, pool.opened) == (0, opened + 1)


def test_open_cursor_keeps_the_session(single: str, thread: Callable[..., Any]) -> None:
    pool = pool_of(single)

    def read() -> list[Any]:
        with cursor_of(single) as first:
            session_of(single)
            # Opened before another was closed, and not used until now.
            first.execute("SELECT 1")
            session_of(single)
            return [*first.fetchall(), pool.out]

    checkouts = pool.checkouts
    assert thread(read) == [(1,), 1]
    assert (pool.out, pool.checkouts) == (0, checkouts + 1)


def test_something_left_keeps_the_session(bed: Bed, thread: Callable[..., Any]) -> None:
    """Its thread may come back for that. It ends with the thread."""

    def leave() -> tuple[int, int]:
        do(bed.alias, *next(iter(bed.backend.leaves.values())).leave)
        return session_of(bed.alias), session_of(bed.alias)

    first, second = thread(leave)
    assert (first, bed.pool.out) == (second, 1)
