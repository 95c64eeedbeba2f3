"""Clock 1 under WSGI: a response ends, whoever made it, and its connections go back.

    application = poollife.wsgi.PoolWSGIMiddleware(get_wsgi_application())

For what ``PoolMiddleware`` can't see: other frameworks that use Django's ORM, applications that are mounted
beside Django, other people's middleware around it. Both may be there; the inner one gives back first.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from poollife.work import GeneratorWork

logger = logging.getLogger("poollife")
T = TypeVar("T")
Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Any]


class PoolWSGIMiddleware:
    """Put around the application that a server loads, or that another one mounts.

    What is clean and in autocommit goes back before the body is sent, and between its parts, unless a cursor
    is open; the rest when the body ends or the server closes it. If no server does (it lost it, or the
    application took over the socket), the next request of the same thread finds and ends it.
    """

    def __init__(self, application: Application) -> None:
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
    """Whether the application has no more part in it. Servers ask for the length of a list, and more."""
    whole = isinstance(body, list | tuple | bytes) or not hasattr(body, "__iter__")
    return whole and not hasattr(body, "close")


def is_file(body: Any, environ: Environ) -> bool:
    """Whether the server is to send it as a file, which it would not do with something around it."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    # uWSGI's is a function that returns the file itself.
    return wrapper is not None and hasattr(body, "read")


class Responses(threading.local):
    """Those of one thread that are not over."""

    def __init__(self) -> None:
        self.open: list[Response] = []


here = Responses()


def end_lost() -> None:
    """End those of this thread that their server has forgotten: it begins another."""
    # An application may call others while it makes its own response.
    if not any(response.active for response in here.open):
        for response in here.open.copy():
            response.abandon()


class Response(GeneratorWork):
    """The work of making a response: the call of the application, each part of the body, and its end."""

    __slots__ = ("_body", "_open", "active")

    def __init__(self, method: str, path: str) -> None:
        super().__init__(lambda: f"{method} {path}")
        #: Whether its thread is at work on it.
        self.active = False
        self._body: Callable[[], Body | None] = lambda: None
        self._open = here.open
        self._open.append(self)

    def step(self, function: Callable[..., T], /, *args: Any) -> T:
        """Have the application do a part of it."""
        try:
            self.active = True
            # The end of a body is followed by its close().
            self.ended = False
            result = self.run(function, *args)
            self.rest()
            return result
        except BaseException:
            self.finish()
            raise
        finally:
            self.active = False

    def rest(self) -> None:
        """Give back what nothing depends on, for as long as the client takes."""
        for lease in self._leases_of_this_thread():
            lease.release(if_idle=True)

    def finish(self) -> None:
        """Give back all, and leave the atomic blocks that it has opened: nothing will."""
        try:
            self.end(False)
        finally:
            # What is left is in other threads, or was struck from outside: the next request finds it.
            if not self.leases:
                with suppress(ValueError):
                    self._open.remove(self)

    def abandon(self) -> None:
        """Do what its server should have done."""
        try:
            if body := self._body():
                body.close()
        except Exception:
            logger.exception("%s, which no server has closed, could not be closed", self)
        finally:
            self.finish()
            with suppress(ValueError):
                self._open.remove(self)

    def has(self, body: Body) -> None:
        """Its server lets go of this, sooner or later."""
        self._body = weakref.ref(body)

    def follow(self, file: Any) -> Any:
        """Finish when the server closes this file."""
        close = getattr(file, "close", None)
        # Where it can't be set, the next request finds the rest.
        with suppress(AttributeError):
            file.close = partial(self.close, close)
        return file

    def close(self, close: Callable[[], object] | None) -> None:
        try:
            if close:
                self.step(close)
        finally:
            self.finish()


class Body:
    """A body whose parts are made, and whose end is found, as parts of its response's work."""

    def __init__(self, body: Iterable[bytes], response: Response) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._response = response
        self._closed = False
        response.has(self)

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
        """The server's last word, whatever came before."""
        if not self._closed:
            self._closed = True
            self._response.close(getattr(self._body, "close", None))


class SizedBody(Body):
    """One whose length the server may want to know."""

    _body: Any

    def __len__(self) -> int:
        return len(self._body)
