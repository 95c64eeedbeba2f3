"""Questions that are answered with what the database says to them, in one of many ways, or given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from tests.support.threads_site.models import Visit

PARTS = 3


def ask(sql: str, *parameters: float) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


def change(sql: str, *parameters: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


async def cursor(number: int, pause: float) -> Any:
    return await sync_to_async(ask)("SELECT %s + SLEEP(%s)", number, pause)


async def variable(number: int, pause: float) -> Any:
    """In what one session remembers from call to call."""
    await sync_to_async(change)("SET @number = %s", number)
    await asyncio.sleep(pause)
    return await sync_to_async(ask)("SELECT @number")


async def orm(number: int, pause: float) -> Any:
    visit = await Visit.objects.acreate(pk=number)
    await asyncio.sleep(pause)
    found = [visit.pk async for visit in Visit.objects.filter(pk=number)]
    await visit.adelete()
    return found[0]


async def rolled_back(number: int, pause: float) -> Any:
    """A row that nobody else ever sees."""

    @transaction.atomic
    def work() -> Any:
        change("INSERT INTO visits VALUES (%s)", -number)
        seen = ask("SELECT -id + SLEEP(%s) FROM visits WHERE id < 0", pause)
        transaction.set_rollback(True)
        return seen

    return await sync_to_async(work)()


async def to_thread(number: int, pause: float) -> Any:
    """In a thread that no end of a request reaches, and that goes on when nobody waits for it any more."""
    return await asyncio.to_thread(ask, "SELECT %s + SLEEP(%s)", number, pause)


WAYS: dict[str, Callable[[int, float], Awaitable[Any]]] = {
    each.__name__: each for each in (cursor, variable, orm, rolled_back, to_thread)
}


async def question(request: HttpRequest, way: str, number: int) -> HttpResponse:
    status, answer = await answer_to(way, number, request.GET)
    return HttpResponse(answer, status=status)


async def answer_to(way: str, number: int, how: Mapping[str, str]) -> tuple[int, str]:
    """With the status: 504 where it has given up."""
    try:
        answer = await ENDS[how["end"]](WAYS[way](number, float(how["pause"])), float(how["limit"]))
    except TimeoutError:
        return 504, ""
    return 200, str(int(answer))


async def in_time(answer: Awaitable[Any], limit: float) -> Any:
    async with asyncio.timeout(limit):
        return await answer


async def unless_cancelled(answer: Awaitable[Any], limit: float) -> Any:
    """By somebody else than who waits for it."""
    task = asyncio.ensure_future(answer)
    try:
        await asyncio.wait([task], timeout=limit)
    finally:
        task.cancel()
    try:
        await asyncio.wait([task])
        return task.result()
    except asyncio.CancelledError:
        raise TimeoutError from None


async def always(answer: Awaitable[Any], limit: float) -> Any:
    return await answer


ENDS: dict[str, Callable[[Awaitable[Any], float], Awaitable[Any]]] = {
    each.__name__: each for each in (in_time, unless_cancelled, always)
}


def open_cursor(sql: str) -> Any:
    cursor = connection.cursor()
    cursor.execute(sql)
    return cursor


async def stream(request: HttpRequest, number: int) -> StreamingHttpResponse:
    """It reads from one cursor while it is sent."""
    pause = float(request.GET["pause"])
    opened = await sync_to_async(open_cursor)(f"SELECT {number} FROM seq_1_to_{PARTS}")

    async def body() -> AsyncIterator[str]:
        while row := await sync_to_async(opened.fetchone)():
            await asyncio.sleep(pause)
            yield f"{row[0]} "

    return StreamingHttpResponse(body())
