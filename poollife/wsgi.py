"""Request hook of WSGI: the sessions of a response return to their pools when the response ends.

    application = poollife.wsgi.PoolWSGIMiddleware(get_wsgi_application())

It serves what ``PoolMiddleware`` can't see: other frameworks that use Django's ORM, applications that are
mounted beside Django, WSGI middleware around Django. Both may be installed; the inner one returns first.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from poollife.pools.log import about
from poollife.work import GeneratorWork

logger = logging.getLogger("poollife")
T = TypeVar("T")
Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Any]


class PoolWSGIMiddleware:
    """A WSGI middleware, to be put around the application that a server loads or another application mounts.

    A clean session in autocommit is returned before the body is sent, and between its parts, unless a cursor
    is open. Other sessions are returned when the body ends or when the server closes it. If no server closes
    the body (the server lost it, or the application took over the socket), the next request of the same
    thread ends it.
    """

    def __init__(self, application: Application) -> None:
        """Wrap an application.

        :param application: a WSGI application, Django's or another.
        """
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        end_lost()
        response = Response(environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", ""))
        body = response.step(self._application, environ, start_response)
        if is_complete(body):
            response.finish()
            return body
        if is_file(body, environ):
            return response.follow(body)
        return (SizedBody if hasattr(type(body), "__len__") else Body)(body, response)


def is_complete(body: Any) -> bool:
    """Return whether the body needs no more code of the application.

    Such a body is not wrapped, because servers ask for the length of a list, and for more.
    """
    whole = isinstance(body, list | tuple | bytes) or not hasattr(body, "__iter__")
    return whole and not hasattr(body, "close")


def is_file(body: Any, environ: Environ) -> bool:
    """Return whether the server is to send the body as a file. It would not do so with a wrapped body."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    # In uWSGI the wrapper is a function that returns the file itself.
    return wrapper is not None and hasattr(body, "read")


class OpenResponses(threading.local):
    """The responses of one thread that have not ended."""

    def __init__(self) -> None:
        self.open: list[Response] = []


_responses = OpenResponses()


def end_lost() -> None:
    """End the open responses of this thread: its server begins another request, and so has lost them."""
    # An application may call other applications while it makes its own response.
    if not any(response.active for response in _responses.open):
        for response in _responses.open.copy():
            response.end_lost()


class Response(GeneratorWork):
    """The work of making a response: the call of the application, each part of the body, and its end."""

    __slots__ = ("_body", "_open", "active")

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"{method} {path}")
        #: True while the application's code runs for this response.
        self.active = False
        self._body: Callable[[], Body | None] = lambda: None
        self._open = _responses.open
        self._open.append(self)

    def step(self, function: Callable[..., T], /, *args: Any) -> T:
        """Run a function of the application as a part of this work, and return its result.

        :param function: the function, called with ``args``. After an error the work ends.
        """
        try:
            self.active = True
            # The end of a body is followed by its close(), which goes on with the work.
            self.ended = False
            result = self.run(function, *args)
            self.release_if_idle()
            return result
        except BaseException:
            self.finish()
            raise
        finally:
            self.active = False

    def release_if_idle(self) -> None:
        """Return the sessions that the response does not depend on, while the server sends a part of it."""
        for lease in self._leases_of_this_thread():
            if lease.is_idle:
                lease.release(if_idle=True)

    def finish(self) -> None:
        """Return all sessions, and leave the atomic blocks of this work: no code is left to end these."""
        try:
            self.end(False)
        finally:
            # A lease that is left belongs to another thread, or an asynchronous exception came in its return.
            # The next request ends it.
            if not self.leases:
                with suppress(ValueError):
                    self._open.remove(self)

    def end_lost(self) -> None:
        """Close the body and end the work, as the server should have done."""
        try:
            if body := self._body():
                body.close()
        except Exception:
            logger.exception("%s, which no server has closed, could not be closed", self, extra=about(None))
        finally:
            self.finish()
            with suppress(ValueError):
                self._open.remove(self)

    def set_body(self, body: Body) -> None:
        """Note the body, by a weak reference: the server owns it."""
        self._body = weakref.ref(body)

    def follow(self, file: Any) -> Any:
        """Have the close of a file end this work; return the file."""
        close = getattr(file, "close", None)
        # If the attribute can't be set, the next request ends the work.
        with suppress(AttributeError):
            file.close = partial(self.close, close)
        return file

    def close(self, close: Callable[[], object] | None) -> None:
        """End the work.

        :param close: the ``close()`` of the application's body, called before that; None: it has none.
        """
        try:
            if close:
                self.step(close)
        finally:
            self.finish()


class Body:
    """A body whose iteration is a part of its response's work, and whose close ends that work."""

    def __init__(self, body: Iterable[bytes], response: Response) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._response = response
        self._closed = False
        response.set_body(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._closed:
            raise ValueError("This response was closed.")
        if self._parts is None:
            self._parts = self._response.step(iter, self._body)
        part: bytes = self._response.step(next, self._parts)
        return part

    def close(self) -> None:
        """Close the application's body and end the work. Only the first call has an effect."""
        if not self._closed:
            self._closed = True
            self._response.close(getattr(self._body, "close", None))


class SizedBody(Body):
    """A body with a length, which the server may ask for."""

    _body: Any

    def __len__(self) -> int:
        return len(self._body)
