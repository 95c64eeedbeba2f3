"""The site for gunicorn with something beside Django that uses its ORM, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from poollife.wsgi import Environ, PoolWSGIMiddleware
from tests.support.request_site import views, wsgi

HEAD = [("Content-Type", "text/plain")]


def plain(environ: Environ) -> list[bytes]:
    return [str(views.connection_id()).encode()]


def rows(environ: Environ) -> Iterator[bytes]:
    """Read from the server as they are sent, and more than the kernel buffers."""
    cursor = views.unbuffered(8_000)
    while row := cursor.fetchone():
        yield row[0].encode()


def file(environ: Environ) -> Any:
    views.connection_id()
    return environ["wsgi.file_wrapper"](Path(__file__).open("rb"))


def error(environ: Environ) -> list[bytes]:
    views.connection_id()
    raise ZeroDivisionError


def late_error(environ: Environ) -> Iterator[bytes]:
    yield b"part"
    cursor = views.unbuffered(8_000)
    cursor.fetchone()
    raise ZeroDivisionError


PAGES: dict[str, Callable[[Environ], Any]] = {
    f"/beside/{each.__name__}": each for each in (plain, rows, file, error, late_error)
}


def dispatch(environ: Environ, start_response: Callable[..., Any]) -> Any:
    page = PAGES.get(environ["PATH_INFO"])
    if page is None:
        return wsgi.application(environ, start_response)
    start_response("200 OK", HEAD)
    return page(environ)


application = PoolWSGIMiddleware(dispatch)
