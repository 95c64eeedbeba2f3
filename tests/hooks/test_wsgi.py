"""``poollife.wsgi``: invariant 2 for what ``PoolMiddleware`` does not see. The tests do the server's part."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from poollife.wsgi import Environ, PoolWSGIMiddleware
from servers import MariaDB
from tests.support import ROOT
from tests.support.borrowing import Failure, ask_id, insert, make_log, out, rows
from tests.support.handlers import site
from tests.support.web_server import WebServer, eventually

PARTS = 3
Start = Callable[..., Any]


@pytest.fixture
def alias(make_pool: Callable[[int], str]) -> str:
    """A pool of one: who keeps it is noticed by whoever comes next."""
    return make_pool(1)


def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
    """The server's part."""
    return lambda data: None


def call(application: Callable[..., Any], start: Start = started, **environ: Any) -> Any:
    """What a server has in hands when the application has answered."""
    setup_testing_defaults(environ)
    return PoolWSGIMiddleware(application)(environ, start)


def generates(body: Callable[[], Iterator[Any]]) -> Callable[..., Any]:
    """The application whose body this is: nothing has run of it when it has answered."""

    def application(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return (str(part).encode() for part in body())

    return application


def reading(alias: str) -> Callable[[], Iterator[int]]:
    """A body that reads from one cursor."""

    def body() -> Iterator[int]:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT seq FROM seq_1_to_{PARTS}")
            for (number,) in cursor:
                yield number

    return body


def asking(alias: str) -> Callable[[], Iterator[int]]:
    """One that asks anew for each of its parts."""
    return lambda: (bool(ask_id(alias)) for _ in range(PARTS))


class Closing:
    """A body that wants to be closed, and queries then."""

    def __init__(self, alias: str, error: type[Exception] | None = None) -> None:
        self._alias = alias
        self._error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"part"

    def close(self) -> None:
        self.closed += 1
        ask_id(self._alias)
        if self._error:
            raise self._error


# --- when it goes back -----------------------------------------------------------------------------------


def test_a_whole_body_is_passed_on_as_it_is(alias: str) -> None:
    """A server asks for the length of a list, to set Content-Length."""
    whole = [b"all of it"]

    def application(environ: Environ, start: Start) -> list[bytes]:
        assert ask_id(alias)
        assert out(alias) == 1
        return whole

    assert call(application) is whole
    assert out(alias) == 0


def test_so_is_what_is_no_body_at_all(alias: str) -> None:
    """Of an application that has taken over the socket."""

    def application(environ: Environ, start: Start) -> None:
        ask_id(alias)

    assert call(application) is None
    assert out(alias) == 0


def test_nothing_is_held_while_a_plain_body_is_sent(alias: str) -> None:
    body = call(generates(asking(alias)))
    held = [out(alias) for _ in body]
    assert (held, out(alias)) == ([0] * PARTS, 0)


def test_a_body_that_reads_from_a_cursor_keeps_it(alias: str) -> None:
    """The end gives it back, whether or not the server closes it."""
    body = call(generates(reading(alias)))
    assert [(part, out(alias)) for part in body] == [(b"1", 1), (b"2", 1), (b"3", 1)]
    assert out(alias) == 0


def test_what_the_application_opened_is_read_by_its_body(alias: str) -> None:
    def application(environ: Environ, start: Start) -> Iterator[bytes]:
        cursor = connections[alias].cursor()
        cursor.execute(f"SELECT seq FROM seq_1_to_{PARTS}")
        return (str(number).encode() for (number,) in cursor)

    body = call(application)
    assert out(alias) == 1
    assert list(body) == [b"1", b"2", b"3"]
    assert out(alias) == 0


def test_session_state_and_transactions_last_from_part_to_part(mariadb: MariaDB, alias: str) -> None:
    """And no longer."""
    make_log(mariadb, alias)

    def body() -> Iterator[Any]:
        with connections[alias].cursor() as cursor:
            cursor.execute("SET @mine = 5")
        yield "set"
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT @mine")
            yield cursor.fetchone()[0]
        transaction.set_autocommit(False, using=alias)
        insert(alias)
        yield "inserted"
        connections[alias].commit()
        insert(alias)
        yield "rolled back"

    assert list(call(generates(body))) == [b"set", b"5", b"inserted", b"rolled back"]
    assert (out(alias), rows(mariadb, alias)) == (0, 1)
    assert connections[alias].get_autocommit()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT @mine")
        assert cursor.fetchone() == (None,)


def test_a_clean_session_that_is_in_a_transaction_stays(mariadb: MariaDB, alias: str) -> None:
    make_log(mariadb, alias)

    def body() -> Iterator[str]:
        transaction.set_autocommit(False, using=alias)
        with connections[alias].cursor() as cursor:
            cursor.execute("INSERT INTO log VALUES (1)")
        yield "inserted"
        connections[alias].commit()
        transaction.set_autocommit(True, using=alias)
        yield "committed"

    assert [out(alias) for _ in call(generates(body))] == [1, 0]
    assert rows(mariadb, alias) == 1


def test_a_server_that_closes_gets_it_back(alias: str) -> None:
    """A client has left."""
    body = call(generates(reading(alias)))
    assert next(body) == b"1"
    body.close()
    assert out(alias) == 0
    with pytest.raises(ValueError, match="closed"):
        next(body)


def test_it_is_closed_once_and_what_it_borrows_then_goes_back(alias: str) -> None:
    inner = Closing(alias)
    body = call(lambda environ, start: inner)
    assert list(body) == [b"part"]
    body.close()
    body.close()
    assert (inner.closed, out(alias)) == (1, 0)


def test_its_length_is_known_if_it_was(alias: str) -> None:
    class Sized(Closing):
        def __len__(self) -> int:
            return 1

    assert len(call(lambda environ, start: Sized(alias))) == 1
    assert not hasattr(call(lambda environ, start: Closing(alias)), "__len__")


def test_without_it_somebody_keeps_it(alias: str) -> None:
    """As a control."""
    next(generates(reading(alias))({}, started))
    assert out(alias) == 1


# --- when it fails ---------------------------------------------------------------------------------------


def test_an_application_that_fails(alias: str) -> None:
    def application(environ: Environ, start: Start) -> list[bytes]:
        connections[alias].cursor().execute("SELECT 1")
        raise Failure

    with pytest.raises(Failure):
        call(application)
    assert out(alias) == 0


def test_a_server_that_fails_to_start_the_response(alias: str) -> None:
    """It may have sent its head already."""

    def application(environ: Environ, start: Start) -> list[bytes]:
        connections[alias].cursor().execute("SELECT 1")
        start("200 OK", [])
        return []

    def fail(*_: object) -> None:
        raise Failure

    with pytest.raises(Failure):
        call(application, fail)
    assert out(alias) == 0


def test_a_body_that_fails(alias: str) -> None:
    def body() -> Iterator[str]:
        connections[alias].cursor().execute("SELECT 1")
        yield "part"
        raise Failure

    answer = call(generates(body))
    next(answer)
    with pytest.raises(Failure):
        next(answer)
    assert out(alias) == 0
    answer.close()


def test_a_close_that_fails(alias: str) -> None:
    body = call(lambda environ, start: Closing(alias, Failure))
    with pytest.raises(Failure):
        body.close()
    assert out(alias) == 0


def test_a_transaction_that_nobody_ended(mariadb: MariaDB, alias: str) -> None:
    make_log(mariadb, alias)

    def application(environ: Environ, start: Start) -> list[bytes]:
        transaction.atomic(using=alias).__enter__()
        insert(alias)
        return []

    call(application)
    assert (out(alias), rows(mariadb, alias)) == (0, 0)
    assert not connections[alias].in_atomic_block


def test_the_transaction_of_whoever_calls_is_not_touched(mariadb: MariaDB, alias: str) -> None:
    """Not where it was opened before, nor, on the same connection, between two parts."""
    make_log(mariadb, alias)
    with suppress(Failure), transaction.atomic(using=alias):
        insert(alias)
        assert list(call(generates(asking(alias)))) == [b"True"] * PARTS
        assert connections[alias].in_atomic_block
        raise Failure
    connections[alias].close()
    body = call(generates(reading(alias)))
    next(body)
    with transaction.atomic(using=alias):
        insert(alias)
        body.close()
        assert connections[alias].in_atomic_block
    connections[alias].close()
    assert (out(alias), rows(mariadb, alias)) == (0, 1)


# --- when no server closes it ----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
def test_the_next_request_of_the_thread_finds_what_was_lost(alias: str, kept: bool) -> None:
    body = call(generates(reading(alias)))
    next(body)
    body = body if kept else None
    call(lambda environ, start: [b"another"])
    assert out(alias) == 0


def test_what_was_lost_does_not_take_part_in_the_next(mariadb: MariaDB, alias: str) -> None:
    """Its transaction does not end that of the next, whenever its generator is freed."""
    make_log(mariadb, alias)

    def body() -> Iterator[str]:
        with transaction.atomic(using=alias):
            insert(alias)
            yield "part"

    lost = call(generates(body))
    next(lost)

    def application(environ: Environ, start: Start) -> list[bytes]:
        nonlocal lost
        with transaction.atomic(using=alias):
            insert(alias)
            lost = None
        return []

    call(application)
    assert (out(alias), rows(mariadb, alias)) == (0, 1)


def test_an_end_that_fails_then_is_told_of(alias: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is no failure of the next request's."""
    lost = call(lambda environ, start: Closing(alias, Failure), PATH_INFO="/lost")
    assert call(lambda environ, start: [b"another"]) == [b"another"]
    assert (out(alias), caplog.messages) == (
        0,
        ["GET /lost, which no server has closed, could not be closed"],
    )
    assert lost


def test_who_calls_another_application_has_not_lost_its_own_response(alias: str) -> None:
    def includes() -> Iterator[str]:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT seq FROM seq_1_to_{PARTS}")
            for (number,) in cursor:
                yield f"{number} {call(lambda environ, start: [b'included'])}"

    assert list(call(generates(includes))) == [f"{number} [b'included']".encode() for number in (1, 2, 3)]
    assert out(alias) == 0


# --- files -----------------------------------------------------------------------------------------------


def sends_like_uwsgi(file: Any, size: int = 0) -> Any:
    return file


@pytest.mark.parametrize("wrapper", [FileWrapper, sends_like_uwsgi])
def test_a_file_stays_what_the_server_knows(tmp_path: Path, alias: str, wrapper: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("content")
    made: list[Any] = []

    def application(environ: Environ, start: Start) -> Any:
        connections[alias].cursor().execute("SELECT 1")
        made.append(environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb")))
        return made[0]

    body = call(application, **{"wsgi.file_wrapper": wrapper})
    assert body is made[0]
    assert b"".join(body) == b"content"
    body.close()
    assert out(alias) == 0
    assert getattr(body, "filelike", body).closed


class Unchanging(io.RawIOBase):
    """Of a class that lets nobody set this attribute."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "close":
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_a_file_that_tells_nobody_of_its_end(alias: str) -> None:
    def application(environ: Environ, start: Start) -> Any:
        connections[alias].cursor().execute("SELECT 1")
        return environ["wsgi.file_wrapper"](Unchanging())

    call(application, **{"wsgi.file_wrapper": sends_like_uwsgi}).close()
    call(lambda environ, start: [b"another"])
    assert out(alias) == 0


# --- with others -----------------------------------------------------------------------------------------


def test_together_with_the_middleware_inside(alias: str) -> None:
    """Its end is the earlier one, and by the time of ours somebody else has the session."""

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(ask_id(alias)))

    with site(view=view):
        body = call(WSGIHandler(), PATH_INFO="/view")
        assert out(alias) == 0
        with ThreadPoolExecutor(1) as other:
            other_reads = reading(alias)()
            assert other.submit(next, other_reads).result() == 1
            assert b"".join(body).isdigit()
            body.close()
            assert other.submit(list, other_reads).result() == [2, 3]


def test_a_stream_of_django(alias: str) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        cursor = connections[alias].cursor()
        cursor.execute(f"SELECT seq FROM seq_1_to_{PARTS}")
        return StreamingHttpResponse(str(number) for (number,) in cursor)

    with site(view=view):
        body = call(WSGIHandler(), PATH_INFO="/view")
        assert [(part, out(alias)) for part in body][:2] == [(b"1", 1), (b"2", 1)]
        assert out(alias) == 0
        lost = call(WSGIHandler(), PATH_INFO="/view")
        assert next(lost) == b"1"
        assert b"".join(call(WSGIHandler(), PATH_INFO="/view")) == b"123"
        assert out(alias) == 0


def test_what_django_tells_when_a_response_is_closed(alias: str) -> None:
    """Receivers of ``request_finished`` come after the one that closes connections."""

    def query(**_: Any) -> None:
        ask_id(alias)

    request_finished.connect(query)
    try:
        with site(view=lambda request: HttpResponse("plain")):
            body = call(WSGIHandler(), PATH_INFO="/view")
            assert list(body) == [b"plain"]
            body.close()
    finally:
        request_finished.disconnect(query)
    assert out(alias) == 0


@pytest.mark.filterwarnings("ignore:.*:wsgiref.validate.WSGIWarning")
def test_it_keeps_to_the_letter_of_wsgi(alias: str) -> None:
    """Towards its server, and towards its application."""
    written = io.BytesIO()
    environ: Environ = {"QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    setup_testing_defaults(environ)
    handler = SimpleHandler(io.BytesIO(), written, sys.stderr, environ)
    handler.run(validator(PoolWSGIMiddleware(validator(generates(asking(alias))))))
    assert written.getvalue().endswith(b"\r\n\r\nTrueTrueTrue")
    assert out(alias) == 0


def test_it_needs_no_settings() -> None:
    """Another framework's module may load it first."""
    program = "from poollife.wsgi import PoolWSGIMiddleware; PoolWSGIMiddleware(list)"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- on a server -----------------------------------------------------------------------------------------

BESIDE = ROOT / "tests/support/request_site/beside.py"


class BesideServer(WebServer):
    """gunicorn with something beside Django."""

    def __init__(self, kind: str, log: Path, **site: Any) -> None:
        super().__init__(kind, log, **site)
        self._command.append("tests.support.request_site.beside")
        self._environment["DJANGO_SETTINGS_MODULE"] = "tests.support.request_site.settings"


def answers(server: BesideServer, page: str, count: int = 8) -> list[bytes]:
    """What some clients get."""

    def get(_: object) -> bytes:
        with suppress(IncompleteRead):
            return server.get(f"/beside/{page}").body
        return b""

    with ThreadPoolExecutor(4) as clients:
        return list(clients.map(get, range(count)))


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_on_a_server_nothing_is_out(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path, kind: str
) -> None:
    entry = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    with BesideServer(kind, tmp_path / "log", DATABASES={"default": entry}) as server:
        assert all(answer.isdigit() for answer in answers(server, "plain"))
        assert set(answers(server, "file")) == {BESIDE.read_bytes()}
        assert {len(answer) for answer in answers(server, "rows", 4)} == {8_000 << 10}
        answers(server, "error")
        answers(server, "late_error")
        for _ in range(4):
            with server.open("/beside/rows") as download:
                assert download.read(6)
        eventually("nothing is out", lambda: server.pool()["out"] == 0)
