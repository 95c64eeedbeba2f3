"""Invariant 2 for requests: what a request borrowed goes back when its response is made, or has failed."""

from __future__ import annotations

import asyncio
import random
import threading
import unittest
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.db import close_old_connections, connections, transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client, TestCase, TransactionTestCase
from django.test.utils import override_settings
from MySQLdb.cursors import SSCursor

from poollife import work
from poollife.middleware import PoolMiddleware
from poollife.pools.pool import LeasePool
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import connection_id
from tests.support.counting import Questions, pool_of
from tests.support.handlers import Exchange, site, wsgi
from tests.support.web_server import Answer, WebServer, eventually

STOCK = "django.db.backends.mysql"
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 1}
MEGABYTE = 1 << 20


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    """A pool of one connection: whoever keeps it is noticed."""
    return make_alias(POOL=ONE)


@pytest.fixture
def pool(alias: str) -> LeasePool:
    return pool_of(alias)


@pytest.fixture
def djangos_hand_tied() -> Iterator[None]:
    """Without Django's own closing at ``request_finished``: what goes back is our doing."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


def unbuffered(alias: str, rows: int = 1000) -> Any:
    """A cursor whose rows are on their way."""
    connections[alias].ensure_connection()
    cursor = connections[alias].connection.cursor(SSCursor)
    cursor.execute(f"SELECT seq FROM seq_1_to_{rows}")
    return cursor


# --- a plain response ---------------------------------------------------------------------------------------


class Unrenderable(SimpleTemplateResponse):
    """Rendered after the view has returned, like any TemplateResponse, and borrows before it fails."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        super().__init__("no.html")

    @property
    def rendered_content(self) -> str:
        connection_id(self.alias)
        raise RuntimeError("a template that fails")


class FailingMiddleware:
    """Inside ours; fails after the view, and after a query of its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        connection_id(response["alias"])
        raise RuntimeError("a middleware that fails")


def plain(alias: str) -> HttpResponse:
    return HttpResponse(str(connection_id(alias)), headers={"alias": alias})


def failing(alias: str) -> HttpResponse:
    connection_id(alias)
    raise RuntimeError("a view that fails")


def missing(alias: str) -> HttpResponse:
    connection_id(alias)
    raise Http404


def denied(alias: str) -> HttpResponse:
    connection_id(alias)
    raise PermissionDenied


def failing_query(alias: str) -> HttpResponse:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT no_such_column")
    raise AssertionError("not reached")


def unfinished_transaction(alias: str) -> HttpResponse:
    connections[alias].set_autocommit(False)
    return plain(alias)


def half_read(alias: str) -> HttpResponse:
    return HttpResponse(unbuffered(alias).fetchone()[0])


OUTCOMES: dict[Callable[[str], HttpResponse], int] = {
    plain: 200,
    failing: 500,
    missing: 404,
    denied: 403,
    failing_query: 500,
    unfinished_transaction: 200,
    half_read: 200,
    Unrenderable: 500,
}


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.__name__)
def test_a_response_has_given_back_before_it_is_sent(alias: str, pool: LeasePool, outcome: Any) -> None:
    with site(view=lambda request: outcome(alias)):
        response = wsgi()
        # Nothing of the body has been asked for, and close() has not been called.
        assert (response.status_code, pool.out, pool.checkouts) == (OUTCOMES[outcome], 0, 1)
        response.close()


def test_so_has_one_that_a_middleware_inside_ours_fails(alias: str, pool: LeasePool) -> None:
    with site(view=lambda request: plain(alias), middleware=[f"{__name__}.{FailingMiddleware.__name__}"]):
        response = wsgi()
        assert (response.status_code, pool.out, pool.checkouts) == (500, 0, 1)
        response.close()


def test_nothing_stays_out_when_a_view_is_torn_down(alias: str, pool: LeasePool) -> None:
    """``SystemExit`` is no ``Exception``: no response comes of it, and no ``request_finished``."""

    def view(request: HttpRequest) -> HttpResponse:
        connection_id(alias)
        raise SystemExit

    with site(view=view), pytest.raises(SystemExit):
        wsgi()
    assert (pool.out, pool.checkouts) == (0, 1)


def test_a_request_that_borrows_nothing_makes_no_checkout(alias: str, pool: LeasePool) -> None:
    with site(view=lambda request: HttpResponse()):
        wsgi().close()
    assert pool.checkouts == 0


def test_every_alias_of_a_request_is_given_back(make_alias: MakeAlias) -> None:
    aliases = [make_alias(POOL=ONE) for _ in range(3)]
    with site(view=lambda request: HttpResponse(b"".join(plain(alias).content for alias in aliases))):
        response = wsgi()
        assert [pool_of(alias).out for alias in aliases] == [0, 0, 0]
        response.close()


def test_a_request_that_borrows_again_and_again_gives_back_the_last(alias: str, pool: LeasePool) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        for _ in range(5):
            connection_id(alias)
            connections[alias].close()
        return plain(alias)

    with site(view=view):
        response = wsgi()
        assert (pool.out, pool.checkouts, pool.opened) == (0, 6, 1)
        response.close()


def test_pool_false_closes_the_session_as_early(make_alias: MakeAlias) -> None:
    """The way back is one word: the middleware stays in."""
    alias = make_alias(POOL=False)
    pool = pool_of(alias)
    with site(view=lambda request: plain(alias)):
        ids = set()
        for opened in 1, 2, 3:
            response = wsgi()
            assert (pool.out, pool.opened, pool.closed) == (0, opened, opened)
            ids.add(b"".join(response))
            response.close()
    assert len(ids) == 3


def test_beside_a_stock_backend_the_middleware_does_nothing(make_alias: MakeAlias) -> None:
    alias = make_alias(STOCK, CONN_MAX_AGE=None)
    with site(view=lambda request: plain(alias)):
        first, second = wsgi(), wsgi()
        assert b"".join(first) == b"".join(second)


# --- what a request sends -----------------------------------------------------------------------------------


def test_200_warm_requests_send_200_statements(alias: str, mariadb: MariaDB) -> None:
    def request() -> bytes:
        response = wsgi()
        body = b"".join(response)
        response.close()
        return body

    with site(view=lambda request: plain(alias)):
        first = request()
        with Questions(mariadb) as asked:
            ids = {request() for _ in range(200)}
    assert (asked.count, ids) == (200, {first})


def test_200_warm_asgi_requests_send_200_statements(alias: str, mariadb: MariaDB) -> None:
    """Each of them runs in a thread of its own, with a DatabaseWrapper of its own."""

    async def main() -> None:
        handler = ASGIHandler()
        exchange = Exchange(app=handler)
        await exchange.head()
        first = await exchange.body()
        ids = set()
        with Questions(mariadb) as asked:
            for _ in range(200):
                exchange = Exchange(app=handler)
                await exchange.head()
                ids.add(await exchange.body())
        assert (asked.count, ids) == (200, {first})

    with site(view=lambda request: plain(alias)):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("engine", "entry"),
    [(STOCK, {"CONN_MAX_AGE": None}), ("poollife.backends.mysql", {"POOL": ONE})],
    ids=["stock, persistent", "pooled"],
)
@pytest.mark.parametrize(
    ("outcome", "statements"),
    [
        # SET autocommit=0, the view's SELECT, COMMIT or ROLLBACK, SET autocommit=1
        (plain, 4),
        (failing, 4),
        # The same without the SELECT: Django begins before it knows what the view will do.
        (lambda alias: HttpResponse(), 3),
    ],
    ids=["success", "error", "no query"],
)
def test_atomic_requests_send_what_django_sends_and_no_more(
    make_alias: MakeAlias,
    mariadb: MariaDB,
    engine: str,
    entry: dict[str, Any],
    outcome: Callable[[str], HttpResponse],
    statements: int,
) -> None:
    alias = make_alias(engine, ATOMIC_REQUESTS=True, **entry)
    with site(view=lambda request: outcome(alias)):
        wsgi().close()
        with Questions(mariadb) as asked:
            for _ in range(10):
                wsgi().close()
    assert asked.count == 10 * statements


@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
def test_atomic_requests_commit_or_roll_back_and_give_back(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB, fails: bool
) -> None:
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.visits (path TEXT)")
    alias = make_alias(NAME=name, ATOMIC_REQUESTS=True, POOL=ONE)
    pool = pool_of(alias)

    def view(request: HttpRequest) -> HttpResponse:
        with connections[alias].cursor() as cursor:
            cursor.execute("INSERT INTO visits VALUES (%s)", [request.path])
        return failing(alias) if fails else HttpResponse()

    with site(view=view):
        response = wsgi()
        assert (pool.out, pool.closed) == (0, 0)
        assert mariadb.execute(f"SELECT COUNT(*) FROM {name}.visits") == [(0 if fails else 1,)]
        response.close()


# --- a streaming response -----------------------------------------------------------------------------------


def test_a_stream_without_an_open_cursor_gives_back_before_its_body(alias: str, pool: LeasePool) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT seq FROM seq_1_to_3")
            rows = cursor.fetchall()
        return StreamingHttpResponse(str(row[0]) for row in rows)

    with site(view=view):
        response = wsgi()
        assert (pool.out, pool.checkouts) == (0, 1)
        assert b"".join(response) == b"123"
        response.close()
    assert pool.checkouts == 1


def stream(cursor: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(f"{row[0]}\n" for row in iter(cursor.fetchone, None))


def buffered(alias: str) -> Any:
    """The usual: all rows are here already, and no `with` block closes the cursor."""
    cursor = connections[alias].cursor()
    cursor.execute("SELECT seq FROM seq_1_to_1000")
    return cursor


ALL = "".join(f"{number}\n" for number in range(1, 1001)).encode()


@pytest.mark.usefixtures("djangos_hand_tied")
@pytest.mark.parametrize("opened", [buffered, unbuffered])
def test_a_stream_with_an_open_cursor_gives_back_at_its_end(
    alias: str, pool: LeasePool, opened: Callable[[str], Any]
) -> None:
    with site(view=lambda request: stream(opened(alias))):
        response = wsgi()
        assert pool.out == 1
        assert b"".join(response) == ALL
        assert pool.out == 0  # ahead of close()
        response.close()
    assert pool.out == 0


@pytest.mark.usefixtures("djangos_hand_tied")
@pytest.mark.parametrize(
    ("opened", "thrown_away"),
    [(buffered, 0), (unbuffered, 1)],  # rows on their way must not reach anybody else
)
@pytest.mark.parametrize("parts", [0, 1, 10])
def test_or_when_it_is_closed_before(
    alias: str, pool: LeasePool, opened: Callable[[str], Any], thrown_away: int, parts: int
) -> None:
    with site(view=lambda request: stream(opened(alias))):
        response = wsgi()
        body = iter(response)
        assert [next(body) for _ in range(parts)] == ALL.splitlines(keepends=True)[:parts]
        assert pool.out == 1
        response.close()
        assert (pool.out, pool.closed) == (0, thrown_away)
    # The slot is free, and what comes next is in order.
    first = connection_id(alias)
    assert [connection_id(alias) for _ in range(3)] == [first] * 3


@pytest.mark.usefixtures("djangos_hand_tied")
def test_or_when_it_fails(alias: str, pool: LeasePool) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = buffered(alias)

        def body() -> Iterator[bytes]:
            yield str(cursor.fetchone()).encode()
            raise RuntimeError("a body that fails")

        return StreamingHttpResponse(body())

    with site(view=view):
        response = wsgi()
        with pytest.raises(RuntimeError, match="a body that fails"):
            b"".join(response)
        assert pool.out == 0
        response.close()


def test_a_stream_with_a_cursor_still_closes_what_the_view_gave_it(alias: str, pool: LeasePool) -> None:
    """The wrapping of the body must not cost the ``close()`` of the iterator inside."""
    events = []

    def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = buffered(alias)

        def body() -> Iterator[str]:
            try:
                while True:
                    yield str(cursor.fetchone()[0])
            finally:
                events.append(cursor.fetchone()[0])  # the connection is still there for it

        return StreamingHttpResponse(body())

    with site(view=view):
        response = wsgi()
        assert next(iter(response)) == b"1"
        response.close()
    assert (events, pool.out) == ([2], 0)


def test_what_a_body_borrows_itself_goes_back_when_the_request_finishes(alias: str, pool: LeasePool) -> None:
    out = []

    def body() -> Iterator[str]:
        for _ in range(3):
            yield str(connection_id(alias))
            out.append(pool.out)

    def view(request: HttpRequest) -> StreamingHttpResponse:
        connection_id(alias)
        return StreamingHttpResponse(body())

    with site(view=view):
        response = wsgi()
        assert (pool.out, pool.checkouts) == (0, 1)
        b"".join(response)
        assert (out, pool.out, pool.checkouts) == ([1, 1, 1], 1, 2)
        response.close()
    assert (pool.out, pool.opened) == (0, 1)


def test_a_file_is_sent_without_a_connection(alias: str, pool: LeasePool, tmp_path: Path) -> None:
    document = tmp_path / "document"
    document.write_bytes(b"text")

    def view(request: HttpRequest) -> FileResponse:
        connection_id(alias)
        return FileResponse(document.open("rb"))

    with site(view=view):
        response = wsgi()
        assert pool.out == 0
        # The server may still send it in its own quick way.
        assert isinstance(response, FileResponse)
        assert response.file_to_stream is not None
        assert b"".join(response) == b"text"
        response.close()
        assert response.file_to_stream.closed


@pytest.mark.usefixtures("djangos_hand_tied")
def test_a_file_sent_while_a_cursor_is_open_is_whole(alias: str, pool: LeasePool, tmp_path: Path) -> None:
    document = tmp_path / "document"
    document.write_bytes(b"text" * 100_000)
    kept = []

    def view(request: HttpRequest) -> FileResponse:
        kept.append(buffered(alias))
        return FileResponse(document.open("rb"))

    with site(view=view):
        response = wsgi()
        assert b"".join(response) == document.read_bytes()
        response.close()
    assert pool.out == 0


# --- a request inside something -----------------------------------------------------------------------------


def test_a_connection_in_an_atomic_block_is_left_alone(make_alias: MakeAlias) -> None:
    """What Django's TestCase does around each test. The other alias is given back as ever."""
    ours, other = make_alias(POOL=ONE), make_alias(POOL=ONE)
    with site(view=lambda request: HttpResponse(f"{connection_id(ours)} {connection_id(other)}")):
        with transaction.atomic(using=ours):
            before = connection_id(ours)
            lease = connections[ours].connection
            body = Client().get("/view").content.decode()
            assert connections[ours].connection is lease
            assert connection_id(ours) == before
            assert (pool_of(ours).out, pool_of(other).out) == (1, 0)
        assert body.split()[0] == str(before)
        connections[ours].close()
    assert pool_of(ours).closed == 0


def test_an_atomic_block_that_a_request_leaves_open_stays_with_its_owner(alias: str, pool: LeasePool) -> None:
    """The block may be its test's: entered by a setUp that is itself a request's doing."""
    block = transaction.atomic(using=alias)

    def view(request: HttpRequest) -> HttpResponse:
        block.__enter__()
        return plain(alias)

    with site(view=view):
        response = wsgi()
        assert pool.out == 1
        block.__exit__(None, None, None)
        response.close()
    assert (pool.out, pool.closed) == (0, 0)


def run(case: type[unittest.TestCase]) -> None:
    """Run the tests of a class of unittest's."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert not result.errors + result.failures, result.errors + result.failures
    assert result.testsRun


@pytest.mark.parametrize("base", [TestCase, TransactionTestCase])
def test_djangos_test_cases_see_what_they_see_with_the_stock_backend(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB, base: type[TransactionTestCase]
) -> None:
    def observe(engine: str, **entry: Any) -> list[Any]:
        name = new_database()
        mariadb.execute(f"CREATE TABLE {name}.visits (path TEXT)")
        alias = make_alias(engine, NAME=name, **entry)
        seen: list[Any] = []
        kept: dict[str, Any] = {}

        def visits() -> int:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM visits")
                row: tuple[int] = cursor.fetchone()
                return row[0]

        def view(request: HttpRequest) -> HttpResponse:
            with connections[alias].cursor() as cursor:
                cursor.execute("INSERT INTO visits VALUES (%s)", [request.path])
            return plain(alias)

        class Case(base):  # type: ignore[valid-type,misc]
            databases = {alias}

            def test_1_borrowed_by_the_test(self) -> None:
                before = connection_id(alias)
                kept["raw"] = connections[alias].connection
                response = self.client.get("/view")
                seen.append(("same in the view", int(response.content) == before))
                seen.append(("same afterwards", connection_id(alias) == before))
                seen.append(("same object", connections[alias].connection is kept["raw"]))
                seen.append(("visits", visits(), mariadb.execute(f"SELECT COUNT(*) FROM {name}.visits")))

            def test_2_borrowed_by_the_view(self) -> None:
                first = int(self.client.get("/view").content)
                seen.append(("same afterwards", connection_id(alias) == first))
                seen.append(("next request", int(self.client.get("/view").content) == first))
                seen.append(("visits", visits(), mariadb.execute(f"SELECT COUNT(*) FROM {name}.visits")))

            def test_3_a_failing_view_is_raised(self) -> None:
                with self.assertRaisesMessage(RuntimeError, "a view that fails"):
                    self.client.get("/fails")
                seen.append(("visits", visits()))

            def test_4_a_stream(self) -> None:
                before = connection_id(alias)
                response = self.client.get("/stream")
                seen.append(("whole", response.getvalue() == ALL))
                seen.append(("same afterwards", connection_id(alias) == before))

        with site(
            view=view, fails=lambda request: failing(alias), stream=lambda request: stream(buffered(alias))
        ):
            run(Case)
        return seen

    assert observe("poollife.backends.mysql", POOL=ONE) == observe(STOCK)


def test_a_request_inside_a_request_uses_its_connection_and_leaves_it(alias: str, pool: LeasePool) -> None:
    """With a pool of one: a second checkout could only wait for itself."""

    def outer(request: HttpRequest) -> HttpResponse:
        cursor = buffered(alias)
        first = cursor.fetchone()[0]
        inner = Client().get("/inner").content.decode()
        return HttpResponse(f"{first} {cursor.fetchone()[0]} {inner == str(connection_id(alias))}")

    with site(outer=outer, inner=lambda request: plain(alias)):
        response = wsgi("/outer")
        assert (b"".join(response), pool.out, pool.checkouts) == (b"1 2 True", 0, 1)
        response.close()


def test_a_request_inside_a_request_gives_back_what_is_its_own(alias: str, pool: LeasePool) -> None:
    out = []

    def outer(request: HttpRequest) -> HttpResponse:
        Client().get("/inner")
        out.append(pool.out)
        return plain(alias)

    with site(outer=outer, inner=lambda request: plain(alias)):
        wsgi("/outer").close()
    assert (out, pool.out, pool.checkouts) == ([0], 0, 2)


# --- ASGI ---------------------------------------------------------------------------------------------------


async def plain_async(alias: str) -> HttpResponse:
    return HttpResponse(str(await sync_to_async(connection_id)(alias)))


async def failing_async(alias: str) -> HttpResponse:
    await sync_to_async(connection_id)(alias)
    raise RuntimeError("a view that fails")


@pytest.mark.parametrize(
    "outcome", [*OUTCOMES, plain_async, failing_async], ids=lambda outcome: outcome.__name__
)
def test_an_asgi_response_has_given_back_before_it_is_sent(alias: str, pool: LeasePool, outcome: Any) -> None:
    async def view_async(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = await outcome(alias)
        return response

    def view(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = outcome(alias)
        return response

    async def main() -> None:
        exchange = Exchange()
        status = await exchange.head()
        assert (status, pool.out, pool.checkouts) == (OUTCOMES.get(outcome, status), 0, 1)
        await exchange.body()

    with site(view=view_async if iscoroutinefunction(outcome) else view):
        asyncio.run(main())
    assert pool.out == 0


@pytest.mark.parametrize("borrows", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False], ids=["async view", "sync view"])
def test_only_a_request_that_has_borrowed_hops_to_another_thread(
    alias: str, monkeypatch: pytest.MonkeyPatch, borrows: bool, asynchronous: bool
) -> None:
    hops: list[Any] = []

    def counted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hops.append(function)
        return sync_to_async(function, *args, **kwargs)

    async def view_async(request: HttpRequest) -> HttpResponse:
        return await plain_async(alias) if borrows else HttpResponse()

    def view(request: HttpRequest) -> HttpResponse:
        return plain(alias) if borrows else HttpResponse()

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        await exchange.body()

    monkeypatch.setattr(work, "sync_to_async", counted)
    with site(view=view_async if asynchronous else view):
        asyncio.run(main())
    assert len(hops) == borrows


@pytest.mark.parametrize("handler", [WSGIHandler, ASGIHandler])
def test_the_middleware_is_adapted_to_neither_handler(
    handler: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """An adapted one would cost each request a thread of its own, or an event loop."""
    caplog.set_level("DEBUG", "django.request")
    with site(), override_settings(DEBUG=True):
        handler()
    assert [message for message in caplog.messages if "adapted" in message] == []


def test_the_middleware_follows_djangos_conventions() -> None:
    async def get_response_async(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    assert PoolMiddleware.sync_capable
    assert PoolMiddleware.async_capable
    assert iscoroutinefunction(PoolMiddleware(get_response_async))
    assert not iscoroutinefunction(PoolMiddleware(lambda request: HttpResponse()))


@pytest.mark.usefixtures("djangos_hand_tied")
@pytest.mark.parametrize("parts", [None, 0, 10], ids=["to its end", "left at once", "left in the middle"])
@pytest.mark.parametrize(("opened", "thrown_away"), [(buffered, 0), (unbuffered, 1)])
def test_an_asynchronous_stream_keeps_its_connection_until_it_ends(
    alias: str, pool: LeasePool, parts: int | None, opened: Callable[[str], Any], thrown_away: int
) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = await sync_to_async(opened)(alias)

        async def body() -> AsyncIterator[str]:
            while row := await sync_to_async(cursor.fetchone)():
                yield f"{row[0]}\n"

        return StreamingHttpResponse(body())

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert pool.out == 1
        if parts is None:
            assert await exchange.body() == ALL
        else:
            body = exchange.parts()
            received = [await anext(body) for _ in range(parts)]
            assert received == ALL.splitlines(keepends=True)[:parts]
            await exchange.disconnect()
            assert pool.closed == thrown_away
        assert pool.out == 0

    with site(view=view):
        asyncio.run(main())


@pytest.mark.usefixtures("djangos_hand_tied")
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
@pytest.mark.parametrize("opened", [buffered, unbuffered])
def test_a_synchronous_stream_under_asgi_is_whole_and_gives_back(
    alias: str, pool: LeasePool, opened: Callable[[str], Any]
) -> None:
    """Django reads it to its end, in the view's thread, before it sends the first part."""

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        body = exchange.parts()
        first = await anext(body)
        assert pool.out == 0
        assert b"".join([first, *[part async for part in body]]) == ALL
        await exchange.end()

    with site(view=lambda request: stream(opened(alias))):
        asyncio.run(main())
    assert pool.out == 0


@pytest.mark.usefixtures("djangos_hand_tied")
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_an_asynchronous_stream_under_wsgi_is_whole_and_gives_back(alias: str, pool: LeasePool) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = await sync_to_async(buffered)(alias)

        async def body() -> AsyncIterator[str]:
            while row := cursor.fetchone():
                yield f"{row[0]}\n"

        return StreamingHttpResponse(body())

    with site(view=view):
        response = wsgi()
        assert b"".join(response) == ALL
        assert pool.out == 0
        response.close()


@pytest.mark.usefixtures("djangos_hand_tied")
def test_a_client_that_hangs_up_ends_an_async_view_and_its_lease(alias: str, pool: LeasePool) -> None:
    async def main() -> None:
        borrowed = asyncio.Event()

        async def view(request: HttpRequest) -> HttpResponse:
            await sync_to_async(connection_id)(alias)
            borrowed.set()
            await asyncio.Event().wait()
            raise AssertionError("not reached")

        with site(view=view):
            exchange = Exchange()
            await borrowed.wait()
            assert pool.out == 1
            await exchange.disconnect()
            assert (pool.out, pool.closed) == (0, 0)

    asyncio.run(main())


@pytest.mark.usefixtures("djangos_hand_tied")
def test_a_client_that_hangs_up_on_a_sync_view_is_waited_for(alias: str, pool: LeasePool) -> None:
    """The view can't be interrupted. Giving back queues behind it; its connection stays where it is."""
    borrowed, go_on, ids = threading.Event(), threading.Event(), []

    def view(request: HttpRequest) -> HttpResponse:
        ids.append(connection_id(alias))
        borrowed.set()
        assert go_on.wait(30)
        ids.append(connection_id(alias))
        return HttpResponse()

    async def main() -> None:
        exchange = Exchange()
        await asyncio.to_thread(borrowed.wait, 30)
        leaving = asyncio.create_task(exchange.disconnect())
        await asyncio.sleep(0)
        assert pool.out == 1
        go_on.set()
        await leaving
        assert (pool.out, pool.closed, pool.checkouts) == (0, 0, 1)

    with site(view=view):
        asyncio.run(main())
    assert len(set(ids)) == 1
    assert len(ids) == 2


def test_requests_at_once_each_give_back_their_own(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 8, "max_overflow": 0})
    pool = pool_of(alias)

    async def main() -> None:
        together = asyncio.Barrier(8)

        async def view(request: HttpRequest) -> HttpResponse:
            before = await sync_to_async(connection_id)(alias)
            await together.wait()
            return HttpResponse(str(await sync_to_async(connection_id)(alias) == before))

        async def visit(handler: ASGIHandler) -> bytes:
            exchange = Exchange(app=handler)
            assert await exchange.head() == 200
            return await exchange.body()

        with site(view=view):
            handler = ASGIHandler()
            for _ in range(5):
                assert await asyncio.gather(*(visit(handler) for _ in range(8))) == [b"True"] * 8
                assert pool.out == 0

    asyncio.run(main())
    assert (pool.opened, pool.checkouts) == (8, 40)


def test_the_async_test_client(alias: str, pool: LeasePool) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return await plain_async(alias)

    async def main() -> None:
        client = AsyncClient()
        ids = {(await client.get("/view")).content for _ in range(5)}
        assert (len(ids), pool.out, pool.checkouts) == (1, 0, 5)

    with site(view=view):
        asyncio.run(main())


def test_a_stream_to_the_async_test_client(alias: str, pool: LeasePool) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = await sync_to_async(buffered)(alias)

        async def body() -> AsyncIterator[str]:
            while row := await sync_to_async(cursor.fetchone)():
                yield f"{row[0]}\n"

        return StreamingHttpResponse(body())

    async def main() -> None:
        response: Any = await AsyncClient().get("/view")
        assert pool.out == 1
        assert b"".join([part async for part in response.streaming_content]) == ALL
        assert pool.out == 0

    with site(view=view):
        asyncio.run(main())


def test_what_another_thread_still_works_with_is_not_taken_from_it(alias: str, pool: LeasePool) -> None:
    """A response ends, and a thread that it has started goes on."""
    go_on, ids = threading.Event(), list[int]()

    def work() -> None:
        ids.append(connection_id(alias))
        borrowed.set()
        assert go_on.wait(30)
        ids.append(connection_id(alias))

    async def view(request: HttpRequest) -> HttpResponse:
        tasks.append(asyncio.create_task(asyncio.to_thread(work)))
        await asyncio.to_thread(borrowed.wait, 30)
        return HttpResponse()

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert pool.out == 1
        await exchange.body()
        assert pool.out == 1
        go_on.set()
        await asyncio.gather(*tasks)

    borrowed, tasks = threading.Event(), list[asyncio.Task[None]]()
    with site(view=view):
        asyncio.run(main())
    assert ids == ids[:1] * 2
    # The thread has ended with its loop, without giving back: it is asked for what it had.
    assert (connection_id(alias), pool.opened) == (ids[0], 1)


# --- real servers -------------------------------------------------------------------------------------------


@pytest.fixture
def serve(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., WebServer]]:
    """A function that starts a web server; POOL is its pool's options."""
    started: list[WebServer] = []

    def start(kind: str, *, NAME: str = "", threads: int = 4, **POOL: Any) -> WebServer:
        entry = mariadb.database(NAME or new_database()) | {"ENGINE": "poollife.backends.mysql", "POOL": POOL}
        server = WebServer(
            kind, tmp_path / f"server_{len(started)}.log", threads=threads, DATABASES={"default": entry}
        )
        started.append(server.__enter__())
        return server

    yield start
    for server in started:
        server.__exit__()


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("kind", ["sync", "gthread", "uvicorn"])
def test_200_warm_requests_over_http_send_200_statements(
    serve: Callable[..., WebServer], mariadb: MariaDB, kind: str
) -> None:
    server = serve(kind)
    warm = server.get("/plain")
    assert warm.status == 200
    with Questions(mariadb) as asked:
        answers = {server.get("/plain") for _ in range(200)}
    assert (asked.count, answers) == (200, {warm})
    assert (server.pool()["out"], server.pool()["opened"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.servers
def test_a_slow_client_holds_no_connection(serve: Callable[..., WebServer]) -> None:
    """It has got a quarter of its 20 MB; meanwhile the only connection serves others."""
    server = serve("gthread", **ONE)
    with server.open("/download/20") as slow:
        session = slow.read(MEGABYTE).split()[0]
        for _ in range(4):
            assert server.get("/plain") == Answer(200, session)
            assert len(slow.read(MEGABYTE)) == MEGABYTE
        assert server.pool()["out"] == 0


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("path", ["/numbers/20000", "/rows/20000"], ids=["buffered", "unbuffered"])
def test_a_csv_streams_right_while_others_work(serve: Callable[..., WebServer], path: str) -> None:
    """20 MB from a cursor that was opened in the view; the pool's second connection is for the others."""
    server = serve("gthread", pool_size=2, max_overflow=0, timeout=1)
    with server.open(path) as csv:
        body = csv.read(MEGABYTE)
        for _ in range(4):
            assert server.get("/plain").status == 200
            assert server.pool()["out"] == 1
            body += csv.read(MEGABYTE)
        body += csv.read()
    assert [int(line.rstrip(b".")) for line in body.splitlines()] == list(range(1, 20001))
    assert len(body) == 20000 * 1024
    eventually("nothing is out", lambda: server.pool()["out"] == 0)


@pytest.mark.slow
@pytest.mark.servers
def test_a_client_that_leaves_a_stream_costs_one_session_and_no_slot(serve: Callable[..., WebServer]) -> None:
    server = serve("gthread", **ONE)
    sessions = []
    for _ in range(3):
        sessions.append(server.get("/plain").body)
        with server.open("/rows/20000") as stream:
            assert stream.read(4) == b"1..."
        eventually("the slot is free", lambda: server.pool()["out"] == 0)
    assert len(set(sessions)) == 3
    assert server.pool()["closed"] == 3


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize(
    ("path", "first", "kept"),
    [("/hold_async", b"", True), ("/rows_async/20000", b"1...", False), ("/sleep/1", b"", True)],
    ids=["async view", "async body", "sync view"],
)
def test_a_client_that_leaves_uvicorn_costs_no_slot(
    serve: Callable[..., WebServer], path: str, first: bytes, kept: bool
) -> None:
    """While an async view waits, in the middle of its body, and in the middle of a sync view's query."""
    server = serve("uvicorn", **ONE)
    session = server.get("/plain_async").body
    with server.open(path) as download:
        eventually("it holds the connection", lambda: server.pool()["out"] == 1)
        assert not first or download.read(len(first)) == first
    eventually("nothing is out", lambda: server.pool()["out"] == 0)
    assert (server.get("/plain").body == session) is kept
    assert server.get("/plain").body == server.get("/plain_async").body


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("kind", ["sync", "gthread", "uvicorn"])
def test_after_500_mixed_requests_nothing_is_out_and_the_limit_has_held(
    serve: Callable[..., WebServer], new_database: Callable[[], str], mariadb: MariaDB, kind: str
) -> None:
    database, limit = new_database(), 3
    server = serve(kind, NAME=database, threads=8, pool_size=2, max_overflow=1)
    numbers = "".join(f"{number:<1023}\n" for number in range(1, 51)).encode()

    def read(path: str, status: int, body: bytes | None = None) -> Callable[[], None]:
        def visit() -> None:
            answer = server.get(path)
            assert answer.status == status, (path, answer, server.log)
            assert body in (None, answer.body), path

        return visit

    def drop(path: str, size: int) -> Callable[[], None]:
        def visit() -> None:
            with server.open(path) as download:
                if size:
                    assert len(download.read(size)) == size

        return visit

    whole = [
        read("/plain", 200),
        read("/error", 500),
        read("/missing", 404),
        read("/numbers/50", 200, numbers),
    ]
    whole += [read("/rows/50", 200), read("/download/1", 200)]
    dropped = [
        drop("/plain", 0),
        drop("/rows/20000", 1024),
        drop("/numbers/5000", 0),
        drop("/download/5", 1024),
    ]
    if kind == "uvicorn":
        # A synchronous body is made in whole before the first byte is sent, so there is a shorter one here.
        dropped = [drop("/plain", 0), drop("/rows/200", 1024), drop("/hold_async", 0)]
        dropped += [drop("/rows_async/20000", 1024)]
        whole += [read("/plain_async", 200), read("/rows_async/50", 200)]
    visits = [*whole * 40, *dropped * 20]
    visits = (visits * 2)[:500]
    random.Random(0).shuffle(visits)

    with ThreadPoolExecutor(8) as clients:
        for visit in [clients.submit(visit) for visit in visits]:
            visit.result()
    eventually("nothing is out", lambda: server.pool()["out"] == 0)

    stats = server.stats()
    pool = stats["pools"]["default"]
    # The kernel's account, taken at each opening. The database server's own would be late: it goes on with a
    # session for a while after the client has closed it.
    assert 1 <= stats["most_sockets"] <= limit
    assert pool["opened"] - pool["closed"] == pool["idle"] == stats["sockets"] <= limit
    eventually(
        "the server sees only the idle ones",
        lambda: len([each for each in mariadb.sessions() if each.db == database]) == pool["idle"],
    )
    assert server.get("/plain").status == 200
