"""Invariant 2: in a request, task or block the statements of one thread run in one session, as with stock.

Sync or async, under WSGI and ASGI. Between two statements another thread borrows: a session that had been
returned would be the first that it gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections, models
from django.http import HttpRequest, HttpResponse

from poollife import auto_close_db
from poollife.asgi import PoolASGIMiddleware
from servers import MariaDB
from tests.support.borrowing import PATIENCE, Keeper, database, out, session_of, sql, variable
from tests.support.counting import pool_of
from tests.support.handlers import Exchange, site, wsgi

SIZE = 4
#: At once; more than there are sessions.
CLIENTS = 12
ROUNDS = 10


@pytest.fixture
def alias(make_pool: Callable[[int], str], mariadb: MariaDB) -> str:
    alias = make_pool(SIZE)
    mariadb.execute(f"CREATE TABLE {database(alias)}.notes (id INT PRIMARY KEY AUTO_INCREMENT, number INT)")
    return alias


@pytest.fixture
def take(alias: str) -> Iterator[Callable[[], int]]:
    """A function that has another thread borrow, and keep, the session that was returned last."""
    keepers: list[Keeper] = []

    def take() -> int:
        keepers.append(Keeper(alias))
        return keepers[-1].session

    yield take
    for keeper in keepers:
        keeper.let_go()


# --- another thread borrows between two statements ----------------------------------------------------------


def twice(alias: str, take: Callable[[], int]) -> list[int]:
    """Sync code."""
    first = session_of(alias)
    assert connections[alias].connection is not None
    take()
    return [first, session_of(alias)]


async def twice_async(alias: str, take: Callable[[], int]) -> list[int]:
    """Async code, as with the ORM's async methods: each statement is a call of its own."""
    first = await sync_to_async(session_of)(alias)
    await asyncio.to_thread(take)
    return [first, await sync_to_async(session_of)(alias)]


@auto_close_db
async def function(alias: str, take: Callable[[], int]) -> list[int]:
    return await twice_async(alias, take)


async def block(alias: str, take: Callable[[], int]) -> list[int]:
    async with auto_close_db():
        return await twice_async(alias, take)


async def block_of_sync_code(alias: str, take: Callable[[], int]) -> list[int]:
    async with auto_close_db():
        return await sync_to_async(twice)(alias, take)


async def generator(alias: str, take: Callable[[], int]) -> list[int]:
    @auto_close_db
    async def sessions() -> Any:
        yield await sync_to_async(session_of)(alias)
        await asyncio.to_thread(take)
        yield await sync_to_async(session_of)(alias)

    return [session async for session in sessions()]


async def asgi_application(alias: str, take: Callable[[], int]) -> list[int]:
    """One that is not Django's."""
    seen: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(await twice_async(alias, take))

    await PoolASGIMiddleware(application)({"type": "http"}, None, None)  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("work", [function, block, block_of_sync_code, generator, asgi_application])
@pytest.mark.parametrize("runs_in", [asyncio.run, "async_to_sync"])
def test_the_statements_of_an_async_work_share_a_session(
    alias: str, take: Callable[[], int], work: Any, runs_in: Any
) -> None:
    if runs_in == "async_to_sync":
        first, second = async_to_sync(work)(alias, take)
    else:
        first, second = runs_in(work(alias, take))
    assert first == second
    # And then it comes back; the other has one of its own.
    assert (out(alias), pool_of(alias).opened) == (1, 2)


def answer(sessions: list[int]) -> HttpResponse:
    return HttpResponse(" ".join(map(str, sessions)))


@pytest.fixture
def views(alias: str, take: Callable[[], int]) -> dict[str, Any]:
    def sync_view(request: HttpRequest) -> HttpResponse:
        return answer(twice(alias, take))

    async def async_view(request: HttpRequest) -> HttpResponse:
        return answer(await twice_async(alias, take))

    return {"sync_view": sync_view, "async_view": async_view}


@pytest.mark.parametrize("view", ["sync_view", "async_view"])
@pytest.mark.parametrize("gateway", ["wsgi", "asgi"])
def test_the_statements_of_a_request_share_a_session(
    alias: str, views: dict[str, Any], view: str, gateway: str
) -> None:
    async def ask() -> bytes:
        exchange = Exchange("/view")
        assert await exchange.head() == 200
        # Before the response is sent.
        assert out(alias) == 1
        return await exchange.body()

    with site(view=views[view]):
        if gateway == "asgi":
            body = asyncio.run(ask())
        else:
            # In a thread that is not the main one, which would keep what it has in any case.
            with ThreadPoolExecutor(1) as server:
                body = server.submit(lambda: wsgi().content).result(PATIENCE)  # type: ignore[attr-defined]
    first, second = body.split()
    assert first == second
    assert (out(alias), pool_of(alias).opened) == (1, 2)


# --- more requests than connections -------------------------------------------------------------------------


def insert_and_ask(alias: str, number: int) -> bool:
    """By two cursors, as people write it."""
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO notes (number) VALUES (%s)", [number])
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT LAST_INSERT_ID()")
        ((new,),) = cursor.fetchall()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT number FROM notes WHERE id = %s", [new])
        return bool(cursor.fetchall() == ((number,),))


def test_no_request_is_told_what_another_has_inserted(alias: str) -> None:
    """Sync views under ASGI, three times as many as there are sessions."""
    numbers = iter(range(1, 1_000_000))

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(insert_and_ask(alias, next(numbers))))

    async def ask(application: ASGIHandler) -> bytes:
        exchange = Exchange("/view", application)
        assert await exchange.head() == 200
        return await exchange.body()

    async def ask_all() -> list[bytes]:
        application = ASGIHandler()
        answers: list[bytes] = []
        for _ in range(ROUNDS):
            answers += await asyncio.gather(*(ask(application) for _ in range(CLIENTS)))
        return answers

    with site(view=view):
        answers = asyncio.run(ask_all())
    assert answers == [b"True"] * (ROUNDS * CLIENTS)
    assert (out(alias), pool_of(alias).opened) == (0, SIZE)


# --- a thread that several works share ----------------------------------------------------------------------


def test_async_works_that_share_a_thread_do_not_share_its_state(alias: str) -> None:
    """Without a request asgiref has one thread for all sync code."""

    async def both() -> None:
        async with auto_close_db():
            await sync_to_async(sql)(alias, "SET @left = 1")
            other = asyncio.create_task(look(), context=Context())
            assert await other is None

    @auto_close_db
    async def look() -> object:
        return await sync_to_async(variable)(alias)

    asyncio.run(both())
    assert (out(alias), pool_of(alias).resets) == (0, 2)


def test_async_works_that_share_a_thread_end_no_cursor_of_another(alias: str, mariadb: MariaDB) -> None:
    """The one that has begun first ends while the other reads."""
    name = database(alias)
    mariadb.execute(f"INSERT INTO {name}.notes (number) SELECT seq FROM {name}.seq_1_to_200")

    class Note(models.Model):
        class Meta:
            app_label, db_table = "shared_thread", "notes"

    @auto_close_db
    async def count(most: int) -> int:
        rows = Note._default_manager.using(alias).order_by("id")[:most]
        return len([row async for row in rows.aiterator(chunk_size=5)])

    async def both() -> list[int]:
        return list(await asyncio.gather(count(20), count(200)))

    assert asyncio.run(both()) == [20, 200]
    assert out(alias) == 0


def test_a_part_of_an_async_work_goes_on_in_its_session(alias: str) -> None:
    @auto_close_db
    async def part() -> object:
        return await sync_to_async(variable)(alias)

    async def whole() -> object:
        async with auto_close_db():
            await sync_to_async(sql)(alias, "SET @left = 1")
            return await part()

    assert asyncio.run(whole()) == 1
    assert (out(alias), pool_of(alias).checkouts) == (0, 1)


def test_other_threads_of_a_request_hold_nothing_between_statements(alias: str) -> None:
    """Where the request does not end they would keep what others wait for."""

    async def view(request: HttpRequest) -> HttpResponse:
        seen = await asyncio.gather(*(asyncio.to_thread(session_of, alias) for _ in range(2 * SIZE)))
        await asyncio.to_thread(session_of, alias)
        return HttpResponse(f"{len(seen)} {out(alias)}")

    async def ask() -> bytes:
        exchange = Exchange("/view")
        assert await exchange.head() == 200
        return await exchange.body()

    with site(view=view):
        assert asyncio.run(ask()) == f"{2 * SIZE} 0".encode()


def test_a_websocket_holds_nothing_between_statements(alias: str) -> None:
    """It may last for hours."""
    seen: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            await sync_to_async(session_of)(alias)
            seen.append(out(alias))

    asyncio.run(PoolASGIMiddleware(application)({"type": "websocket"}, None, None))  # type: ignore[arg-type, unused-ignore]
    assert seen == [0, 0]


def test_a_task_that_outlives_its_request_holds_nothing(alias: str) -> None:
    async def main() -> list[int]:
        @auto_close_db
        async def work() -> asyncio.Task[list[int]]:
            return asyncio.create_task(outlive())

        async def outlive() -> list[int]:
            await over.wait()
            await sync_to_async(session_of)(alias)
            return [out(alias)]

        over = asyncio.Event()
        task = await work()
        over.set()
        return await task

    assert asyncio.run(main()) == [0]


def test_a_session_that_broke_is_replaced_for_its_own_borrower(alias: str, mariadb: MariaDB) -> None:
    """Outside of a transaction, and where nothing was left in it."""

    @auto_close_db
    def work() -> list[object]:
        first = session_of(alias)
        seen: list[object] = []
        for step in (partial(mariadb.execute, f"KILL {first}"), session_of, session_of):
            try:
                seen.append(step() if isinstance(step, partial) else step(alias) != first)
            except Exception as error:
                seen.append(type(error).__name__)
        return seen

    with ThreadPoolExecutor(1) as executor:
        seen = executor.submit(work).result(PATIENCE)
    assert seen[1:] == ["OperationalError", True]
