"""Clock 3 under ASGI: a server shuts down, and its sessions end.

    application = poollife.asgi.PoolASGIMiddleware(get_asgi_application())

Some servers (uvicorn) end their processes by a signal, after which no exit handler runs. What they do before
that is to tell the application, by the part of ASGI that is called lifespan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async

from poollife.fork import close_pool

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Each framework has types of its own for the three.
Application = Callable[[Any, Any, Any], Awaitable[None]]


class PoolASGIMiddleware:
    """Put around the application that a server loads: Django's, or one that has Django's in it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        asked = False

        async def receive_too() -> Message:
            nonlocal asked
            asked = True
            return await receive()

        async def leave(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await sync_to_async(close_pool)()
            await send(message)

        try:
            await self._application(scope, receive_too, leave)
        except Exception:
            # The way to say that one knows no lifespan, as Django's own application does.
            if asked:
                raise
            await answer(receive, leave)


async def answer(receive: Receive, send: Send) -> None:
    """What a server expects, in place of an application that does not do it."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
