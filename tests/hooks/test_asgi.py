"""Tests of ``poollife.asgi`` in process.

Tests with real servers: tests/invariants/inv1_fork/test_servers.py and
tests/invariants/inv2_return/test_asgi_servers.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import NoneType
from typing import Any

import anyio
import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpResponse

from poollife import auto_close_db, pool_stats
from poollife.asgi import Application, Message, PoolASGIMiddleware, warm_up
from poollife.errors import PoolTimeout
from servers import MariaDB
from servers.ports import free_port
from tests.conftest import MakeAlias
from tests.support.borrowing import Busy, Failure, TornDown, connection_id, out
from tests.support.counting import Questions, pool_of
from tests.support.handlers import Exchange, site
from tests.support.web_server import eventually

LIFE = ("lifespan.startup", "lifespan.shutdown")
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- a server's life --------------------------------------------------------------------------------------


class Server:
    """The server's side of ASGI."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._messages = iter(LIFE)
        self.sent: list[str] = []
        #: How many sessions there were at each message.
        self.sessions: list[int] = []

    async def receive(self) -> Message:
        message = next(self._messages)
        if message == "lifespan.shutdown":
            await sync_to_async(auto_close_db(connection_id), thread_sensitive=False)(self.alias)
        return {"type": message}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])
        self.sessions.append(self.count())

    def count(self) -> int:
        # Not by the server's list, which has a session for a moment after its quit packet.
        stats = pool_stats().get(self.alias)
        return stats["opened"] - stats["closed"] if stats else 0

    def run(self, application: Application, warm: int = 0) -> None:
        asyncio.run(PoolASGIMiddleware(application, warm=warm)({"type": "lifespan"}, self.receive, self.send))


@pytest.fixture
def server(make_alias: MakeAlias) -> Server:
    return Server(make_alias())


async def knows(scope: Message, receive: Any, send: Any) -> None:
    """An application with a lifespan of its own."""
    for _ in LIFE:
        await send({"type": f"{(await receive())['type']}.complete"})


async def fails_at_shutdown(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": f"{(await receive())['type']}.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed"})


async def fails_at_startup(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    raise LookupError


async def fails_in_shutdown(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": f"{(await receive())['type']}.complete"})
    await receive()
    raise LookupError


async def refuses_to_start(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": f"{(await receive())['type']}.failed"})


async def turns_away(scope: Message, receive: Any, send: Any) -> None:
    """As applications do that look for http only."""


async def listens_only(scope: Message, receive: Any, send: Any) -> None:
    await receive()


async def starts_only(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": f"{(await receive())['type']}.complete"})


APPLICATIONS: dict[str, Application] = {
    "Django's": ASGIHandler(),
    **{each.__name__: each for each in (knows, turns_away, listens_only, starts_only)},
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_shutdown_ends_the_sessions_before_it_is_complete(server: Server, name: str) -> None:
    application = APPLICATIONS[name]
    server.run(application)
    assert server.sent == COMPLETE
    assert server.sessions == [0, 0]


def test_so_does_one_that_fails(server: Server) -> None:
    server.run(fails_at_shutdown)
    assert (server.sent[-1], server.sessions[-1]) == ("lifespan.shutdown.failed", 0)


def test_so_does_one_in_which_the_application_breaks(server: Server) -> None:
    with pytest.raises(LookupError):
        server.run(fails_in_shutdown)
    assert server.sent == COMPLETE[:1]
    assert server.count() == 0


def test_without_it_they_live_on(server: Server) -> None:
    """As a control."""
    asyncio.run(knows({"type": "lifespan"}, server.receive, server.send))
    assert server.sessions == [0, 1]


def test_an_application_that_fails_to_start_has_failed(server: Server) -> None:
    with pytest.raises(LookupError):
        server.run(fails_at_startup)
    assert server.sent == []


def test_one_that_refuses_to_start_is_not_asked_to_shut_down(server: Server) -> None:
    server.run(refuses_to_start, warm=3)
    assert (server.sent, server.sessions) == (["lifespan.startup.failed"], [0])


def test_what_a_startup_borrows_is_back_before_the_first_request(server: Server) -> None:
    outs: list[int] = []

    async def queries(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await sync_to_async(connection_id)(server.alias)
        outs.append(out(server.alias))
        await send({"type": "lifespan.startup.complete"})
        outs.append(out(server.alias))

    server.run(queries)
    assert (outs, server.sessions) == ([1, 0], [1, 0])


# --- warm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warm", "opened"), [(0, 0), (3, 3), (100, 5)])
def test_sessions_are_there_before_the_first_request(
    server: Server, caplog: pytest.LogCaptureFixture, warm: int, opened: int
) -> None:
    """``pool_size`` of them at most."""
    server.run(knows, warm)
    assert (server.sent, server.sessions) == (COMPLETE, [opened, 0])
    assert caplog.messages == []


def test_the_first_request_finds_them_ready(mariadb: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias()
    asyncio.run(warm_up(1))
    with Questions(mariadb) as asked:
        connection_id(alias)
    assert (asked.count, pool_of(alias).opened) == (1, 1)


def test_where_nothing_is_pooled_nothing_is_opened(server: Server, make_alias: MakeAlias) -> None:
    make_alias("django.db.backends.mysql")
    make_alias(POOL=False)
    opened: list[str] = []

    def note(connection: Any, **_: Any) -> None:
        opened.append(connection.alias)

    connection_created.connect(note)
    try:
        server.run(knows, 2)
    finally:
        connection_created.disconnect(note)
    assert opened == [server.alias] * 2


def test_a_database_out_of_reach_keeps_nobody_from_starting(
    server: Server, make_alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    unreachable = make_alias(PORT=str(free_port()), POOL={"outage_wait": 0})
    server.run(knows, 2)
    assert (server.sent, server.sessions) == (COMPLETE, [2, 0])
    assert f"Pool {unreachable!r} could not be warmed up" in caplog.messages


# --- requests ---------------------------------------------------------------------------------------------


def serve(*applications: Application, kind: str = "http", **scope: Any) -> list[Any]:
    """What came of these, all at once."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        pass

    async def main() -> list[Any]:
        calls = [PoolASGIMiddleware(each)({"type": kind, **scope}, receive, send) for each in applications]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(main())


KINDS = ("http", "websocket")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [None, Failure, TornDown], ids=["well", "error", "torn down"])
def test_whoever_answers_gives_back(
    make_pool: Callable[[int], str], kind: str, error: type[BaseException]
) -> None:
    alias = make_pool(1)

    async def application(*_: Any) -> None:
        await sync_to_async(state)(alias)
        if error:
            raise error

    assert [type(result) for result in serve(application, kind=kind)] == [error or NoneType]
    assert out(alias) == 0


def state(alias: str) -> None:
    """Leave something in the session, so that it belongs to who has it."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SET @mine = 1")


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_in_the_middle_of_a_borrowing(make_pool: Callable[[int], str], kind: str) -> None:
    alias = make_pool(1)
    busy = Busy(alias, borrows_late=True)

    async def application(*_: Any) -> None:
        await sync_to_async(busy.work)()

    async def main() -> None:
        call = asyncio.create_task(PoolASGIMiddleware(application)({"type": kind}, never, never))
        await asyncio.to_thread(busy.begun.wait)
        call.cancel()
        await asyncio.sleep(0)
        busy.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert out(alias) == 0

    asyncio.run(main())


async def never(*_: Any) -> Any:
    raise AssertionError("not in this test")


def test_each_request_has_a_thread_of_its_own(make_pool: Callable[[int], str]) -> None:
    """So it has a session of its own: what it sets, nobody else sees; what it ends, nobody else reads."""
    alias = make_pool(2)

    async def application(*_: Any) -> None:
        await sync_to_async(state)(alias)
        both.append(await sync_to_async(connection_id)(alias))
        await barrier.wait()

    both: list[int] = []
    barrier = Barrier(2)
    assert serve(application, application) == [None, None]
    assert (len(set(both)), out(alias)) == (2, 0)


class Barrier:
    """``asyncio.Barrier`` for any loop."""

    def __init__(self, parties: int) -> None:
        self._parties = parties

    async def wait(self) -> None:
        self._parties -= 1
        while self._parties > 0:
            await asyncio.sleep(0.001)


def test_websockets_share_a_thread(make_pool: Callable[[int], str]) -> None:
    """One that ends leaves to another what that is reading from, whoever borrowed it."""
    alias = make_pool(1)
    borrowed, reading = asyncio.Event(), asyncio.Event()
    before: set[asyncio.Task[Any]] = set()

    async def leaves(*_: Any) -> None:
        await sync_to_async(state)(alias)
        borrowed.set()
        await reading.wait()

    async def reads(*_: Any) -> None:
        await borrowed.wait()
        cursor = await sync_to_async(opened)(alias)
        reading.set()
        # Until the other one is over:
        await asyncio.wait(
            [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        )
        assert await sync_to_async(cursor.fetchall)() == ((1,), (2,), (3,))
        await sync_to_async(cursor.close)()

    async def main() -> None:
        before.update(asyncio.all_tasks())
        calls = (PoolASGIMiddleware(each)({"type": "websocket"}, never, never) for each in (leaves, reads))
        await asyncio.gather(*calls)

    asyncio.run(main())


def opened(alias: str) -> Any:
    cursor = connections[alias].cursor()
    cursor.execute("SELECT seq FROM seq_1_to_3")
    return cursor


def test_what_django_tells_when_a_response_is_closed(make_pool: Callable[[int], str]) -> None:
    """Receivers of ``request_finished`` come after the one that closes connections."""
    alias = make_pool(1)
    outs: list[int] = []

    def query(**_: Any) -> None:
        state(alias)

    async def application(*_: Any) -> None:
        with site(view=lambda request: HttpResponse("plain")):
            exchange = Exchange()
            await exchange.head()
            await exchange.body()
        outs.append(out(alias))

    request_finished.connect(query)
    try:
        assert serve(application) == [None]
    finally:
        request_finished.disconnect(query)
    assert (outs, out(alias)) == ([1], 0)


def test_who_has_it_is_told(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0})

    async def has(*_: Any) -> None:
        await sync_to_async(state)(alias)
        with pytest.raises(PoolTimeout, match="GET /page in thread"):
            await asyncio.to_thread(connection_id, alias)

    assert serve(has, method="GET", path="/page") == [None]


def test_cancelled_by_anyio(make_pool: Callable[[int], str]) -> None:
    """Whose scopes cancel again whatever waits in them: Starlette's middleware, around ours."""
    alias = make_pool(1)
    busy = Busy(alias, borrows_late=True)

    async def application(*_: Any) -> None:
        await sync_to_async(busy.work)()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(PoolASGIMiddleware(application), {"type": "http"}, never, never)
            await asyncio.to_thread(busy.begun.wait)
            group.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.1, busy.go_on.set)

    asyncio.run(main())
    eventually("it is back", lambda: pool_stats()[alias]["out"] == 0)
