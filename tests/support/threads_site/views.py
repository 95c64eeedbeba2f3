"""Its views: one for each way in which code under ASGI comes to a thread, as people write it and wrapped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from poollife import PooledThread, PooledThreadPoolExecutor, auto_close_db
from tests.support.threads_site.models import Visit

#: Tasks that outlive their requests; asyncio itself holds them weakly.
tasks: set[asyncio.Task[Any]] = set()


def session() -> int:
    """One SELECT, and the session that it ran in: a thread that asks the server for that keeps it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(connection.connection.thread_id())


class Tools:
    """What the views work with."""

    def __init__(
        self,
        wrap: Callable[[Any], Any],
        thread: type[threading.Thread],
        executor: type[ThreadPoolExecutor],
        query: Callable[[], int] = session,
    ) -> None:
        self.wrap = wrap
        self.thread = thread
        self.executor = executor
        self.query = query
        self.work = wrap(query)


def query_by_hand() -> int:
    """With a cursor of the driver's own connection, which Django knows nothing of."""
    connection.ensure_connection()
    with connection.connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return int(cursor.fetchone()[0])


def answer(*sessions: Any) -> HttpResponse:
    assert all(sessions)
    return HttpResponse(" ".join(map(str, sessions)))


def make_views(tools: Tools) -> dict[str, Any]:
    @tools.wrap
    def sync_view(request: HttpRequest) -> HttpResponse:
        return answer(tools.query())

    @tools.wrap
    async def sync_to_async_(request: HttpRequest) -> HttpResponse:
        return answer(await sync_to_async(tools.query)())

    @tools.wrap
    async def async_orm(request: HttpRequest) -> HttpResponse:
        assert [visit async for visit in Visit.objects.all()] == []
        return answer(await Visit.objects.acount() == 0)

    async def thread_insensitive(request: HttpRequest) -> HttpResponse:
        return answer(await sync_to_async(tools.work, thread_sensitive=False)())

    async def to_thread(request: HttpRequest) -> HttpResponse:
        return answer(await asyncio.to_thread(tools.work))

    async def run_in_executor(request: HttpRequest) -> HttpResponse:
        return answer(await asyncio.get_running_loop().run_in_executor(None, tools.work))

    async def create_task(request: HttpRequest) -> HttpResponse:
        @tools.wrap
        async def later() -> None:
            await sync_to_async(tools.query)()
            begun.set()
            await asyncio.sleep(0.05)  # the request is over by then, and its thread has ended
            await sync_to_async(tools.query)()

        begun = asyncio.Event()
        task = asyncio.create_task(later())
        tasks.add(task)
        await begun.wait()
        return answer("begun")

    def thread(request: HttpRequest) -> HttpResponse:
        seen: list[int] = []
        started = tools.thread(target=lambda: seen.append(tools.query()))
        started.start()
        started.join()
        return answer(*seen)

    def executor(request: HttpRequest) -> HttpResponse:
        with tools.executor(2) as executor:
            return answer(*executor.map(lambda _: tools.query(), range(4)))

    async def eight_at_once(request: HttpRequest) -> HttpResponse:
        return answer(*await asyncio.gather(*(asyncio.to_thread(tools.work) for _ in range(8))))

    views = [sync_view, sync_to_async_, async_orm, thread_insensitive, to_thread, run_in_executor]
    views += [create_task, thread, executor, eight_at_once]
    return {view.__name__.rstrip("_"): view for view in views}


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """As for server-sent events: until the client leaves."""

    @auto_close_db
    async def body() -> AsyncIterator[str]:
        while True:
            yield f"data: {await sync_to_async(query_by_hand)()}\n\n"

    return StreamingHttpResponse(body(), content_type="text/event-stream")


async def settle(request: HttpRequest) -> HttpResponse:
    """Wait for the tasks; what came of them counts as this request's own."""
    await asyncio.gather(*tasks)
    count = len(tasks)
    tasks.clear()
    return answer(f"{count} tasks")


STOCK = make_views(Tools(lambda function: function, threading.Thread, ThreadPoolExecutor))
BY_HAND = make_views(Tools(lambda function: function, threading.Thread, ThreadPoolExecutor, query_by_hand))
WRAPPED = make_views(Tools(auto_close_db, PooledThread, PooledThreadPoolExecutor, query_by_hand))
