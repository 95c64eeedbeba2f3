"""Request and process hooks of ASGI: a request or a websocket ends, a server shuts down.

    application = poollife.asgi.PoolASGIMiddleware(get_asgi_application())

Some servers (uvicorn) end their processes by a signal, after which no exit handler runs. Before that, they
tell the application by ASGI's lifespan messages.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async

from poollife import start_line
from poollife.fork import close
from poollife.pools.log import about
from poollife.work import Work

logger = logging.getLogger("poollife")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: The arguments are scope, receive and send. Each framework has types of its own for these.
Application = Callable[[Any, Any, Any], Awaitable[None]]


class PoolASGIMiddleware:
    """An ASGI middleware, to be put around the application that a server loads.

    The application is Django's, or another one that has Django's in it. The sessions of a request return when
    the application's call ends, also for a request that another framework answers. A request has a thread of
    its own for ``sync_to_async`` and the ORM's async methods, as in Django. A websocket may live for hours
    and has no such thread: its sessions return between two statements, and the rest when it ends. At the end
    of the lifespan the pools are closed.
    """

    def __init__(self, application: Application, *, warm: int = 0) -> None:
        """Wrap an application.

        :param application: an ASGI application.
        :param warm: how many sessions each pool opens before the server's first request, ``pool_size`` at
            most. Default: 0. Servers without lifespan (daphne) open none.
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
        # Other works share the thread, so a session with an open cursor is not returned here. A websocket may
        # last for hours: its work is not in charge, so its sessions return between two statements.
        work = work_of(scope)
        await run(work, work.release_closed, self._application, scope, receive, send)

    async def _live(self, scope: Message, lifespan: Lifespan) -> None:
        try:
            await lifespan.work.run_async(self._application, scope, lifespan.receive, lifespan.send)
        except Exception:
            # An application without lifespan raises at its begin, as Django's does.
            if lifespan.begun:
                await lifespan.drain()
                raise
        await lifespan.finish()


def work_of(scope: Message, *, asynchronous: bool = False) -> Work:
    """Return the new work of a request or a websocket, named by its method and path."""
    kind, path = scope.get("method", scope["type"]), scope.get("path", "")
    return Work(f"{kind} {path}", asynchronous=asynchronous)


async def run(work: Work, end: Callable[[], None], application: Application, *channel: Any) -> None:
    """Call an application as a work.

    :param end: the function that returns the sessions, called in the thread of the work's sync code.
    :param channel: the arguments of the application: scope, receive and send.
    """
    try:
        await work.run_async(application, *channel)
    except GeneratorExit:
        # The event loop is gone: borrowed sessions return when their thread ends.
        raise
    except BaseException:
        # Cancelled, maybe in the middle of a checkout: the hop waits in the queue behind that.
        await work.hop(end)
        raise
    work.mark_ended()
    if work.leases:
        await work.hop(end)


class Lifespan:
    """The lifespan messages between a server and its application, and answers if the application has none."""

    def __init__(self, receive: Receive, send: Send, warm: int) -> None:
        self.work = Work("the application's lifespan", asynchronous=True)
        #: True after the application's first message.
        self.begun = False
        self._receive, self._send, self._warm = receive, send, warm
        self._question: str | None = None
        self._over = False

    async def receive(self) -> Message:
        """Receive a message of the server for the application."""
        self.begun = True
        message = await self._receive()
        self._question = message["type"]
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the server; before that, warm the pools up or close them."""
        self.begun, self._question, kind = True, None, message["type"]
        if kind == "lifespan.startup.complete":
            await self.work.end_async(True)
            await warm_up(self._warm)
            # The line alone opens no session.
            await sync_to_async(announce, thread_sensitive=False)(asks=self._warm > 0)
        elif kind.startswith("lifespan.shutdown."):
            await self.drain()
        self._over = kind.startswith("lifespan.shutdown.") or kind == "lifespan.startup.failed"
        await self._send(message)

    async def finish(self) -> None:
        """Send the messages that the server still expects, in place of the application."""
        while not self._over:
            question = self._question or (await self.receive())["type"]
            await self.send({"type": f"{question}.complete"})

    async def drain(self) -> None:
        """Close all pools of this process."""
        await sync_to_async(close)(None, "its ASGI server shuts down")


def announce(*, asks: bool) -> None:
    """Log how many sessions each process may open; only the first of the server's processes does so.

    gunicorn's workers don't: ``poollife.gunicorn`` knows their number.

    :param asks: whether each database server is asked for its limit.
    """
    # No server tells an application how many processes it has, or which one this is. The number of a process
    # among its parent's children has no public name in multiprocessing: granian gives all the same name.
    number = getattr(multiprocessing.current_process(), "_identity", ())[-1:]
    if number in ((), (1,)) and "gunicorn.arbiter" not in sys.modules:
        start_line.announce(start_line.Server("the ASGI server"), asks=asks)


async def warm_up(count: int) -> None:
    """Open this many sessions in each pool.

    If a database does not answer, the log says so and no error is raised, so that the server can start.
    """
    if count:
        await sync_to_async(_warm_up, thread_sensitive=False)(count)


def _warm_up(count: int) -> None:
    # Imported here: a framework beside Django may set Django up when it starts.
    from django.db import connections

    for alias in connections:
        wrapper: Any = connections.create_connection(alias)
        try:
            if getattr(wrapper, "poolable", False) and wrapper.pool_options.pooled:
                _open(connections, alias, min(count, wrapper.pool_options.pool_size))
        except Exception:
            logger.warning("Pool %r could not be warmed up", alias, exc_info=True, extra=about(alias))


def _open(connections: Any, alias: str, count: int) -> None:
    wrappers = [connections.create_connection(alias) for _ in range(count)]
    try:
        # All are borrowed at the same time: otherwise each would get the session that was just returned.
        for wrapper in wrappers:
            wrapper.ensure_connection()
    finally:
        for wrapper in wrappers:
            wrapper.close()
