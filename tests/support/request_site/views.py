"""Its views: each borrows in another way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from typing import Any, NoReturn

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from MySQLdb.cursors import SSCursor

from poollife import pool_stats
from poollife.errors import PoolTimeout
from tests.support.programs.databases import hold
from tests.support.request_site import sockets

MEGABYTE = 1 << 20


def connection_id() -> int:
    """One SELECT."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        row: tuple[int] = cursor.fetchone()
        return row[0]


def stats(request: HttpRequest) -> HttpResponse:
    """This process's pool and sockets; borrows nothing."""
    return JsonResponse({"pools": pool_stats(), "sockets": sockets.count(), "most_sockets": sockets.most})


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(connection_id()))


def error(request: HttpRequest) -> NoReturn:
    connection_id()
    raise RuntimeError("a view that fails")


def missing(request: HttpRequest) -> NoReturn:
    connection_id()
    raise Http404


def download(request: HttpRequest, megabytes: int) -> HttpResponse:
    """More than the kernel buffers for a client that does not read."""
    return HttpResponse(str(connection_id()).encode().ljust(megabytes * MEGABYTE))


def numbers(request: HttpRequest, last: int) -> StreamingHttpResponse:
    """The usual CSV view: the cursor is opened here, and read while the body is sent."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT seq FROM seq_1_to_{last}")
    return StreamingHttpResponse((f"{number:<1023}\n" for (number,) in cursor), content_type="text/csv")


def rows(request: HttpRequest, count: int) -> StreamingHttpResponse:
    """A kilobyte each, read from the server as they are sent."""
    cursor = unbuffered(count)

    def body() -> Iterator[str]:
        while row := cursor.fetchone():
            yield row[0]

    return StreamingHttpResponse(body())


async def rows_async(request: HttpRequest, count: int) -> StreamingHttpResponse:
    cursor = await sync_to_async(unbuffered)(count)

    async def body() -> AsyncIterator[str]:
        while row := await sync_to_async(cursor.fetchone)():
            yield row[0]

    return StreamingHttpResponse(body())


def unbuffered(count: int) -> Any:
    connection.ensure_connection()
    cursor = connection.connection.cursor(SSCursor)
    cursor.execute(f"SELECT CONCAT(RPAD(seq, 1023, '.'), '\\n') FROM seq_1_to_{count}")
    return cursor


def sleep(request: HttpRequest, seconds: int) -> HttpResponse:
    """Hold a session that the server's process list can see."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(%s)", [seconds])
    return HttpResponse("slept")


def bad(request: HttpRequest) -> HttpResponse:
    """Have a thread borrow that lives on, at work on something else, and never gives back."""
    borrowed = threading.Event()

    def work() -> None:
        borrow_badly()
        borrowed.set()
        threading.Event().wait()

    threading.Thread(target=copy_context().run, args=(work,), name="bad_0", daemon=True).start()
    borrowed.wait()
    return HttpResponse("done")


def borrow_badly() -> None:
    connection.ensure_connection()
    connection.connection.cursor().close()


def why(request: HttpRequest) -> HttpResponse:
    """Wait for a connection, and tell what came of it."""
    try:
        return plain(request)
    except PoolTimeout as error:
        return HttpResponse(str(error), status=503, content_type="text/plain")


async def plain_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await sync_to_async(connection_id)()))


async def hold_async(request: HttpRequest) -> HttpResponse:
    """Borrow, keep it, and wait for ever: only the client's leaving ends this."""
    await sync_to_async(hold)()
    await asyncio.Event().wait()
    return HttpResponse("never")
