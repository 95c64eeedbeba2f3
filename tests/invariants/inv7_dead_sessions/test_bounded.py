"""Invariant 7: what the pool itself sends ends, although a proxy keeps the session and nothing answers."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import OperationalError, connections

from poollife.backends.mysql import common as mysql_backend
from poollife.backends.postgresql import base as postgresql_backend
from poollife.drivers.connection import ended_after
from poollife.drivers.mysql import connection as mysql
from poollife.drivers.mysql import mysqlclient
from servers import MariaDB, PrivateServer, Proxy
from tests.conftest import MakeAlias
from tests.support.counting import pool_of

ENGINES = ["poollife.backends.mysql", "poollife.backends.mysql_pymysql"]
engines = pytest.mark.parametrize("engine", ENGINES, ids=["mysqlclient", "PyMySQL"])
lazily = pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy_begin"])


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From here on no thread is started. An attempt is noted, because the pool would handle its error."""
    started: list[object] = []

    def refuse(*args: object) -> None:
        started.append(args)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(_thread, "start_new_thread", refuse)  # ended_after() calls it
        yield
    assert started == []


def begin(engine: str, lazy: bool, make_alias: MakeAlias, proxy: Proxy) -> str:
    """Return the alias of a session in a transaction, which its return rolls back."""
    options = {"client_flag": 1 << 16} if lazy and "pymysql" in engine else {}  # MULTI_STATEMENTS
    alias = make_alias(engine, PORT=str(proxy.port), POOL={"lazy_begin": lazy}, OPTIONS=options)
    connection = connections[alias]
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return alias


@engines
@lazily
def test_rollback_at_the_return_ends_without_read_timeout(
    engine: str, lazy: bool, make_alias: MakeAlias, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CLEANING_LIMIT", 0.2)
    alias = begin(engine, lazy, make_alias, proxy)
    with proxy.stalled():
        connections[alias].close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 1)


@engines
@lazily
def test_rollback_at_the_return_starts_no_thread(
    engine: str, lazy: bool, make_alias: MakeAlias, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    alias = begin(engine, lazy, make_alias, proxy)
    request.getfixturevalue("no_threads")
    connections[alias].close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 1, 0)


@engines
@lazily
def test_change_of_autocommit_at_the_return_ends_without_read_timeout(
    engine: str, lazy: bool, make_alias: MakeAlias, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes silent behind its answer to the ROLLBACK."""
    monkeypatch.setattr(mysql, "CLEANING_LIMIT", 0.2)
    alias = begin(engine, lazy, make_alias, proxy)
    guarded_class: Any = type(connections[alias].connection)
    ask = guarded_class._ask
    with ExitStack() as silence:

        def ask_once(driver: Any, seconds: float, question: bytes) -> None:
            ask(driver, seconds, question)
            silence.enter_context(proxy.stalled())

        monkeypatch.setattr(guarded_class, "_ask", ask_once)
        connections[alias].close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 1)


def test_reset_ends_without_read_timeout(
    make_alias: MakeAlias, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysqlclient, "CLEANING_LIMIT", 0.2)
    alias = make_alias(PORT=str(proxy.port))
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute("SET @mine = 1")
    with proxy.stalled():
        connection.close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 1)


def test_limit_leaves_an_exception_that_comes_before_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent's locks are taken by code of Python: an asynchronous exception may come in it."""

    class Struck(BaseException):
        """An asynchronous exception."""

    class Lock:
        def acquire(self) -> None:
            raise Struck

        def release(self) -> None:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(threading, "Lock", Lock)
    with pytest.raises(Struck), ended_after(3600.0, pytest.fail):
        pass


@pytest.mark.parametrize("statement", ["SELECT 1", "SET @mine = 1"], ids=["rollback", "reset"])
def test_read_timeout_of_the_site_is_the_limit(
    statement: str,
    make_alias: MakeAlias,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """No thread is started that would watch. The pool's own limit would hold up the test."""
    for module in (mysql, mysqlclient):
        monkeypatch.setattr(module, "CLEANING_LIMIT", 3600.0)
    alias = make_alias(PORT=str(proxy.port), OPTIONS={"read_timeout": 1})
    connection = connections[alias]
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute(statement)
    request.getfixturevalue("no_threads")
    with proxy.stalled():
        connection.close()
    assert pool_of(alias).closed == 1


def test_a_limit_waits_for_no_thread_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Thread.start()`` waits. In Python 3.11 it waits for ever, if a time limit strikes the new thread."""
    ended = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: pytest.fail("it waits for its thread"))
        with ended_after(0.0, ended.set):
            assert ended.wait(30)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_opening_of_a_session_ends_without_connect_timeout(
    kind: str, make_alias: MakeAlias, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host takes the connection and never says a word: all other checkouts wait for this attempt."""
    server: PrivateServer = request.getfixturevalue(kind)
    module, engine = (mysql_backend, "mysql") if kind == "mariadb" else (postgresql_backend, "postgresql")
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 2)  # libpq takes 1 for 2
    with Proxy(server.host, server.port) as proxy:
        entry: dict[str, Any] = {"PORT": str(proxy.port), "POOL": {"outage_wait": 0}}
        alias = make_alias(f"poollife.backends.{engine}", server=server, **entry)
        with proxy.deaf(), pytest.raises(OperationalError):
            connections[alias].ensure_connection()
        connections[alias].close()
