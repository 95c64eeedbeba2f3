"""Invariant 2 for work that stops and goes on: generators and coroutines."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.signals import request_finished
from django.db import InterfaceError, close_old_connections, connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from poollife import auto_close_db, pool_stats
from servers import MariaDB
from tests.support.borrowing import (
    PATIENCE,
    Busy,
    Failure,
    TornDown,
    connection_id,
    insert,
    make_log,
    out,
    rows,
)
from tests.support.forms import Body, by_name, every_kind
from tests.support.generators import Async, Sync
from tests.support.handlers import Exchange, site, wsgi

pytestmark = pytest.mark.usefixtures("_nothing_stays_current")


# --- generators of both kinds -------------------------------------------------------------------------------


@pytest.fixture(params=[Sync, Async], ids=by_name)
def drive(request: pytest.FixtureRequest) -> Iterator[Sync]:
    """Both kinds of generators, driven alike."""
    driver = request.param()
    yield driver
    driver.end()


@Sync.body
def ids(alias: str, count: int) -> Generator[Any, Any, str]:
    """Yield a session's number in each step. What is sent comes back, and what is thrown is answered."""
    for _ in range(count):
        try:
            answer = yield connection_id(alias)
            while answer:
                answer = yield answer
        except Failure as failure:
            yield failure
    return "the end"


@Async.body
async def ids_async(alias: str, count: int) -> Any:
    for _ in range(count):
        try:
            answer = yield await sync_to_async(connection_id)(alias)
            while answer:
                answer = yield answer
        except Failure as failure:
            yield failure


def test_generator_keeps_its_connection_between_its_steps(alias: str, drive: Sync) -> None:
    steps = drive.begin("ids", alias, 2)
    assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 0)  # nothing has run yet
    first = drive.next(steps)
    assert out(alias) == 1
    assert drive.send(steps, "sent") == "sent"
    failure = Failure()
    assert drive.throw(steps, failure) is failure
    assert (drive.next(steps), out(alias)) == (first, 1)
    with pytest.raises(drive.stop) as end:
        drive.next(steps)
    assert (getattr(end.value, "value", "the end"), out(alias)) == ("the end", 0)
    assert pool_stats()[alias]["checkouts"] == 1


def close_twice(drive: Any, held: list[Any]) -> None:
    drive.close(held[0])
    drive.close(held[0])


def throw(drive: Any, held: list[Any]) -> None:
    with pytest.raises(TornDown):
        drive.throw(held[0], TornDown)


ENDS: dict[str, Callable[[Any, list[Any]], object]] = {
    "exhausted": lambda drive, held: drive.exhaust(held[0]),
    "closed": lambda drive, held: drive.close(held[0]),
    "closed twice": close_twice,
    "left and dropped": lambda drive, held: drive.break_off(held),
    "thrown into": throw,
}
ENDS_OF_ASYNC = ENDS | {"closed in another task": lambda drive, held: drive.close_in_another_task(held[0])}


@pytest.mark.parametrize("started", [True, False], ids=["started", "fresh"])
@pytest.mark.parametrize(
    ("drive", "end"),
    [*((Sync, end) for end in ENDS), *((Async, end) for end in ENDS_OF_ASYNC)],
    indirect=["drive"],
)
def test_generator_returns_its_connection_however_it_ends(
    alias: str, drive: Sync, end: str, started: bool
) -> None:
    held = [drive.begin("ids", alias, 3)]
    if started:
        drive.next(held[0])
    assert out(alias) == started
    ENDS_OF_ASYNC[end](drive, held)
    held.clear()
    gc.collect()
    drive.check_returned(alias)
    assert pool_stats()[alias]["opened"] <= 1


@Sync.body
def borrow_at_the_end(first: str, last: str, seen: list[tuple[int, int]]) -> Iterator[int]:
    try:
        yield connection_id(first)
    finally:
        connection_id(last)
        seen.append((out(first), out(last)))


@Async.body
async def borrow_at_the_end_async(first: str, last: str, seen: list[tuple[int, int]]) -> Any:
    try:
        yield await sync_to_async(connection_id)(first)
    finally:
        await sync_to_async(connection_id)(last)
        seen.append((out(first), out(last)))


def test_generator_that_borrows_as_it_is_closed_returns_it(make_pool: Callable[[], str], drive: Sync) -> None:
    first, last = make_pool(), make_pool()
    seen: list[tuple[int, int]] = []
    steps = drive.begin("borrow_at_the_end", first, last, seen)
    drive.next(steps)
    drive.close(steps)
    assert (seen, out(first), out(last)) == ([(1, 1)], 0, 0)


@Sync.body
def open_a_transaction(alias: str, around: Any) -> Iterator[None]:
    around.__enter__()
    insert(alias)
    yield


@Async.body
async def open_a_transaction_async(alias: str, around: Any) -> Any:
    await sync_to_async(around.__enter__)()
    await sync_to_async(insert)(alias)
    yield


def test_transaction_that_a_generator_leaves_to_its_consumer_stays_when_it_is_closed(
    alias: str, mariadb: MariaDB, drive: Sync
) -> None:
    make_log(mariadb, alias)
    around = transaction.atomic(using=alias)

    def consume() -> None:
        steps = drive.begin("open_a_transaction", alias, around)
        drive.next(steps)
        drive.close(steps)
        drive.call(insert, alias)
        assert (out(alias), rows(mariadb, alias)) == (1, 0)
        drive.call(around.__exit__, None, None, None)

    drive.consume(consume)
    assert (out(alias), rows(mariadb, alias)) == (0, 2)


@Sync.body
def fail_in_the_second_step(alias: str) -> Iterator[int]:
    yield connection_id(alias)
    raise Failure


@Async.body
async def fail_in_the_second_step_async(alias: str) -> Any:
    yield await sync_to_async(connection_id)(alias)
    raise Failure


@pytest.mark.parametrize("thrown", [False, True], ids=["in its body", "thrown into"])
def test_transaction_of_its_consumer_outlasts_a_generator_that_fails(
    alias: str, mariadb: MariaDB, drive: Sync, thrown: bool
) -> None:
    """A failed work leaves the blocks that its own body has opened, and no others."""
    make_log(mariadb, alias)
    around = transaction.atomic(using=alias)

    def consume() -> None:
        steps = drive.begin("fail_in_the_second_step", alias)
        drive.next(steps)
        drive.call(around.__enter__)
        drive.call(insert, alias)
        with pytest.raises(Failure):
            drive.throw(steps, Failure) if thrown else drive.next(steps)
        assert out(alias) == 1
        assert drive.call(lambda: connections[alias].in_atomic_block)
        drive.call(insert, alias)
        assert (out(alias), rows(mariadb, alias)) == (1, 0)
        drive.call(around.__exit__, None, None, None)

    drive.consume(consume)
    assert (out(alias), rows(mariadb, alias)) == (0, 2)


# --- generators ---------------------------------------------------------------------------------------------


def test_a_generator_that_will_not_end_is_told_so_and_gives_back(alias: str) -> None:
    @auto_close_db
    def stubborn() -> Iterator[int]:
        try:
            yield connection_id(alias)
        finally:
            yield 0

    steps: Any = stubborn()
    next(steps)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        steps.close()
    assert out(alias) == 0


def test_an_open_transaction_of_a_generator_ends_with_it(alias: str, mariadb: MariaDB) -> None:
    make_log(mariadb, alias)

    @auto_close_db
    def steps() -> Iterator[None]:
        with transaction.atomic(using=alias):
            insert(alias)
            yield

    left: Any = steps()
    next(left)
    left.close()
    assert (out(alias), rows(mariadb, alias)) == (0, 0)
    list(steps())
    assert (out(alias), rows(mariadb, alias)) == (0, 1)


def test_what_its_consumer_borrows_is_not_a_generators_own(make_pool: Callable[[], str]) -> None:
    of_generator, of_consumer = make_pool(), make_pool()
    steps = ids(of_generator, 2)
    next(steps)
    connection_id(of_consumer)
    assert len(list(steps)) == 1
    assert (out(of_generator), out(of_consumer)) == (0, 1)


def test_generators_that_take_turns(make_pool: Callable[[], str]) -> None:
    """Each has an alias of its own, and one that all of this thread share."""
    shared = make_pool()
    aliases = [make_pool() for _ in range(3)]

    @auto_close_db
    def steps(alias: str, count: int) -> Iterator[tuple[int, int]]:
        for _ in range(count):
            yield connection_id(alias), connection_id(shared)

    running = [steps(alias, count) for count, alias in enumerate(aliases, 2)]
    seen: list[set[Any]] = [set() for _ in running]
    for turn in range(1, 6):
        for index, each in enumerate(running):
            seen[index].update([found[0] for found in [next(each, None)] if found])
        assert [out(alias) for alias in aliases] == [int(turn <= count) for count in (2, 3, 4)]
    assert [len(each) for each in seen] == [1, 1, 1]
    assert (out(shared), pool_stats()[shared]["opened"]) == (0, 1)


@every_kind
def test_a_transaction_of_its_consumer_outlasts_it(
    alias: str, mariadb: MariaDB, form: Callable[[Body], Any]
) -> None:
    """It ends in the middle of a transaction, on the connection that it has borrowed."""
    make_log(mariadb, alias)

    def consume() -> None:
        steps = ids(alias, 2)
        next(steps)
        with transaction.atomic(using=alias):
            insert(alias)
            list(steps)
            insert(alias)
            assert out(alias) == 1

    form(consume)
    assert (out(alias), rows(mariadb, alias), pool_stats()[alias]["checkouts"]) == (0, 2, 1)


def test_cursors_of_generators_that_share_a_connection_die_with_it(alias: str) -> None:
    """They never read what is somebody else's."""

    @auto_close_db
    def read(count: int) -> Iterator[int]:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT seq FROM seq_1_to_{count}")
            while row := cursor.fetchone():
                yield row[0]

    first, second = read(2), read(3)
    assert (next(first), next(second), list(first), out(alias)) == (1, 1, [2], 0)
    with pytest.raises(InterfaceError, match="went back to the pool"):
        next(second)
    assert (list(read(3)), out(alias)) == ([1, 2, 3], 0)


# --- coroutines ---------------------------------------------------------------------------------------------


async def iterate(busy: Busy) -> None:
    @auto_close_db
    async def steps() -> AsyncIterator[None]:
        await sync_to_async(busy.work)()
        yield

    async for _ in steps():
        raise AssertionError("not reached")


async def enter(busy: Busy) -> None:
    async with auto_close_db():
        await sync_to_async(busy.work)()


async def decorated(busy: Busy) -> None:
    @auto_close_db
    async def job() -> None:
        await sync_to_async(busy.work)()

    await job()


@pytest.mark.parametrize("job", [decorated, iterate, enter], ids=by_name)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("late", [False, True], ids=["after it borrowed", "before it borrows"])
def test_cancelled_while_its_sync_code_works(
    alias: str, job: Callable[[Busy], Any], times: int, late: bool
) -> None:
    """That can't be interrupted: giving back queues behind it. Who cancels once more need not wait."""
    busy = Busy(alias, borrows_late=late)

    async def main() -> None:
        task = asyncio.create_task(job(busy))
        await asyncio.to_thread(busy.begun.wait, PATIENCE)
        for _ in range(times):
            assert (task.done(), out(alias)) == (False, int(not late))
            task.cancel()
            await asyncio.sleep(0.05)
        assert task.done() is (times == 2)
        busy.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        if times == 2:
            await sync_to_async(lambda: None)()  # that thread's queue
        assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 1)

    asyncio.run(main())
    assert pool_stats()[alias]["closed"] == 0


def test_a_loop_that_ends_in_the_middle_takes_nothing_along(alias: str) -> None:
    """``asyncio.run()`` cancels what is left; the thread of the sync code outlives it."""
    borrowed = []

    @auto_close_db
    async def forever() -> None:
        borrowed.append(await sync_to_async(connection_id)(alias))
        await asyncio.Event().wait()

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(forever())
        while not borrowed:
            await asyncio.sleep(0)
        assert out(alias) == 1
        return task

    assert asyncio.run(main()).cancelled()
    assert out(alias) == 0


def test_a_hundred_tasks_at_once(alias: str) -> None:
    @auto_close_db
    async def job(number: int) -> int:
        first = await sync_to_async(connection_id)(alias)
        await asyncio.sleep(0)
        assert await sync_to_async(connection_id)(alias) == first
        if number % 3 == 1:
            raise Failure
        return number

    async def main() -> None:
        tasks = [asyncio.create_task(job(number)) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[2::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [int, Failure, asyncio.CancelledError] * 33 + [int]
        assert out(alias) == 0

    asyncio.run(main())
    assert pool_stats()[alias]["opened"] == 1


@pytest.mark.parametrize("djangos_hand", [True, False], ids=["closed by Django", "left alone"])
def test_a_coroutine_that_goes_on_after_its_request(alias: str, djangos_hand: bool) -> None:
    """Its sync code began in the request's thread, which has ended; Django closes what is there."""
    go_on = asyncio.Event()
    tasks = []

    @auto_close_db
    async def job(borrowed: asyncio.Event) -> None:
        await sync_to_async(connection_id)(alias)
        borrowed.set()
        await go_on.wait()
        await sync_to_async(connection_id)(alias)

    async def view(request: HttpRequest) -> HttpResponse:
        borrowed = asyncio.Event()
        tasks.append(asyncio.create_task(job(borrowed)))
        await borrowed.wait()
        return HttpResponse()

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert out(alias) == 1
        await exchange.body()
        assert out(alias) == (0 if djangos_hand else 1)
        go_on.set()
        await asyncio.gather(*tasks)
        assert out(alias) == 0

    if not djangos_hand:
        request_finished.disconnect(close_old_connections)
    try:
        with site(view=view):
            asyncio.run(main())
    finally:
        request_finished.connect(close_old_connections)


def test_a_coroutine_whose_thread_can_be_reached_no_more(alias: str) -> None:
    """Begun under ``async_to_sync()``, which has returned; then the thread ends with its request."""
    tasks, go_on = [], asyncio.Event()

    @auto_close_db
    async def job(borrowed: asyncio.Event) -> int:
        session = await sync_to_async(connection_id)(alias)
        borrowed.set()
        await go_on.wait()
        return session

    async def begin() -> None:
        borrowed = asyncio.Event()
        tasks.append(asyncio.create_task(job(borrowed)))
        await borrowed.wait()

    def view(request: HttpRequest) -> HttpResponse:
        async_to_sync(begin)()
        return HttpResponse()

    async def main() -> int:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert out(alias) == 1
        await exchange.body()
        go_on.set()
        return await tasks[0]

    request_finished.disconnect(close_old_connections)
    try:
        with site(view=view):
            session = asyncio.run(main())
    finally:
        request_finished.connect(close_old_connections)
    assert (out(alias), connection_id(alias)) == (0, session)


# --- as bodies of responses ---------------------------------------------------------------------------------


@pytest.fixture
def _djangos_hand_tied() -> Iterator[None]:
    """Without Django's own closing at ``request_finished``."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


@pytest.mark.usefixtures("_djangos_hand_tied")
@pytest.mark.parametrize("whole", [True, False], ids=["to its end", "left in the middle"])
def test_a_generator_that_is_streamed_gives_back(alias: str, whole: bool) -> None:
    with site(view=lambda request: StreamingHttpResponse(f"{step}\n" for step in ids(alias, 3))):
        response = wsgi()
        body = iter(response)
        next(body)
        assert out(alias) == 1
        if whole:
            assert len(list(body)) == 2
        else:
            response.close()
        del body, response
        assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 1)


@pytest.mark.usefixtures("_djangos_hand_tied")
@pytest.mark.parametrize("whole", [True, False], ids=["to its end", "left in the middle"])
def test_an_async_generator_that_is_streamed_gives_back(alias: str, whole: bool) -> None:
    @auto_close_db
    async def body() -> AsyncIterator[str]:
        for _ in range(3):
            yield str(await sync_to_async(connection_id)(alias))

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(body())

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert out(alias) == 0
        parts = exchange.parts()
        await anext(parts)
        assert out(alias) == 1
        if whole:
            assert len([part async for part in parts]) == 2
            await exchange.end()
        else:
            await exchange.disconnect()
            # Django drops it, and the loop closes what nobody has any more; here the test has it still.
            del exchange, parts
            gc.collect()
        async with asyncio.timeout(PATIENCE):
            while out(alias):
                await asyncio.sleep(0.001)
        assert pool_stats()[alias]["checkouts"] == 1

    with site(view=view):
        asyncio.run(main())
