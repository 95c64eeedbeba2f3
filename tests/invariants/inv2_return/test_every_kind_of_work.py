"""Invariant 2 for every kind of work: each form of ``auto_close_db``, threads, executors and requests.

These tests hold for all kinds alike. What is particular to one kind is tested in the modules beside this one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from poollife import PooledThread, PooledThreadPoolExecutor, auto_close_db, pool_stats
from poollife.errors import PoolTimeout
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import (
    PATIENCE,
    Busy,
    Failure,
    TornDown,
    connection_id,
    insert,
    leave_a_transaction,
    leave_autocommit_off,
    leave_unread_rows,
    make_log,
    out,
    rows,
    run,
    sessions,
)
from tests.support.forms import FORMS, Body, by_name, every_kind
from tests.support.programs.databases import hold
from tests.support.works import (
    ALL,
    APPLICATIONS,
    DJANGO_REQUESTS,
    ENDS,
    IN_OWN_THREAD,
    ONE_IN_CALLERS_THREAD,
    ONE_IN_OWN_THREAD,
    ONE_OF_EACH,
    Runner,
    borrow_with_a_copy,
    each_of,
    executor,
    fail,
    fail_in_a_query,
    in_pooled_thread,
)

pytestmark = pytest.mark.usefixtures("_nothing_stays_current")


# --- the end of a work --------------------------------------------------------------------------------------


@each_of(ALL)
def test_work_returns_all_connections_when_it_ends(
    make_pool: Callable[[], str], mariadb: MariaDB, work: Runner
) -> None:
    aliases = [make_pool() for _ in range(3)]

    def body() -> list[tuple[int, int]]:
        return [(connection_id(alias), out(alias)) for alias in aliases]

    seen = []
    for _ in range(5):
        seen.append(work(body))
        assert [out(alias) for alias in aliases] == [0, 0, 0]
    # One session of each pool did it all.
    assert seen == [[(*sessions(mariadb, alias), 1) for alias in aliases]] * 5
    assert [pool_stats()[alias]["checkouts"] for alias in aliases] == [5, 5, 5]


@pytest.mark.parametrize("error", [Failure, TornDown, SystemExit])
@each_of([work for work in ALL if work not in DJANGO_REQUESTS])
def test_work_that_fails_returns_its_connection_and_rolls_back(
    alias: str, mariadb: MariaDB, work: Runner, error: type[BaseException]
) -> None:
    """Even where an asynchronous exception has kept a transaction's own end from running."""
    make_log(mariadb, alias)
    failure = error()

    def body() -> None:
        leave_a_transaction(alias)
        raise failure

    with pytest.raises(error) as caught:
        work(body)
    assert caught.value is failure
    assert (out(alias), rows(mariadb, alias)) == (0, 0)
    # The next work is in no transaction, and in the same session.
    work(lambda: insert(alias))
    assert (out(alias), rows(mariadb, alias), len(sessions(mariadb, alias))) == (0, 1, 1)


def check_end(mariadb: MariaDB, alias: str, work: Runner, body: Callable[[str], None]) -> None:
    make_log(mariadb, alias)
    error, seen, closed = ENDS[body]
    with pytest.raises(error) if error else nullcontext():
        work(lambda: body(alias))
    assert (out(alias), rows(mariadb, alias), pool_stats()[alias]["closed"]) == (0, seen, closed)
    # The thread and the session are as new.
    work(lambda: insert(alias))
    assert (out(alias), rows(mariadb, alias)) == (0, seen + 1)


@pytest.mark.parametrize("body", ENDS, ids=by_name)
@each_of([in_pooled_thread, executor, *APPLICATIONS])
def test_what_work_leaves_open_ends_with_it(
    alias: str, mariadb: MariaDB, work: Runner, body: Callable[[str], None]
) -> None:
    check_end(mariadb, alias, work, body)


@pytest.mark.parametrize(
    "body",
    [insert, fail, fail_in_a_query, leave_autocommit_off, leave_unread_rows, borrow_with_a_copy],
    ids=by_name,
)
@each_of(DJANGO_REQUESTS)
def test_what_a_view_leaves_open_ends_with_its_request(
    alias: str, mariadb: MariaDB, work: Runner, body: Callable[[str], None]
) -> None:
    check_end(mariadb, alias, work, body)


# --- work in a thread of its own ----------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@each_of(IN_OWN_THREAD)
def test_connection_of_the_caller_stays_the_callers(alias: str, work: Runner, atomic: bool) -> None:
    with transaction.atomic(using=alias) if atomic else nullcontext():
        before, raw = connection_id(alias), connections[alias].connection
        session, taken = work(lambda: (connection_id(alias), out(alias)))
        assert session != before
        assert (taken, out(alias)) == (2, 1)
        assert connections[alias].connection is raw
        assert connection_id(alias) == before


def start_thread(target: Callable[[], None]) -> Callable[[], object]:
    """Start a ``PooledThread``; return what waits for its end."""
    started = PooledThread(target=target)
    started.start()
    return lambda: started.join(PATIENCE)


def start_job(target: Callable[[], None]) -> Callable[[], object]:
    """Start a job of an executor; return what waits for its end."""
    pooled = PooledThreadPoolExecutor(1)
    pooled.submit(target)
    return pooled.shutdown


def start_stock_thread(target: Callable[[], None]) -> Callable[[], object]:
    """Start a thread of the standard library in the caller's context, as ``to_thread()`` does."""
    started = threading.Thread(target=copy_context().run, args=(target,))
    started.start()
    return lambda: started.join(PATIENCE)


@pytest.mark.parametrize("borrows", [False, True], ids=["borrows nothing", "borrows"])
@pytest.mark.parametrize("start", [start_thread, start_job, start_stock_thread], ids=by_name)
@every_kind
def test_connection_of_a_started_thread_is_not_its_starters(
    alias: str, form: Callable[[Body], Any], start: Callable[[Any], Callable[[], object]], borrows: bool
) -> None:
    """The thread goes on after the work that has started it, whether that has borrowed or not."""
    busy, seen = Busy(alias), []

    def target() -> None:
        before = connection_id(alias)
        busy.work()
        seen.append(connection_id(alias) == before)
        if start is start_stock_thread:
            connections[alias].close()

    def body() -> Callable[[], object]:
        if borrows:
            connection_id(alias)
        wait = start(target)
        assert busy.begun.wait(PATIENCE)
        return wait

    wait = form(body)
    assert out(alias) == 1
    busy.go_on.set()
    wait()
    assert (seen, out(alias)) == ([True], 0)


@each_of(ONE_IN_OWN_THREAD)
def test_every_form_of_auto_close_db_returns_its_own_inside_other_work(
    make_pool: Callable[[], str], work: Runner
) -> None:
    of_form, of_work = make_pool(), make_pool()

    def body(form: Callable[[Body], Any]) -> tuple[int, int]:
        connection_id(of_work)
        form(lambda: connection_id(of_form))
        return out(of_form), out(of_work)

    for form in FORMS:
        assert work(partial(body, form)) == (0, 1)
        assert out(of_work) == 0


def executor_of_five() -> AbstractContextManager[Runner]:
    return executor(5)


@each_of([in_pooled_thread, executor_of_five])
def test_nested_works_have_a_connection_each(make_pool: Callable[[int], str], work: Runner) -> None:
    alias = make_pool(5)

    def nest(depth: int) -> list[tuple[int, bool]]:
        before = connection_id(alias)
        below = work(partial(nest, depth - 1)) if depth else []
        return [*below, (out(alias), connection_id(alias) == before)]

    assert work(partial(nest, 4)) == [(count, True) for count in (5, 4, 3, 2, 1)]
    assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 5)


@pytest.mark.parametrize("wrapped", [False, True], ids=["pooled executor", "wrapped function"])
@pytest.mark.parametrize("way", ["run_in_executor", "default", "to_thread", "sync_to_async"])
def test_threads_of_a_loops_executor_return_after_each_job(
    alias: str, mariadb: MariaDB, way: str, wrapped: bool
) -> None:
    """These threads live as long as the loop. A pooled executor returns, or a function that is wrapped."""
    job = auto_close_db(connection_id) if wrapped else connection_id

    async def start(executor: ThreadPoolExecutor) -> int:
        loop = asyncio.get_running_loop()
        if way == "run_in_executor":
            return await loop.run_in_executor(executor, job, alias)
        if way == "default":
            return await loop.run_in_executor(None, job, alias)
        if way == "to_thread":
            return await asyncio.to_thread(job, alias)
        return await sync_to_async(job, thread_sensitive=False)(alias)

    async def main() -> None:
        with (ThreadPoolExecutor if wrapped else PooledThreadPoolExecutor)(8) as executor:
            if way != "run_in_executor":
                asyncio.get_running_loop().set_default_executor(executor)
            for _ in range(10):
                found = await asyncio.gather(*(start(executor) for _ in range(8)))
                assert set(found) <= sessions(mariadb, alias)
                assert out(alias) == 0

    asyncio.run(main())
    assert pool_stats()[alias]["opened"] <= 2


# --- errors, settings and databases -------------------------------------------------------------------------


@each_of(ONE_OF_EACH)
def test_session_that_the_server_ends_meanwhile_is_replaced(
    alias: str, mariadb: MariaDB, work: Runner
) -> None:
    def body() -> int:
        session = connection_id(alias)
        connections[alias].set_autocommit(False)
        mariadb.execute(f"KILL {session}")
        return session

    killed = work(body)
    assert (out(alias), pool_stats()[alias]["closed"]) == (0, 1)
    assert work(lambda: connection_id(alias)) != killed
    assert (out(alias), len(sessions(mariadb, alias))) == (0, 1)


@each_of(ONE_OF_EACH)
def test_work_that_gets_no_connection_costs_none(make_alias: MakeAlias, work: Runner) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0})
    busy = Busy(alias)
    holder = PooledThread(target=busy.work)
    holder.start()
    assert busy.begun.wait(PATIENCE)
    with pytest.raises(PoolTimeout):
        work(lambda: connection_id(alias))
    assert out(alias) == 1
    busy.go_on.set()
    holder.join(PATIENCE)
    work(lambda: connection_id(alias))
    assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 2)


@each_of(ONE_OF_EACH)
def test_pool_false_closes_the_session_when_work_ends(make_alias: MakeAlias, work: Runner) -> None:
    alias = make_alias(POOL=False)
    for opened in 1, 2:
        work(lambda: connection_id(alias))
        stats = pool_stats()[alias]
        assert (stats["out"], stats["opened"], stats["closed"]) == (0, opened, opened)


@each_of(ONE_IN_CALLERS_THREAD)
def test_connection_of_a_stock_backend_stays(make_alias: MakeAlias, work: Runner) -> None:
    alias = make_alias("django.db.backends.mysql", CONN_MAX_AGE=None)
    before = work(lambda: connection_id(alias))
    assert connection_id(alias) == before
    run(PooledThread(target=connection_id, args=(alias,)))
    assert connection_id(alias) == before


@each_of(ONE_OF_EACH)
def test_sqlite_connection_is_returned(make_alias: MakeAlias, tmp_path: Path, work: Runner) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "db"), POOL={"pool_size": 1})

    def body() -> int:
        hold(alias)
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        return out(alias)

    assert (work(body), out(alias)) == (1, 0)
