"""Clocks 1 and 3 under ASGI: a request or a websocket ends, a server shuts down.

    application = poollife.asgi.PoolASGIMiddleware(get_asgi_application())

Some servers (uvicorn) end their processes by a signal, after which no exit handler runs. What they do before
that is to tell the application, by the part of ASGI that is called lifespan.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async

from poollife.fork import close
from poollife.work import Work

logger = logging.getLogger("poollife")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Each framework has types of its own for the three.
Application = Callable[[Any, Any, Any], Awaitable[None]]


class PoolASGIMiddleware:
    """Put around the application that a server loads: Django's, or one that has Django's in it.

    A request gives back when the application's call ends, whoever answers it. It has a thread of its own for
    ``sync_to_async`` and the ORM's async methods, as Django gives to each. A websocket may live for hours and
    has no such thread: what it still has when it ends goes back then.
    """

    def __init__(self, application: Application, *, warm: int = 0) -> None:
        """
        :param warm: how many sessions each pool opens before the server's first request, ``pool_size`` at
            most. Servers without lifespan (daphne) open none.
        """
        self._application = application
        self._warm = warm

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, Lifespan(receive, send, self._warm))
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        else:
            await self._converse(scope, receive, send)

    async def _respond(self, scope: Message, receive: Receive, send: Send) -> None:
        work = work_of(scope, asynchronous=True)
        async with ThreadSensitiveContext():
            await run(work, partial(work.end, False), self._application, scope, receive, send)

    async def _converse(self, scope: Message, receive: Receive, send: Send) -> None:
        # Others work in the same thread: not with what they are reading from. And it may last for hours: what
        # it borrows goes back between two statements.
        work = work_of(scope)
        await run(work, work.release_closed, self._application, scope, receive, send)

    async def _live(self, scope: Message, lifespan: Lifespan) -> None:
        try:
            await lifespan.work.run_async(self._application, scope, lifespan.receive, lifespan.send)
        except Exception:
            # The way to say that one knows no lifespan, as Django's own application does.
            if lifespan.begun:
                await lifespan.drain()
                raise
        await lifespan.finish()


def work_of(scope: Message, *, asynchronous: bool = False) -> Work:
    """Begin the work of a request or a websocket, named by its method and path."""
    # Whoever outlives it in its context keeps this, and must not keep the scope with it.
    kind, path = scope.get("method", scope["type"]), scope.get("path", "")
    return Work(lambda: f"{kind} {path}", asynchronous=asynchronous)


async def run(work: Work, end: Callable[[], None], application: Application, *channel: Any) -> None:
    """Call it as this work, and have ``end`` give back in the thread of its sync code."""
    try:
        await work.run_async(application, *channel)
    except GeneratorExit:
        # The loop is gone: what is out goes back when its thread ends.
        raise
    except BaseException:
        # Cancelled, maybe in the middle of a borrowing: queue behind it.
        await work.hop(end)
        raise
    work.mark_ended()
    if work.leases:
        await work.hop(end)


class Lifespan:
    """Passes on what a server and its application say, and answers where the application does not."""

    def __init__(self, receive: Receive, send: Send, warm: int) -> None:
        self.work = Work(lambda: "the application's lifespan", asynchronous=True)
        #: Whether the application has taken part.
        self.begun = False
        self._receive, self._send, self._warm = receive, send, warm
        self._question: str | None = None
        self._over = False

    async def receive(self) -> Message:
        self.begun = True
        message = await self._receive()
        self._question = message["type"]
        return message

    async def send(self, message: Message) -> None:
        self.begun, self._question, kind = True, None, message["type"]
        if kind == "lifespan.startup.complete":
            await self.work.end_async(True)
            await warm_up(self._warm)
        elif kind.startswith("lifespan.shutdown."):
            await self.drain()
        self._over = kind.startswith("lifespan.shutdown.") or kind == "lifespan.startup.failed"
        await self._send(message)

    async def finish(self) -> None:
        """Say what a server expects, in place of an application that has not."""
        while not self._over:
            question = self._question or (await self.receive())["type"]
            await self.send({"type": f"{question}.complete"})

    async def drain(self) -> None:
        """End the sessions."""
        await sync_to_async(close)(None, "its ASGI server shuts down")


async def warm_up(count: int) -> None:
    """Have each pool open this many sessions. A database out of reach keeps no server from starting."""
    if count:
        await sync_to_async(_warm_up, thread_sensitive=False)(count)


def _warm_up(count: int) -> None:
    # Here: a framework beside Django may set that up when it starts.
    from django.db import connections

    for alias in connections:
        wrapper: Any = connections.create_connection(alias)
        try:
            if getattr(wrapper, "poolable", False) and wrapper.pool_options.pooled:
                _open(connections, alias, min(count, wrapper.pool_options.pool_size))
        except Exception:
            logger.warning("Pool %r could not be warmed up", alias, exc_info=True)


def _open(connections: Any, alias: str, count: int) -> None:
    wrappers = [connections.create_connection(alias) for _ in range(count)]
    try:
        # All at once, or each would get the one that the last gave back.
        for wrapper in wrappers:
            wrapper.ensure_connection()
    finally:
        for wrapper in wrappers:
            wrapper.close()
