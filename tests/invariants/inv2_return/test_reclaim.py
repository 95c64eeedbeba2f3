"""Invariant 2 under pressure: what a thread keeps while it waits for a job comes back when somebody needs it.

Whatever its session holds. What a thread keeps in the middle of a job stays its own.
"""

from __future__ import annotations

import asyncio
import copy
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, cast

import anyio.from_thread
import anyio.to_thread
import pytest
from asgiref.sync import sync_to_async
from django.db import ProgrammingError, connections, models, transaction
from MySQLdb import InterfaceError
from MySQLdb.cursors import SSCursor

from poollife import auto_close_db
from poollife.backends.mixin import PooledMixin
from poollife.drivers.contract import CLAIMED
from poollife.errors import PoolTimeout
from poollife.pools import returning as pools
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, make_log, out, rows, session_of, sql, variable
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, stub_pool
from tests.support.web_server import eventually


@pytest.fixture
def alias(make_alias: MakeAlias, mariadb: MariaDB) -> str:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 2})
    make_log(mariadb, alias)
    return alias


# --- jobs that leave their thread with a connection ---------------------------------------------------------


def setting(alias: str) -> None:
    sql(alias, "SET @left = 1")


def lock(alias: str) -> None:
    sql(alias, "SELECT GET_LOCK('left', 0)")


def released_lock(alias: str) -> None:
    lock(alias)
    sql(alias, "SELECT RELEASE_LOCK('left')")


def temporary_table(alias: str) -> None:
    sql(alias, "CREATE TEMPORARY TABLE left_table (id INT)")


def cursor_of_the_driver(alias: str) -> None:
    connections[alias].ensure_connection()
    with connections[alias].connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()


def half_a_result(alias: str) -> None:
    connections[alias].ensure_connection()
    connections[alias].connection.cursor(SSCursor).execute("SELECT seq FROM seq_1_to_1000")


def unclosed_cursor(alias: str) -> None:
    connections[alias].cursor().execute("SELECT 1")


def kept_cursor(alias: str) -> None:
    """One that is closed later, by another job or by none."""
    cursor = connections[alias].cursor()
    cursor.execute("SELECT 1")
    KEPT.append(cursor)


def ensured_connection(alias: str) -> None:
    connections[alias].ensure_connection()


def transaction_by_hand(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    sql(alias, "INSERT INTO log VALUES (1)")


def begin(alias: str) -> None:
    sql(alias, "BEGIN")
    sql(alias, "INSERT INTO log VALUES (1)")


def atomic_block(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    sql(alias, "INSERT INTO log VALUES (1)")


KEPT: list[Any] = []
JOBS = [
    *(setting, lock, released_lock, temporary_table, cursor_of_the_driver, half_a_result),
    *(unclosed_cursor, ensured_connection, transaction_by_hand, begin, atomic_block),
]


class Submit(Protocol):
    """Have a thread call this, and wait for that; the thread lives on."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any: ...


@pytest.fixture(params=["futures", "to_thread", "anyio", "asgiref"])
def submit(request: pytest.FixtureRequest) -> Iterator[Submit]:
    """In a thread of each kind of executor."""
    ways: dict[str, Any] = {
        "to_thread": asyncio.to_thread,
        "asgiref": lambda function, *args: sync_to_async(function)(*args),
    }
    if request.param == "futures":
        with ThreadPoolExecutor(1) as executor:
            yield lambda function, *args: executor.submit(function, *args).result(PATIENCE)
    elif request.param == "anyio":
        with anyio.from_thread.start_blocking_portal() as portal:
            yield partial(portal.call, anyio.to_thread.run_sync)
    else:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
            yield lambda function, *args: runner.run(ways[request.param](function, *args))
            # asgiref's thread lives on.
            runner.run(ways[request.param](connections.close_all))
    KEPT.clear()


@pytest.mark.parametrize("job", JOBS)
def test_what_a_thread_keeps_comes_back_when_it_is_needed(
    alias: str, mariadb: MariaDB, submit: Submit, job: Callable[[str], None]
) -> None:
    submit(job, alias)
    assert out(alias) == 1
    # The main thread needs it, and finds nothing of it.
    assert variable(alias) is None
    with connections[alias].cursor() as cursor:

        def is_free() -> bool:
            cursor.execute("SELECT IS_FREE_LOCK('left')")
            return bool(cursor.fetchall() == ((1,),))

        # A server ends a session a moment after the client has closed it.
        eventually("the lock is free", is_free)
        with pytest.raises(ProgrammingError, match="doesn't exist"):
            cursor.execute("SELECT * FROM left_table")
    assert rows(mariadb, alias) == 0
    connections[alias].close()
    # And the thread borrows anew.
    if job is atomic_block:
        with pytest.raises(ProgrammingError, match="in an atomic block"):
            submit(session_of, alias)
        submit(lambda: cast(PooledMixin, connections[alias]).reset_atomic_state())
    assert submit(variable, alias) is None


def test_a_session_that_was_taken_back_is_not_used_again(alias: str, submit: Submit) -> None:
    """Its thread may have got hold of the driver's connection a moment ago."""
    submit(setting, alias)
    first = submit(session_of, alias)
    assert session_of(alias) != first
    assert (pool_of(alias).opened, pool_of(alias).closed, pool_of(alias).resets) == (2, 1, 0)


def test_it_stays_with_its_thread_as_long_as_there_are_others(make_alias: MakeAlias, submit: Submit) -> None:
    alias = make_alias(POOL={"pool_size": 2, "max_overflow": 0})
    submit(setting, alias)
    session_of(alias)
    pool_of(alias).reclaim()
    assert submit(variable, alias) == 1


def test_a_pool_that_is_drained_needs_it(alias: str, submit: Submit) -> None:
    from poollife.control import drain_pool

    submit(setting, alias)
    assert drain_pool(alias, timeout=1)
    assert out(alias) == 0


# --- what stays its thread's own ----------------------------------------------------------------------------


def assert_kept(alias: str) -> None:
    with pytest.raises(PoolTimeout):
        session_of(alias)


def test_in_the_middle_of_a_job_nothing_is_taken(make_alias: MakeAlias) -> None:
    """However long it sleeps, and whether its work has ended or not."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    kept, looked = threading.Event(), threading.Event()

    def job() -> object:
        setting(alias)
        kept.set()
        looked.wait(PATIENCE)
        return variable(alias)

    @auto_close_db
    async def work() -> asyncio.Task[object]:
        task = asyncio.create_task(asyncio.to_thread(job))
        await asyncio.to_thread(kept.wait, PATIENCE)
        return task

    async def main() -> object:
        task = await work()
        await asyncio.to_thread(assert_kept, alias)
        looked.set()
        return await task

    assert asyncio.run(main()) == 1


def test_of_a_thread_with_a_loop_of_its_own_nothing_is_taken(make_alias: MakeAlias) -> None:
    """It may wait for anything."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
    seen: list[object] = []

    def run() -> None:
        while job := jobs.get():
            job()

    thread = threading.Thread(target=run)
    thread.start()
    jobs.put(partial(setting, alias))
    kept = threading.Event()
    jobs.put(kept.set)
    kept.wait(PATIENCE)
    assert_kept(alias)
    jobs.put(lambda: seen.append(variable(alias)))
    jobs.put(None)
    thread.join(PATIENCE)
    assert seen == [1]


def test_a_cursor_that_is_read_later_keeps_its_session(make_alias: MakeAlias) -> None:
    """By the next job, or by another thread: a streamed body is read by whichever thread is free."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        first.submit(kept_cursor, alias).result(PATIENCE)
        assert_kept(alias)
        assert second.submit(KEPT[0].fetchone).result(PATIENCE) == (1,)
        assert_kept(alias)
        first.submit(KEPT.pop().close).result(PATIENCE)
        assert session_of(alias)


def test_a_stream_of_rows_goes_on_when_others_need_its_session(
    make_alias: MakeAlias, mariadb: MariaDB
) -> None:
    """Between two parts the thread of its sync code waits for a job."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    name = connections[alias].settings_dict["NAME"]
    mariadb.execute(f"CREATE TABLE {name}.lines (id INT PRIMARY KEY AUTO_INCREMENT)")
    mariadb.execute(f"INSERT INTO {name}.lines SELECT seq FROM {name}.seq_1_to_300")

    class Line(models.Model):
        class Meta:
            app_label, db_table = "streams", "lines"

    async def main() -> int:
        count = 0
        async for _ in Line._default_manager.using(alias).aiterator(chunk_size=20):
            count += 1
            if count == 100:
                await asyncio.to_thread(assert_kept, alias)
        return count

    assert asyncio.run(main()) == 300


def test_a_shallow_copy_keeps_the_session_of_its_original(make_alias: MakeAlias) -> None:
    """It could commit in the next borrower's transaction."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    with ThreadPoolExecutor(1) as executor:
        executor.submit(setting, alias).result(PATIENCE)
        twin = executor.submit(lambda: copy.copy(connections[alias])).result(PATIENCE)
        assert_kept(alias)
        assert executor.submit(variable, alias).result(PATIENCE) == 1
        del twin
        assert variable(alias) is None


def test_of_a_request_that_goes_on_nothing_is_taken(make_alias: MakeAlias) -> None:
    """Although the thread of its sync code waits for a job."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})

    @auto_close_db
    async def work() -> object:
        await sync_to_async(setting)(alias)
        await asyncio.to_thread(assert_kept, alias)
        return await sync_to_async(variable)(alias)

    assert asyncio.run(work()) == 1


def test_of_a_wrapper_that_threads_share_nothing_is_taken(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.6})
    with ThreadPoolExecutor(1) as executor:
        wrapper = executor.submit(lambda: connections[alias]).result(PATIENCE)
        wrapper.inc_thread_sharing()
        executor.submit(setting, alias).result(PATIENCE)
        assert_kept(alias)
        wrapper.dec_thread_sharing()
        assert executor.submit(variable, alias).result(PATIENCE) == 1


# --- a thread that wakes up meanwhile -----------------------------------------------------------------------


def ask_django(alias: str) -> object:
    return variable(alias)


def ask_driver(alias: str) -> object:
    driver = connections[alias].connection
    driver.query("SELECT @left")
    return driver.store_result().fetch_row()[0][0]


def close(alias: str) -> object:
    connections[alias].close()
    return "closed"


WAKERS = [ask_django, ask_driver, close]


@pytest.mark.parametrize("wake", WAKERS)
def test_a_thread_that_wakes_up_keeps_its_session(
    alias: str, monkeypatch: pytest.MonkeyPatch, wake: Callable[[str], object]
) -> None:
    """After the look at it, and before what follows from that. It does not wait for the thread that looks."""
    seen: list[object] = []

    def look(thread: threading.Thread) -> bool:
        seen.append(executor.submit(wake, alias).result(PATIENCE))
        return True

    with ThreadPoolExecutor(1) as executor:
        executor.submit(setting, alias).result(PATIENCE)
        pool = pool_of(alias)
        (lease,) = pool.leases
        monkeypatch.setattr(pools, "waits_for_job", look)
        pool.reclaim(needed=True)
        monkeypatch.undo()
        closed = wake is close
        assert seen == ["closed" if closed else 1]
        assert lease.active is not closed
        assert executor.submit(variable, alias).result(PATIENCE) == (None if closed else 1)
    # Nothing was lost.
    assert variable(alias) is None
    KEPT.clear()


def test_what_a_thread_had_got_hold_of_is_refused(alias: str) -> None:
    """Whoever has the next session."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(setting, alias).result(PATIENCE)
        driver = executor.submit(lambda: connections[alias].connection).result(PATIENCE)
        assert variable(alias) is None
        with pytest.raises(InterfaceError):
            executor.submit(driver.query, "SELECT 1").result(PATIENCE)
        assert executor.submit(lambda: connections[alias].connection).result(PATIENCE) is None


def test_many_threads_wake_up_and_take_at_random(make_alias: MakeAlias) -> None:
    """Nobody is told anything that was another's, and no slot is lost."""
    alias = make_alias(POOL={"pool_size": 2, "max_overflow": 0, "timeout": PATIENCE})
    dice = random.Random(7)
    ends = time.monotonic() + 3
    seen: Counter[str] = Counter()

    def job(number: int) -> None:
        # What a job sets is there until it ends, and nothing of another job.
        sql(alias, f"SET @mine = {number}")
        seen["right" if variable(alias, "mine") == number else "wrong"] += 1

    def plain(number: int) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT @mine, %s", [number])
            seen["right" if cursor.fetchall() == ((None, number),) else "wrong"] += 1
        connections[alias].close()

    def borrow() -> None:
        while time.monotonic() < ends:
            plain(dice.randrange(1_000_000))

    borrowers = [threading.Thread(target=borrow) for _ in range(2)]
    with ThreadPoolExecutor(3) as executor:
        for borrower in borrowers:
            borrower.start()
        while time.monotonic() < ends:
            futures = [executor.submit(job, dice.randrange(1_000_000)) for _ in range(3)]
            for future in futures:
                future.result(PATIENCE)
            time.sleep(dice.random() * 0.01)
        for borrower in borrowers:
            borrower.join(PATIENCE)
        sql(alias, "SELECT 1")
    assert seen.keys() == {"right"}
    assert pool_of(alias).closed > 3, "the threads' sessions were taken back"


class ClaimingLock:
    """A pool's lock: while a thread waits for it, another thread claims its lease."""

    def __init__(self, lock: Any, lease: Any) -> None:
        self._lock = lock
        self._lease: Any = lease

    def __enter__(self) -> None:
        if lease := self._lease:
            lease.state = CLAIMED
            self._lease = None
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_return_goes_on_though_another_thread_claims_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The borrower has dropped the lease by then: otherwise it would be out until a checkout looks for it."""
    server = StubServer()
    pool, borrower = stub_pool("stub", server), StubBorrower(server)
    borrower.borrow(pool)
    lease = borrower.lease
    assert lease
    monkeypatch.setattr(pool, "_lock", ClaimingLock(pool._lock, lease))
    borrower.give_back()
    assert (lease.active, pool.out, pool.idle) == (False, 0, 1)


def test_struck_while_it_looks_nothing_is_lost(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def strike(thread: threading.Thread) -> bool:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as executor:
        executor.submit(setting, alias).result(PATIENCE)
        monkeypatch.setattr(pools, "waits_for_job", strike)
        with pytest.raises(KeyboardInterrupt):
            session_of(alias)
        monkeypatch.undo()
        assert executor.submit(variable, alias).result(PATIENCE) == 1
        session_of(alias)
