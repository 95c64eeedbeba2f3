"""``POOL["release"]``: when a connection goes back inside of a request, a task or a block."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, connections, transaction
from django.http import HttpRequest, HttpResponse
from MySQLdb.cursors import SSCursor

from poollife import auto_close_db
from poollife.conf import PoolOptions
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, out, sql, variable
from tests.support.counting import pool_of
from tests.support.handlers import Exchange, site, wsgi

ONE: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "timeout": 1}


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={**ONE, "release": "statement"})


@pytest.mark.parametrize(("release", "kept"), [("work", 1), ("statement", 0)])
def test_a_statement_gives_back_inside_of_a_request_where_the_setting_says_so(
    make_alias: MakeAlias, release: str, kept: int
) -> None:
    alias = make_alias(POOL={**ONE, "release": release})
    seen: list[int] = []

    def view(request: HttpRequest) -> HttpResponse:
        sql(alias, "SELECT 1")
        seen.append(out(alias))
        return HttpResponse()

    with site(view=view):
        wsgi().close()
    assert (seen, out(alias)) == ([kept], 0)


def test_requests_that_wait_for_something_else_share_one_connection(alias: str) -> None:
    """Each queries, and waits until all others have queried, too."""
    number = 4
    barrier = threading.Barrier(number, timeout=PATIENCE)

    def view(request: HttpRequest) -> HttpResponse:
        sql(alias, "SELECT 1")
        barrier.wait()
        sql(alias, "SELECT 1")
        return HttpResponse("done")

    def request(_: int) -> bytes:
        response: Any = wsgi()
        try:
            return b"".join(response)
        finally:
            response.close()

    with site(view=view), ThreadPoolExecutor(number) as executor:
        assert list(executor.map(request, range(number))) == [b"done"] * number
    assert (pool_of(alias).opened, out(alias)) == (1, 0)


def test_a_command_gives_back_after_each_statement(alias: str) -> None:
    """In the main thread, where the default is to keep the connection."""
    assert threading.current_thread() is threading.main_thread()
    sql(alias, "SELECT 1")
    assert out(alias) == 0


def test_a_cursor_of_the_drivers_own_keeps_the_connection(alias: str) -> None:
    """Nothing is known of what follows it."""
    with auto_close_db():
        connections[alias].ensure_connection()
        cursor = connections[alias].connection.cursor(SSCursor)
        cursor.execute("SELECT 1 UNION SELECT 2")
        sql_is_refused = cursor.fetchone()
        assert (sql_is_refused, out(alias)) == ((1,), 1)
        cursor.close()
        assert out(alias) == 1
    assert out(alias) == 0


def test_session_state_keeps_the_connection_until_the_work_ends(alias: str) -> None:
    with auto_close_db():
        sql(alias, "SET @left = 7")
        assert (out(alias), variable(alias)) == (1, 7)
    assert out(alias) == 0
    with auto_close_db():
        assert variable(alias) is None


def test_a_session_that_its_borrower_was_told_of_stays(alias: str) -> None:
    with auto_close_db():
        sql(alias, "SELECT CONNECTION_ID()")
        assert out(alias) == 1
    assert out(alias) == 0


@pytest.mark.parametrize("asks", ["LAST_INSERT_ID()", "ROW_COUNT()"])
def test_what_depends_on_an_earlier_statement_is_refused_and_never_guessed(alias: str, asks: str) -> None:
    with auto_close_db():
        sql(alias, "CREATE TABLE numbers (id INT PRIMARY KEY AUTO_INCREMENT, n INT)")
    with auto_close_db():
        sql(alias, "INSERT INTO numbers (n) VALUES (1)")
        assert out(alias) == 0
        with pytest.raises(InterfaceError, match=r"atomic"):
            sql(alias, f"SELECT {asks}")
        with transaction.atomic(using=alias):
            sql(alias, "INSERT INTO numbers (n) VALUES (1)")
            sql(alias, f"SELECT {asks}")


def test_the_orm_works_as_with_the_default(alias: str) -> None:
    """Its statements need nothing of the one before."""
    with auto_close_db():
        sql(alias, "CREATE TABLE numbers (id INT PRIMARY KEY AUTO_INCREMENT, n INT)")
        with connections[alias].cursor() as cursor:
            cursor.execute("INSERT INTO numbers (n) VALUES (%s)", [3])
            assert (cursor.lastrowid, cursor.rowcount) == (1, 1)
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT n FROM numbers")
            assert cursor.fetchall() == ((3,),)
    assert out(alias) == 0


def test_an_asynchronous_request_gives_back_after_each_statement(alias: str) -> None:
    seen: list[int] = []

    async def view(request: HttpRequest) -> HttpResponse:
        await sync_to_async(sql)(alias, "SELECT 1")
        seen.append(out(alias))
        return HttpResponse("done")

    async def request() -> bytes:
        exchange = Exchange()
        assert await exchange.head() == 200
        return await exchange.body()

    with site(view=view):
        assert asyncio.run(request()) == b"done"
    assert (seen, out(alias)) == ([0], 0)


@pytest.mark.parametrize("value", ["request", None, True, 1])
def test_another_value_is_refused_with_the_cure(value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'release' takes \"work\" or \"statement\""):
        PoolOptions.from_settings("default", {"POOL": {"release": value}})
