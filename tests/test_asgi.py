"""``poollife.asgi``: the sessions of a server that shuts down; tests/test_law_1_servers.py has real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler

from poollife import auto_close_db
from poollife.asgi import Application, Message, PoolASGIMiddleware
from servers import MariaDB
from tests.borrowing import connection_id, sessions
from tests.conftest import MakeAlias

LIFE = ("lifespan.startup", "lifespan.shutdown")
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class Server:
    """The server's side of ASGI."""

    def __init__(self, mariadb: MariaDB, alias: str) -> None:
        self._mariadb, self._alias = mariadb, alias
        self._messages = iter(LIFE)
        self.sent: list[str] = []
        #: How many sessions there were at each message.
        self.sessions: list[int] = []

    async def receive(self) -> Message:
        message = next(self._messages)
        if message == "lifespan.shutdown":
            await sync_to_async(auto_close_db(connection_id), thread_sensitive=False)(self._alias)
        return {"type": message}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])
        self.sessions.append(len(sessions(self._mariadb, self._alias)))

    def run(self, application: Application, kind: str = "lifespan") -> None:
        asyncio.run(PoolASGIMiddleware(application)({"type": kind}, self.receive, self.send))


@pytest.fixture
def server(mariadb: MariaDB, make_alias: MakeAlias) -> Server:
    return Server(mariadb, make_alias())


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


async def echoes(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": scope["type"]})


@pytest.mark.parametrize("application", [ASGIHandler(), knows], ids=["Django's", "with a lifespan"])
def test_a_shutdown_ends_the_sessions_before_it_is_complete(server: Server, application: Application) -> None:
    server.run(application)
    assert server.sent == COMPLETE
    assert server.sessions == [0, 0]


def test_so_does_one_that_fails(server: Server) -> None:
    server.run(fails_at_shutdown)
    assert (server.sent[-1], server.sessions[-1]) == ("lifespan.shutdown.failed", 0)


def test_without_it_they_live_on(server: Server) -> None:
    """As a control."""
    asyncio.run(knows({"type": "lifespan"}, server.receive, server.send))
    assert server.sessions == [0, 1]


def test_an_application_that_fails_to_start_has_failed(server: Server) -> None:
    with pytest.raises(LookupError):
        server.run(fails_at_startup)
    assert server.sent == []


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_all_else_is_the_applications(server: Server, kind: str) -> None:
    server.run(echoes, kind)
    assert server.sent == [kind]
