"""Django's WSGI and ASGI handlers, driven by hand: what a web server does, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http.response import HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory
from django.test.utils import override_settings
from django.urls import path

PATIENCE = 30.0
POOL_MIDDLEWARE = "poollife.middleware.PoolMiddleware"


@contextmanager
def site(
    *, middleware: Sequence[str] = (), pooled: bool = True, **views: Callable[..., Any]
) -> Iterator[None]:
    """A site of these views, each at the path of its name; ``middleware`` comes after ours."""
    patterns = tuple(path(name, view) for name, view in views.items())
    chain = [*([POOL_MIDDLEWARE] if pooled else []), *middleware]
    with override_settings(ROOT_URLCONF=patterns, MIDDLEWARE=chain, ALLOWED_HOSTS=["*"]):
        yield


def wsgi(url: str = "/view", **request: Any) -> HttpResponseBase:
    """Have a WSGI application answer. Sending the body and calling ``close()`` is left to the caller."""
    environ = RequestFactory(**request).get(url).environ
    return WSGIHandler()(environ, lambda status, headers, exc_info=None: lambda data: None)


class Exchange:
    """One request to an ASGI application, and its client: each message waits until the client asks for it."""

    def __init__(self, url: str = "/view", app: ASGIHandler | None = None) -> None:
        """Send the request; only inside an event loop."""
        request = AsyncRequestFactory().get(url)
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": b""})
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._taken = False
        scope = {**request.scope, "headers": [(b"host", b"testserver")]}
        call: Any = app or ASGIHandler()
        self._task = asyncio.create_task(call(scope, self._received.get, self._send))

    async def head(self) -> int:
        """The status. The application has not sent any of the body when this returns."""
        message = await self._message()
        assert message["type"] == "http.response.start", message
        status: int = message["status"]
        return status

    async def parts(self) -> AsyncIterator[bytes]:
        """The body. The application works on the next part only when that is asked for."""
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body"):
            message = await self._message()
            assert message["type"] == "http.response.body", message
            if body := message.get("body"):
                yield body

    async def body(self) -> bytes:
        """All that is left of it; the application is done when this returns."""
        body = b"".join([part async for part in self.parts()])
        await self.end()
        return body

    async def disconnect(self) -> None:
        """Leave, and wait until the application is done."""
        self._received.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE):
            await self._task

    async def end(self) -> None:
        """Take the last message, and wait until the application is done."""
        self._take()
        async with asyncio.timeout(PATIENCE):
            await self._task

    async def _send(self, message: dict[str, Any]) -> None:
        self._sent.put_nowait(message)
        await self._sent.join()

    async def _message(self) -> dict[str, Any]:
        self._take()
        message: asyncio.Task[dict[str, Any]] = asyncio.create_task(self._sent.get())
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({message, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not message.done():
            message.cancel()
            raise AssertionError(
                "the application ended without a further message"
            ) from self._task.exception()
        self._taken = True
        return message.result()

    def _take(self) -> None:
        if self._taken:
            self._taken = False
            self._sent.task_done()
