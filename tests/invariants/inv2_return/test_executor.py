"""Invariant 2 for ``PooledThreadPoolExecutor``; all else is as with the executor of the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from poollife import PooledThreadPoolExecutor, auto_close_db, pool_stats
from servers import MariaDB
from tests.support.borrowing import (
    PATIENCE,
    Busy,
    Failure,
    TornDown,
    connection_id,
    insert,
    out,
    sessions,
)
from tests.support.forms import by_name
from tests.support.handlers import Exchange, site
from tests.support.works import ENDS, borrow_with_a_copy

Make = Callable[..., ThreadPoolExecutor]


@pytest.fixture
def executor() -> Iterator[PooledThreadPoolExecutor]:
    """One thread, which lives on between the jobs."""
    with PooledThreadPoolExecutor(1) as executor:
        yield executor


# --- jobs give back -----------------------------------------------------------------------------------------


def test_connection_of_a_job_is_back_before_its_future_is_done(
    alias: str, mariadb: MariaDB, executor: ThreadPoolExecutor
) -> None:
    seen = []
    for _ in range(200):
        seen.append(executor.submit(connection_id, alias).result(PATIENCE))
        assert out(alias) == 0
    assert set(seen) == sessions(mariadb, alias)
    assert (len(set(seen)), pool_stats()[alias]["checkouts"]) == (1, 200)


def test_connection_of_a_job_is_back_before_the_callbacks_of_its_future_run(
    alias: str, executor: ThreadPoolExecutor
) -> None:
    busy, seen = Busy(alias), []
    future = executor.submit(busy.work)
    assert busy.begun.wait(PATIENCE)
    future.add_done_callback(lambda future: seen.append(out(alias)))
    busy.go_on.set()
    executor.shutdown()
    assert seen == [0]


def test_jobs_of_map_return_their_connections(make_pool: Callable[[int], str]) -> None:
    alias = make_pool(4)
    with PooledThreadPoolExecutor(4) as executor:
        found = set(executor.map(connection_id, [alias] * 100))
        assert (out(alias), len(found) <= 4) == (0, True)
    assert pool_stats()[alias]["checkouts"] == 100


def test_more_jobs_than_connections(alias: str) -> None:
    """Eight threads share two connections, with jobs of every kind."""
    with PooledThreadPoolExecutor(8) as executor:
        # Two that borrow a second connection at once would wait for each other.
        jobs = [job for job in ENDS if job not in (insert, borrow_with_a_copy)] * 20
        futures = [executor.submit(job, alias) for job in jobs]
        errors = {type(future.exception(PATIENCE)).__name__ for future in futures}
        assert out(alias) == 0
    assert errors == {"NoneType", "Failure", "TornDown", "SystemExit", "OperationalError", "ProgrammingError"}
    assert pool_stats()[alias]["idle"] <= 2


def test_initializer_returns_its_connection(alias: str) -> None:
    """And what it does for its thread stays done."""
    local = threading.local()

    def initialise(alias: str) -> None:
        local.session = connection_id(alias)

    with PooledThreadPoolExecutor(1, "name", initialise, (alias,)) as executor:
        assert executor.submit(lambda: (local.session, out(alias))).result(PATIENCE)[1] == 0
    assert pool_stats()[alias]["checkouts"] == 1


def test_initializer_that_fails_returns_its_connection(alias: str, caplog: pytest.LogCaptureFixture) -> None:
    with PooledThreadPoolExecutor(1, initializer=leave_and_fail, initargs=(alias,)) as executor:
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(connection_id, alias).result(PATIENCE)
        assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 1)
    assert "Exception in initializer" in caplog.text


def leave_and_fail(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    raise Failure


def test_a_cancelled_job_borrows_nothing(alias: str, executor: ThreadPoolExecutor) -> None:
    busy = Busy(alias)
    working = executor.submit(busy.work)
    assert busy.begun.wait(PATIENCE)
    waiting = [executor.submit(connection_id, alias) for _ in range(10)]
    assert not working.cancel()
    assert all(future.cancel() for future in waiting[:5])
    executor.shutdown(wait=False, cancel_futures=True)
    assert out(alias) == 1
    busy.go_on.set()
    executor.shutdown()
    assert all(future.cancelled() for future in waiting)
    assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 1)


# --- under asyncio ------------------------------------------------------------------------------------------


def test_a_task_that_is_cancelled_leaves_its_job_to_its_end(alias: str, executor: ThreadPoolExecutor) -> None:
    busy = Busy(alias)

    async def main() -> None:
        waiting = asyncio.get_running_loop().run_in_executor(executor, busy.work)
        await asyncio.to_thread(busy.begun.wait, PATIENCE)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert out(alias) == 1
        busy.go_on.set()
        await asyncio.get_running_loop().run_in_executor(executor, int)

    asyncio.run(main())
    assert out(alias) == 0


@pytest.mark.parametrize(
    "run", [lambda job: asyncio.run(job()), lambda job: async_to_sync(job)()], ids=["run", "to_sync"]
)
@pytest.mark.parametrize("under", ["sync", "async"])
def test_a_view_may_wait_for_a_job_that_runs_a_loop(
    alias: str, executor: ThreadPoolExecutor, run: Callable[[Any], int], under: str
) -> None:
    """Under ASGI: sync code in there must not queue for the thread of the view, which waits."""

    @auto_close_db
    async def decorated() -> int:
        return await sync_to_async(connection_id)(alias)

    def wait() -> HttpResponse:
        executor.submit(run, decorated).result(PATIENCE)
        return HttpResponse(str(out(alias)))

    def view(request: HttpRequest) -> HttpResponse:
        return wait()

    async def view_async(request: HttpRequest) -> HttpResponse:
        return await sync_to_async(wait)()

    async def main() -> None:
        exchange = Exchange()
        assert (await exchange.head(), await exchange.body()) == (200, b"0")

    with site(view=view if under == "sync" else view_async):
        asyncio.run(main())


# --- context variables --------------------------------------------------------------------------------------

variable: ContextVar[str] = ContextVar("variable", default="nothing")


def exchange_variable(value: str) -> str:
    before = variable.get()
    variable.set(value)
    return before


def test_a_job_sees_its_submitters_context_and_keeps_its_own(executor: ThreadPoolExecutor) -> None:
    variable.set("the first submitter's")
    first = executor.submit(exchange_variable, "the job's")
    assert first.result(PATIENCE) == "the first submitter's"
    assert variable.get() == "the first submitter's"
    other = copy_context()
    other.run(variable.set, "another's")
    second = other.run(executor.submit, exchange_variable, "the job's")
    assert second.result(PATIENCE) == "another's"
    assert set(executor.map(exchange_variable, "abc")) == {"the first submitter's"}
    variable.set("a later value")
    assert executor.submit(exchange_variable, "").result(PATIENCE) == "a later value"


def test_what_counts_is_when_it_was_submitted(alias: str, executor: ThreadPoolExecutor) -> None:
    busy = Busy(alias)
    executor.submit(busy.work)
    variable.set("before")
    waiting = executor.submit(variable.get)
    variable.set("after")
    busy.go_on.set()
    assert waiting.result(PATIENCE) == "before"


def test_jobs_of_one_submitter_may_run_at_once() -> None:
    """Each has a copy: one context can't be entered twice."""
    together = threading.Barrier(4)
    with PooledThreadPoolExecutor(4) as executor:
        futures = [executor.submit(together.wait, PATIENCE) for _ in range(4)]
        assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2, 3]


# --- as the standard library's ------------------------------------------------------------------------------
# Each says what happened; both classes must say the same.


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BaseException as error:
        return type(error), str(error)


def state(future: Future[Any]) -> Any:
    if future.cancelled():
        return "cancelled"
    return outcome(lambda: future.result(PATIENCE)) if future.done() else "pending"


def calling(make: Make) -> Any:
    def job(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    names = ("self", "fn", "job", "function", "work", "end", "args", "kwargs", "callable", "func")
    with make(2) as executor:
        return executor.submit(job, 1, 2, **dict.fromkeys(names, 3)).result()


def errors_(make: Make) -> Any:
    errors = [
        Failure("text"),
        TornDown(1),
        SystemExit(2),
        KeyboardInterrupt(),
        StopIteration(3),
        GeneratorExit(),
    ]
    errors += [concurrent.futures.CancelledError(), TimeoutError("its own")]

    def job(error: BaseException) -> None:
        raise error

    with make(1) as executor:
        futures = [executor.submit(job, error) for error in errors]
        for error, future in zip(errors, futures, strict=True):
            assert future.exception(PATIENCE) is error
        return [(error.__cause__, error.__context__) for error in errors]


def wrong_calls(make: Make) -> Any:
    executor: Any = make(1)
    with executor:
        return [
            outcome(lambda: executor.submit(None).result(PATIENCE)),
            outcome(lambda: executor.submit(len).result(PATIENCE)),
            outcome(lambda: executor.submit())[0],
            outcome(lambda: executor.submit(fn=len))[0],
            outcome(lambda: make(0)),
            outcome(lambda: make(-1)),
            outcome(lambda: make(initializer=1)),
            outcome(lambda: make(1, "", None, (), 1))[0],
            outcome(lambda: make(no_such_argument=1))[0],
        ]


def mapping(make: Make) -> Any:
    def divide(number: int, by: int) -> float:
        return number / by

    with make(3) as executor:
        results = executor.map(divide, [6, 5, 4, 3], [3, 2, 0, 1])
        return [
            outcome(lambda: next(results)),
            outcome(lambda: next(results)),
            outcome(lambda: next(results)),
            outcome(lambda: next(results)),
            list(executor.map(pow, range(20), itertools.repeat(2), chunksize=5)),
            list(executor.map(pow, [], [])),
            list(executor.map(divide, [1, 2, 3], [1])),
        ]


def mapping_with_a_timeout(make: Make) -> Any:
    started, go_on = threading.Event(), threading.Event()

    def job(number: int) -> int:
        if number:
            started.set()
            assert go_on.wait(PATIENCE)
        return number

    with make(1) as executor:
        results = executor.map(job, range(2), timeout=0.1)
        assert started.wait(PATIENCE)
        seen = [outcome(lambda: next(results)), outcome(lambda: next(results))[0]]
        go_on.set()
    return seen


def abandoned_map(make: Make) -> Any:
    go_on, ran = threading.Event(), []

    def job(number: int) -> int:
        ran.append(number)
        assert number == 0 or go_on.wait(PATIENCE)
        return number

    with make(1) as executor:
        results = executor.map(job, range(10))
        first = next(results)
        while len(ran) < 2:
            pass
        results.close()  # type: ignore[attr-defined]
        go_on.set()
    return first, ran


def initialising(make: Make) -> Any:
    calls: list[Any] = []
    together = threading.Barrier(3)

    def initialise(*args: Any) -> None:
        calls.append((args, threading.current_thread().name.rpartition("_")[0]))

    with make(3, "prefix", initialise, (1, 2)) as executor:
        list(executor.map(lambda _: together.wait(PATIENCE), range(3)))
    with make(max_workers=1, thread_name_prefix="other", initializer=initialise, initargs=(3,)) as executor:
        name = executor.submit(lambda: threading.current_thread().name).result()
    return calls, name


def failing_initializer(make: Make) -> Any:
    def initialise() -> None:
        raise Failure

    with make(1, initializer=initialise) as executor:
        first = outcome(executor.submit(len, "").result)
        return first, outcome(lambda: executor.submit(len, ""))


def shutting_down(make: Make) -> Any:
    executor = make(1)
    go_on = threading.Event()
    futures: list[Future[Any]] = [executor.submit(go_on.wait, PATIENCE)]
    futures += [executor.submit(int) for _ in range(3)]
    while not futures[0].running():
        pass
    refused = futures[0].cancel()
    executor.shutdown(wait=False)
    late = outcome(lambda: executor.submit(int)), outcome(lambda: list(executor.map(int, "12")))
    go_on.set()
    executor.shutdown()
    executor.shutdown(wait=True, cancel_futures=True)
    return refused, late, [state(future) for future in futures]


def shutting_down_with_cancellation(make: Make) -> Any:
    executor = make(1)
    go_on = threading.Event()
    futures: list[Future[Any]] = [executor.submit(go_on.wait, PATIENCE)]
    futures += [executor.submit(int) for _ in range(3)]
    while not futures[0].running():
        pass
    futures[1].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    executor.shutdown()
    return [state(future) for future in futures]


def leaving_its_block(make: Make) -> Any:
    go_on = threading.Event()
    with make(1) as executor:
        futures: list[Future[Any]] = [executor.submit(go_on.wait, PATIENCE), executor.submit(int)]
        go_on.set()
    return [state(future) for future in futures], outcome(lambda: executor.submit(int))


def waiting(make: Make) -> Any:
    def job(number: int) -> int:
        if number == 2:
            raise Failure
        return number

    with make(1) as executor:
        futures = [executor.submit(job, number) for number in range(4)]
        done, _ = concurrent.futures.wait(futures, PATIENCE, concurrent.futures.FIRST_EXCEPTION)
        assert futures[2] in done
        return sorted([state(each) for each in concurrent.futures.as_completed(futures, PATIENCE)], key=str)


def callbacks(make: Make) -> Any:
    calls: list[Any] = []
    go_on = threading.Event()

    def note(name: str, future: Future[Any]) -> None:
        calls.append((name, future.result(), threading.current_thread().name))

    with make(1, "worker") as executor:
        future = executor.submit(go_on.wait, PATIENCE)
        future.add_done_callback(partial(note, "first"))
        future.add_done_callback(partial(note, "second"))
        go_on.set()
    future.add_done_callback(partial(note, "late"))
    return calls


def threads(make: Make) -> Any:
    """Idle ones are used again."""
    with make(8) as executor:
        names = set()
        for _ in range(20):
            names.add(executor.submit(threading.get_ident).result(PATIENCE))
            while executor._idle_semaphore._value == 0:  # the only sign that one is idle
                pass
        return len(names), threading.get_ident() in names


def nesting(make: Make) -> Any:
    with make(2) as outer, make(1) as inner:
        return outer.submit(
            lambda: [*inner.map(str, range(3)), outer.submit(str, 4).result(PATIENCE)]
        ).result()


def generator_jobs(make: Make) -> Any:
    def steps() -> Iterator[bool]:
        yield threading.current_thread() is threading.main_thread()

    with make(1) as executor:
        return list(executor.submit(steps).result(PATIENCE))


def memory(make: Make) -> Any:
    """What a job is given and returns is freed as early."""

    class Thing:
        pass

    def job(thing: Thing, fails: bool) -> Thing:
        if fails:
            raise Failure
        return thing

    alive = []
    with make(1) as executor:
        for fails in (False, True):
            thing = Thing()
            reference = weakref.ref(thing)
            future = executor.submit(job, thing, fails)
            future.exception(PATIENCE)
            executor.submit(int).result(PATIENCE)  # now the thread is done with it
            del thing, future
            alive.append(reference() is not None)
    return alive


def dropped(make: Make) -> Any:
    """Its threads end without ``shutdown()``."""
    executor = make(1)
    thread = executor.submit(threading.current_thread).result(PATIENCE)
    reference = weakref.ref(executor)
    del executor
    gc.collect()
    thread.join(PATIENCE)
    return reference() is None, thread.is_alive()


def asyncio_s_executor(make: Make) -> Any:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(make(1, "default"))
        with make(1, "own") as own:
            name = lambda: threading.current_thread().name  # noqa: E731  # it is what is run
            seen = [await loop.run_in_executor(own, name), await loop.run_in_executor(None, name)]
            seen.append(await asyncio.to_thread(name))
            error = (await asyncio.gather(loop.run_in_executor(own, int, "x"), return_exceptions=True))[0]
            return [*seen, type(error), str(error)]

    return asyncio.run(main())


SCENARIOS: list[Callable[[Make], Any]] = [
    calling,
    errors_,
    wrong_calls,
    mapping,
    mapping_with_a_timeout,
    abandoned_map,
    initialising,
    failing_initializer,
    shutting_down,
    shutting_down_with_cancellation,
    leaving_its_block,
    waiting,
    callbacks,
    threads,
    nesting,
    generator_jobs,
    memory,
    dropped,
    asyncio_s_executor,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=by_name)
def test_it_does_what_the_standard_librarys_does(scenario: Callable[[Make], Any]) -> None:
    assert scenario(PooledThreadPoolExecutor) == scenario(ThreadPoolExecutor)


def test_it_is_one() -> None:
    assert issubclass(PooledThreadPoolExecutor, Executor)
    ours, stock = inspect.signature(PooledThreadPoolExecutor), inspect.signature(ThreadPoolExecutor)
    assert list(ours.parameters)[:4] == list(stock.parameters)[:4]
