"""The application for ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application

from poollife.fork import close_pool
from tests.servers_site import loading

application = get_asgi_application()
loading.settle()


async def with_goodbye(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """The same, for a server whose workers end by a signal, so that no exit handler runs: uvicorn."""
    if scope["type"] != "lifespan":
        return await application(scope, receive, send)
    while True:
        if (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await sync_to_async(close_pool)()
            return await send({"type": "lifespan.shutdown.complete"})
