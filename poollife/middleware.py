"""Request hook of Django: the sessions of a request return to their pools when the response is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from poollife.checks import read_options
from poollife.work import Work, current_work

GetResponse = Callable[[HttpRequest], Any]


class PoolMiddleware:
    """A middleware that returns the sessions of a request as soon as its response is made.

    Put it first in ``MIDDLEWARE``. A plain response is sent without a borrowed session, however slow the
    client is. A streaming response returns its sessions before the body starts. If a cursor is open then, its
    session is returned when the body ends, or when the client leaves. A session that the body itself borrows
    is returned by Django's ``request_finished``.
    """

    #: The mark by which the system checks recognise this class: they can't import it.
    gives_back_connections = True
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        """Read ``POOL`` of all databases.

        :param get_response: the next middleware or the view, synchronous or asynchronous.
        :raises ImproperlyConfigured: ``POOL`` has a mistake; the message names it.
        """
        # A web server runs no system checks, and a mistake in POOL must show before the first request.
        # SQLAlchemy is imported here, so that the children of a preloading server share its memory.
        read_options()
        import poollife.pools.registry  # noqa: F401

        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond_async(request)
        # Work.run(), written out: that saves a call and its tuple and dictionary of arguments. And Work gets
        # its arguments by their place, because CPython calls __init__() without a detour then.
        work = Work(f"{request.method} {request.path}", False)
        previous = current_work.get()
        try:
            try:
                current_work.set(work)
                response: HttpResponseBase = self.get_response(request)
            finally:
                current_work.set(previous)
        except BaseException:
            work.release()
            raise
        if isinstance(response, StreamingHttpResponse):
            end_of(response, work)()
        else:
            work.release()
        return response

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        # The sessions of a sync view belong to its own thread, and only that thread can return them. The hop
        # into it is made only if the work has a lease.
        work = Work(f"{request.method} {request.path}", asynchronous=True)
        try:
            response: HttpResponseBase = await work.run_async(self.get_response, request)
        except GeneratorExit:
            # The event loop is gone: borrowed sessions return when their thread ends.
            raise
        except BaseException:
            # Cancelled, maybe in the middle of a checkout: the hop waits in the queue behind that.
            await work.hop(work.release)
            raise
        if work.leases:
            await work.hop(end_of(response, work))
        else:
            work.mark_ended()
        return response


def end_of(response: HttpResponseBase, work: Work) -> Callable[[], None]:
    """Return the function that ends the work now; if the body reads from a cursor, its end ends the rest."""
    if not (isinstance(response, StreamingHttpResponse) and work.has_open_cursors()):
        return work.release
    content: Any = response.streaming_content
    response.streaming_content = AsyncBody(content, work) if response.is_async else Body(content, work)
    # If the client leaves, this runs before the view's own close(), which would read the rest of the result
    # to free its cursor. (A private name of Django's, pinned by tests/compatibility/test_private_names.py.)
    response._resource_closers.insert(0, work.release_unread)  # type: ignore[attr-defined]
    return work.release_closed


class Body:
    """A streamed body that ends its work at its own end. The server's ``response.close()`` closes it."""

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
    """An asynchronous streamed body that ends its work, whose leases belong to another thread."""

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
