"""Invariant 2 without any hook: in threads that live on, what nothing depends on goes back at once.

That is between two statements: in autocommit, with no cursor open and nothing left in the session.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, connections, transaction
from MySQLdb.cursors import SSCursor

from poollife import PooledThreadPoolExecutor, auto_close_db
from poollife.work import Work, current_work
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, ask_id, database, make_log, out, rows
from tests.support.counting import pool_of

T = TypeVar("T")
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 10}


@pytest.fixture
def thread() -> Iterator[Callable[..., Any]]:
    """A function that has a thread which lives on call something, and waits for that."""
    with ThreadPoolExecutor(1) as executor:

        def call(function: Callable[..., T], *args: Any) -> T:
            return executor.submit(function, *args).result(PATIENCE)

        yield call


@pytest.fixture
def alias(make_pool: Callable[[int], str], mariadb: MariaDB) -> str:
    alias = make_pool(1)
    make_log(mariadb, alias)
    return alias


def sql(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


# --- it goes back -------------------------------------------------------------------------------------------


def test_what_asks_for_autocommit_borrows_nothing(alias: str, thread: Any) -> None:
    """``on_commit()``, ``savepoint()`` and ``select_for_update()`` do so outside of transactions."""
    assert thread(partial(transaction.get_autocommit, using=alias)) is True
    assert thread(lambda: connections[alias].savepoint()) is None
    thread(partial(transaction.on_commit, gc.isenabled, using=alias))
    assert (out(alias), pool_of(alias).checkouts) == (0, 0)


def test_without_autocommit_it_is_asked(make_alias: MakeAlias, thread: Any) -> None:
    """A block is made of savepoints there."""
    alias = make_alias(POOL=ONE, AUTOCOMMIT=False)

    def transact() -> tuple[bool, int, int]:
        with transaction.atomic(using=alias), transaction.atomic(using=alias):
            return transaction.get_autocommit(using=alias), ask_id(alias), ask_id(alias)

    autocommit, first, second = thread(transact)
    assert (autocommit, first) == (False, second)


def test_a_task_that_outlives_its_work(alias: str) -> None:
    """In a context where that is the current one still."""
    work = Work("a request")
    seen: list[int] = []

    def outlive() -> None:
        current_work.set(work)
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            seen.append(out(alias))
        seen.append(out(alias))

    work.end(True)
    running = threading.Thread(target=outlive)
    running.start()
    running.join(PATIENCE)
    assert seen == [1, 0]


def test_a_thread_of_a_work_that_goes_on_in_another(alias: str) -> None:
    """``asyncio.to_thread`` takes the context along, but nobody would come for it there."""

    @auto_close_db
    async def work() -> int:
        await asyncio.to_thread(ask_id, alias)
        return out(alias)

    assert asyncio.run(work()) == 0


# --- it stays -----------------------------------------------------------------------------------------------


def test_until_a_cursor_that_was_dropped_is_gone(alias: str, thread: Any) -> None:
    def drop() -> None:
        connections[alias].cursor().execute("SELECT 1")

    thread(drop)
    thread(ask_id, alias)
    assert (out(alias), pool_of(alias).checkouts) == (0, 1)


@pytest.mark.parametrize("statement", ["BEGIN", "SELECT GET_LOCK('left', 0)"])
def test_with_something_left_in_the_session(alias: str, thread: Any, statement: str) -> None:
    """Its thread may come back for that. It ends with the thread."""

    def leave() -> tuple[int, int]:
        sql(alias, statement)
        return ask_id(alias), ask_id(alias)

    first, second = thread(leave)
    assert (first, out(alias)) == (second, 1)


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT it"])
def test_with_a_transaction_of_sqlite_begun_by_hand(
    make_alias: MakeAlias, tmp_path: Path, thread: Any, begin: str
) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "db"), POOL={"pool_size": 1})
    sql(alias, "CREATE TABLE log (number INT)")
    connections[alias].close()

    def by_hand() -> None:
        sql(alias, begin)
        sql(alias, "INSERT INTO log VALUES (1)")
        assert out(alias) == 1
        sql(alias, "COMMIT")

    thread(by_hand)
    assert out(alias) == 0
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM log")
        assert cursor.fetchone() == (1,)


def test_with_autocommit_set_at_the_driver(alias: str, mariadb: MariaDB, thread: Any) -> None:
    def by_hand() -> None:
        connections[alias].ensure_connection()
        driver = connections[alias].connection
        driver.autocommit(False)
        sql(alias, "INSERT INTO log VALUES (1)")
        sql(alias, "INSERT INTO log VALUES (2)")
        driver.commit()
        driver.autocommit(True)
        sql(alias, "SELECT 1")

    thread(by_hand)
    assert (out(alias), rows(mariadb, alias)) == (0, 2)


def test_of_one_who_works_by_hand(alias: str, thread: Any) -> None:
    """What comes after a cursor of the driver's own connection can't be known."""

    def by_hand() -> int:
        connections[alias].ensure_connection()
        connection = connections[alias].connection
        with connection.cursor(SSCursor) as cursor:
            cursor.execute("INSERT INTO log VALUES (1)")
        connection.commit()
        return out(alias)

    assert thread(by_hand) == 1


def test_with_other_threads(alias: str, thread: Any) -> None:
    """A wrapper that threads share, as those of LiveServerTestCase do."""

    def share() -> int:
        connections[alias].inc_thread_sharing()
        try:
            ask_id(alias)
            return out(alias)
        finally:
            connections[alias].dec_thread_sharing()

    assert thread(share) == 1


def test_in_a_work_of_its_own_thread(alias: str, thread: Any) -> None:
    @auto_close_db
    def work() -> list[int]:
        return [ask_id(alias), ask_id(alias), out(alias)]

    assert thread(work)[2] == 1
    assert (out(alias), pool_of(alias).checkouts) == (0, 1)


@pytest.mark.parametrize("POOL", [False, {"poolclass": "sqlalchemy.pool.NullPool"}], ids=["off", "NullPool"])
def test_where_sessions_are_not_kept(make_alias: MakeAlias, mariadb: MariaDB, thread: Any, POOL: Any) -> None:
    """As with Django's: each statement would open one."""
    alias = make_alias(POOL=POOL)
    assert thread(ask_id, alias) == thread(ask_id, alias)
    assert pool_of(alias).opened == 1


# --- what one work has left there is nothing for the next ---------------------------------------------------


def leave_a_variable(alias: str) -> None:
    sql(alias, "SET @left = 1")


def leave_a_transaction(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    sql(alias, "SET @left = 1")
    sql(alias, "INSERT INTO log VALUES (1)")


def variable(alias: str) -> object:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT @left")
        return cursor.fetchone()[0]


@auto_close_db
async def in_threads(*jobs: Callable[[], T]) -> list[T]:
    """As a request does it: in the loop's threads, with its context."""
    return [await asyncio.to_thread(job) for job in jobs]


@pytest.fixture
def one_thread() -> Iterator[Callable[..., Any]]:
    """A function that runs a coroutine on a loop with one thread for all."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
        yield runner.run


@pytest.mark.parametrize("leave", [leave_a_variable, leave_a_transaction])
def test_of_a_work_that_is_over(alias: str, mariadb: MariaDB, one_thread: Any, leave: Any) -> None:
    look = partial(variable, alias)
    # Its own is kept for it.
    assert one_thread(in_threads(partial(leave, alias), look)) == [None, 1]
    assert out(alias) == 1
    assert one_thread(in_threads(look, look)) == [None, None]
    # To look counts as leaving something, too.
    assert (out(alias), rows(mariadb, alias), pool_of(alias).opened) == (1, 0, 1)


def test_of_a_work_that_goes_on(alias: str, one_thread: Any) -> None:
    async def both() -> None:
        first = auto_close_db()
        await first.__aenter__()
        try:
            await asyncio.to_thread(leave_a_variable, alias)
            # Another request, with a context of its own.
            other = asyncio.create_task(in_threads(partial(variable, alias)), context=Context())
            assert await other == [None]
        finally:
            await first.__aexit__(None, None, None)

    one_thread(both())
    assert pool_of(alias).resets == 1


def test_of_a_work_around(alias: str, one_thread: Any) -> None:
    """A part of a work goes on with what the whole has set."""

    def both() -> object:
        leave_a_variable(alias)
        return auto_close_db(variable)(alias)

    assert one_thread(in_threads(both, partial(variable, alias))) == [1, 1]


def test_of_a_thread_that_is_its_own_work(alias: str, thread: Any) -> None:
    """What it has set is there for what it calls."""

    def both() -> object:
        leave_a_variable(alias)
        return auto_close_db(variable)(alias)

    assert thread(both) == 1


def test_of_what_a_thread_has_called_asynchronously(alias: str, thread: Any) -> None:
    """There the work begins in another thread."""

    @auto_close_db
    async def look() -> object:
        return await sync_to_async(variable)(alias)

    def both() -> object:
        leave_a_variable(alias)
        return async_to_sync(look)()

    assert thread(both) == 1


@pytest.mark.parametrize("leave", [leave_a_variable, leave_a_transaction])
def test_of_no_work_at_all(alias: str, mariadb: MariaDB, one_thread: Any, leave: Any) -> None:
    """``run_in_executor`` takes no context along."""

    async def both() -> object:
        await asyncio.get_running_loop().run_in_executor(None, leave, alias)
        return await in_threads(partial(variable, alias))

    assert one_thread(both()) == [None]
    assert (rows(mariadb, alias), pool_of(alias).opened) == (0, 1)


def test_but_not_by_a_thread_that_may_not_use_it(alias: str, thread: Any) -> None:
    work = Work("a request")
    wrapper = thread(lambda: connections[alias])
    thread(work.run, leave_a_variable, alias)
    with pytest.raises(DatabaseError, match="same thread"):
        wrapper.cursor()
    assert thread(work.run, variable, alias) == 1


def test_with_a_cursor_that_is_read_still(alias: str, one_thread: Any) -> None:
    cursors: list[Any] = []

    def leave() -> None:
        cursors.append(connections[alias].cursor())
        cursors[0].execute("SELECT 1")

    one_thread(in_threads(leave))
    assert one_thread(in_threads(partial(ask_id, alias), lambda: cursors[0].fetchone()))[1] == (1,)
    one_thread(in_threads(lambda: cursors.pop().close()))
    assert out(alias) == 0


def test_an_endless_row_of_works_is_no_chain() -> None:
    """Each is begun by the one before, in its context."""
    tasks: list[asyncio.Task[None]] = []

    @auto_close_db
    async def step(left: int) -> None:
        if left:
            tasks.append(asyncio.create_task(step(left - 1)))
        await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.create_task(step(20), context=Context())
        while tasks:
            await tasks.pop()
        assert count_works() - before < 5

    before = count_works()
    asyncio.run(main())


def test_an_endless_row_of_blocks_is_no_chain() -> None:
    """Each is begun before the one before ends."""
    tasks: list[asyncio.Task[None]] = []
    seen: list[int] = []

    async def step(left: int) -> None:
        async with auto_close_db():
            if left:
                tasks.append(asyncio.create_task(step(left - 1)))
            else:
                seen.append(count_works() - before)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.create_task(step(20), context=Context())
        while tasks:
            await tasks.pop()

    before = count_works()
    asyncio.run(main())
    assert seen[0] < 6


def test_an_endless_row_of_jobs_is_no_chain() -> None:
    """Each submits the next."""
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()

    def job(left: int) -> None:
        if left:
            executor.submit(job, left - 1)
        else:
            seen.put(count_works() - before)

    before = count_works()
    with PooledThreadPoolExecutor(2) as executor:
        executor.submit(job, 20)
        assert seen.get(timeout=PATIENCE) < 6


def count_works() -> int:
    gc.collect()
    # Not isinstance(), which wakes lazy objects.
    return sum(issubclass(type(each), Work) for each in gc.get_objects())


# --- elsewhere ----------------------------------------------------------------------------------------------


def test_another_pool_class(make_alias: MakeAlias, thread: Any) -> None:
    alias = make_alias(POOL={**ONE, "poolclass": "sqlalchemy.pool.QueuePool"})
    assert thread(ask_id, alias) == thread(ask_id, alias)
    assert (out(alias), pool_of(alias).opened, pool_of(alias).checkouts) == (0, 1, 2)


def test_a_reset_at_each_return(make_alias: MakeAlias, thread: Any) -> None:
    """It is a return like any other."""
    alias = make_alias(POOL={**ONE, "reset": "always"})
    assert thread(ask_id, alias) == thread(ask_id, alias)
    assert (out(alias), pool_of(alias).opened, pool_of(alias).resets) == (0, 1, 2)


def test_sqlite(make_alias: MakeAlias, tmp_path: Path, thread: Any) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "db"), POOL={"pool_size": 1})
    thread(sql, alias, "CREATE TABLE log (number INT)")
    thread(sql, alias, "DROP TABLE log")
    checkouts = pool_of(alias).checkouts
    for _ in range(3):
        thread(sql, alias, "SELECT 1")
    # What creates or drops a table counts as leaving something: from there on the thread kept it.
    assert pool_of(alias).checkouts == checkouts
    with ThreadPoolExecutor(1) as executor:
        for _ in range(3):
            executor.submit(partial(sql, alias, "SELECT 1")).result(PATIENCE)
        assert pool_of(alias).out == 1


def test_a_database_is_dropped_under_it(alias: str, mariadb: MariaDB, thread: Any) -> None:
    """Nothing of it is held by a thread that lives on."""
    thread(ask_id, alias)
    mariadb.execute(f"DROP TABLE {database(alias)}.log")
    assert out(alias) == 0
