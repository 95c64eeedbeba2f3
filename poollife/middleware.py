"""Clock 1: a response ends, and its connections go back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from poollife.checks import read_options
from poollife.work import Work

GetResponse = Callable[[HttpRequest], Any]


class PoolMiddleware:
    """Gives back what a request borrowed as soon as its response is made; put it first in MIDDLEWARE.

    A plain response is sent without holding anything, however slow the client. A streaming response gives
    back before its body starts, unless a cursor is open: then when the body ends, or the client leaves. What
    a body borrows itself goes back at ``request_finished``, by Django's own hand.
    """

    #: By which the system checks know it: they can't import this.
    gives_back_connections = True
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        # A web server runs no system checks, and a mistake in POOL must not wait for the first request. Nor
        # should SQLAlchemy's import, of which the children of a preloading server share one.
        read_options()
        import poollife.pools.registry  # noqa: F401

        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond_async(request)
        work = work_of(request)
        try:
            response: HttpResponseBase = work.run(self.get_response, request)
        except BaseException:
            work.release()
            raise
        end_of(response, work)()
        return response

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        # A sync view's connections live in its own thread: a hop, made only where one is to be given back.
        work = work_of(request, asynchronous=True)
        try:
            response: HttpResponseBase = await work.run_async(self.get_response, request)
        except GeneratorExit:
            # The loop is gone: what is out goes back when its thread ends.
            raise
        except BaseException:
            # Cancelled, maybe in the middle of a borrowing: queue behind it.
            await work.hop(work.release)
            raise
        if work.leases:
            await work.hop(end_of(response, work))
        else:
            work.mark_ended()
        return response


def work_of(request: HttpRequest, *, asynchronous: bool = False) -> Work:
    """Begin the work of a request, named by its method and path."""
    # Whoever outlives the request in its context keeps this, and must not keep the request with it.
    method, path = request.method, request.path
    return Work(lambda: f"{method} {path}", asynchronous=asynchronous)


def end_of(response: HttpResponseBase, work: Work) -> Callable[[], None]:
    """What gives back now. Where the body reads from a cursor, its end gives back the rest."""
    if not (isinstance(response, StreamingHttpResponse) and work.has_open_cursors()):
        return work.release
    content: Any = response.streaming_content
    response.streaming_content = AsyncBody(content, work) if response.is_async else Body(content, work)
    # Should the client leave: ahead of the view's own close(), which would read the rest of the result to
    # free its cursor. (A private name of Django's, pinned by tests/compatibility/test_private_names.py.)
    response._resource_closers.insert(0, work.release_unread)  # type: ignore[attr-defined]
    return work.release_closed


class Body:
    """A streamed body that gives back at its end. The server's ``response.close()`` calls ``close()``."""

    def __init__(self, content: Iterator[bytes], work: Work) -> None:
        self._content = content
        self._work = work

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._content)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._work.release()


class AsyncBody:
    """The same for an asynchronous body, whose connections live in another thread."""

    def __init__(self, content: AsyncIterator[bytes], work: Work) -> None:
        self._content = content
        self._work = work

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._content)
        except BaseException:
            await self._work.hop(self.close)
            raise

    def close(self) -> None:
        self._work.release()
