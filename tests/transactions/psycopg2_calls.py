"""Calls of psycopg2's own in a transaction: with ``lazy_begin`` they do what they do without it.

``test_psycopg2.py`` runs these tests in a process without psycopg.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections, transaction
from psycopg2 import extensions

from poollife import auto_close_db
from servers.packets import PacketProxy
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.transactions.cases import INSERT, outcome, run
from tests.transactions.conftest import PSYCOPG2, Pair

Connection: Any = extensions.connection
Cursor: Any = extensions.cursor

#: The calls of a connection that depend on whether a transaction is open, or end it.
CALLS: dict[str, Callable[[Any], Any]] = {
    "autocommit": lambda driver: setattr(driver, "autocommit", True),
    "isolation level": lambda driver: setattr(driver, "isolation_level", "SERIALIZABLE"),
    "read only": lambda driver: setattr(driver, "readonly", True),
    "deferrable": lambda driver: setattr(driver, "deferrable", True),
    "set_session": lambda driver: driver.set_session(isolation_level="REPEATABLE READ", autocommit=False),
    "set_isolation_level": lambda driver: driver.set_isolation_level(extensions.ISOLATION_LEVEL_SERIALIZABLE),
    "set_client_encoding": lambda driver: driver.set_client_encoding("LATIN1"),
    "reset": lambda driver: driver.reset(),
    "tpc_begin": lambda driver: driver.tpc_begin("name"),
    "lobject": lambda driver: driver.lobject(0, "w").write("text"),
    "commit": lambda driver: driver.commit(),
    "rollback": lambda driver: driver.rollback(),
    "with": lambda driver: driver.__enter__().__exit__(None, None, None),
}


@pytest.fixture
def psycopg2_pair(postgresql: Any, make_alias: MakeAlias) -> Iterator[Pair]:
    made = Pair(PSYCOPG2, postgresql, make_alias)
    yield made
    for alias in made.both:
        connections[alias].close()


def state(driver: Any) -> Any:
    settings = driver.isolation_level, driver.readonly, driver.deferrable
    return driver.status, driver.get_transaction_status(), driver.autocommit, driver.encoding, settings


def report(alias: str, call: Callable[[Any], Any], begun: bool) -> list[Any]:
    """Return all that can be seen of a transaction with a call in it, and what it leaves."""
    found: list[Any] = []
    with auto_close_db():
        transaction.set_autocommit(False, using=alias)
        driver = connections[alias].connection
        if begun:
            run(alias, INSERT)
        found += [state(driver), outcome(alias, lambda _: call(driver)), state(driver)]
        if driver.status != extensions.STATUS_PREPARED:
            found.append(outcome(alias, "SHOW transaction_isolation"))
        found.append(state(driver))
        connections[alias].close()
    with auto_close_db():
        found += [ask(alias, "SELECT COUNT(*) FROM things"), ask(alias, "SHOW transaction_isolation")]
        connections[alias].close()
    return found


@pytest.mark.parametrize("begun", [False, True], ids=["before a statement", "after a statement"])
def test_calls_of_the_driver(begun: bool, psycopg2_pair: Pair) -> None:
    differing = {}
    for name, call in CALLS.items():
        psycopg2_pair.reset()
        for alias in psycopg2_pair.both:
            connections[alias].close()
        stock, lazy = (report(alias, call, begun) for alias in psycopg2_pair.both)
        if stock != lazy:
            differing[name] = (stock, lazy)
    assert differing == {}


#: Arguments of execute() and executemany(): by position and by name, with percent signs, and wrong ones.
ARGUMENTS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("execute", ("SELECT '%'",), {}),
    ("execute", ("SELECT '%%'", None), {}),
    ("execute", ("SELECT '%%'", ()), {}),
    ("execute", ("SELECT '%%'", []), {}),
    ("execute", ("SELECT '%%'", {}), {}),
    ("execute", ("SELECT '%'", ()), {}),
    ("execute", ("SELECT %s",), {}),
    ("execute", ("SELECT %s", ()), {}),
    ("execute", ("SELECT %s || '%%'", ("a",)), {}),
    ("execute", (b"SELECT %s", ["a"]), {}),
    ("execute", ("SELECT %(a)s || '%%'", {"a": "b", "c": 1}), {}),
    ("execute", ("SELECT %(a)s", {}), {}),
    ("execute", ("SELECT 1", (1,)), {}),
    ("execute", ("SELECT %s", "a"), {}),
    ("execute", ("SELECT %s", 1), {}),
    ("execute", ("SELECT set_config('a.b', %s, false)", ["%"]), {}),
    ("execute", ("SELECT %s",), {"vars": ["a"]}),
    ("execute", (), {"query": "SELECT '%%'", "vars": ()}),
    ("execute", ("SELECT 1",), {"params": None}),
    ("execute", ("",), {}),
    ("execute", (None,), {}),
    ("execute", (), {}),
    ("executemany", ("SELECT %s", [(1,), (2,)]), {}),
    ("executemany", (), {"query": "SELECT %s", "vars_list": [(1,), (2,)]}),
    ("executemany", ("SELECT %s",), {}),
]


def result_of(alias: str, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return what a call leaves as the first of a transaction, or its error."""
    with auto_close_db(), transaction.atomic(using=alias):
        transaction.set_rollback(True, using=alias)
        connections[alias].ensure_connection()
        with connections[alias].connection.cursor() as cursor:
            try:
                getattr(cursor, method)(*args, **named)
            except Exception as error:
                # psycopg2 names its function, and Python the class, too.
                return type(error).__name__, isinstance(error, TypeError) or str(error)
            # executemany() leaves no rows.
            rows = cursor.fetchall() if cursor.description else None
            return list(map(repr, rows)) if rows else rows, cursor.query, cursor.rowcount


def test_arguments_of_a_statement_arrive_as_with_psycopg2_alone(
    psycopg2_pair: Pair, make_alias: MakeAlias, postgresql: Any
) -> None:
    plain = make_alias("poollife.backends.postgresql", server=postgresql)
    differing = []
    for call in ARGUMENTS:
        found = [result_of(alias, *call) for alias in (psycopg2_pair.stock, plain, psycopg2_pair.lazy)]
        if found[1:] != found[:1] * 2:
            differing.append((call, found))
    connections[plain].close()
    assert differing == []


def test_isolation_level_of_the_settings_is_in_the_begin(postgresql: Any, make_alias: MakeAlias) -> None:
    """psycopg2 by itself sends one packet more for each transaction, which sets the session's default."""
    with PacketProxy(postgresql.host, postgresql.port) as proxy:
        options = {"isolation_level": extensions.ISOLATION_LEVEL_SERIALIZABLE}
        pair = Pair(PSYCOPG2, postgresql, make_alias, PORT=str(proxy.port), more_options=options)
        found = {}
        for alias in pair.both:
            connections[alias].close()
            with auto_close_db():
                do(alias, "SELECT 1")
                with proxy.counting() as count, transaction.atomic(using=alias):
                    assert ask(alias, "SHOW transaction_isolation") == "serializable"
            found[alias] = count.texts
            connections[alias].close()
    assert found[pair.lazy] == ["BEGIN ISOLATION LEVEL SERIALIZABLE;\nSHOW transaction_isolation", "COMMIT"]
    assert len(found[pair.stock]) == 4


def test_named_cursor_of_a_class_of_the_sites_own(psycopg2_pair: Pair) -> None:
    class Own(Cursor):  # type: ignore[misc]
        """A cursor class that may send another statement than it was given."""

    found = []
    for alias in psycopg2_pair.both:
        with auto_close_db(), transaction.atomic(using=alias):
            do(alias, INSERT)
            with connections[alias].connection.cursor("own", cursor_factory=Own) as cursor:
                cursor.execute("SELECT name FROM things")
                found.append(cursor.fetchall())
            transaction.set_rollback(True, using=alias)
    assert found == [[("four",)], [("four",)]]


def test_named_cursor_ends_with_its_transaction(psycopg2_pair: Pair) -> None:
    for alias in psycopg2_pair.both:
        with auto_close_db():
            transaction.set_autocommit(False, using=alias)
            cursor = connections[alias].connection.cursor("ends")
            cursor.execute("SELECT generate_series(1, 5)")
            cursor.fetchone()
            connections[alias].commit()
            with pytest.raises(cursor.connection.Error):
                cursor.fetchone()
            transaction.set_autocommit(True, using=alias)


def test_query_is_that_of_the_last_call(psycopg2_pair: Pair) -> None:
    with auto_close_db(), transaction.atomic(using=psycopg2_pair.lazy):
        cursor = connections[psycopg2_pair.lazy].connection.cursor()
        cursor.execute("SELECT %s", [1])
        queries = [cursor.query]
        cursor.callproc("upper", ["a"])
        queries.append(cursor.query)
        cursor.close()
    assert queries == [b"SELECT 1", b"SELECT * FROM upper('a')"]


@pytest.mark.parametrize("name", ["lobject", "read only", "reset"])
def test_call_in_a_forked_child_sends_nothing_on_its_parents_session(name: str, psycopg2_pair: Pair) -> None:
    """A SAVEPOINT waits, which the call would send."""
    alias = psycopg2_pair.lazy
    with auto_close_db(), transaction.atomic(using=alias), transaction.atomic(using=alias):
        driver = connections[alias].connection
        assert driver.savepoints
        child = os.fork()
        if child == 0:
            try:
                CALLS[name](driver)
            except driver.InterfaceError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert driver.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        assert ask(alias, "SELECT 1") == 1


class Struck(BaseException):
    """An asynchronous exception."""


def test_block_that_is_interrupted_behind_its_begin_is_rolled_back(psycopg2_pair: Pair) -> None:
    alias = psycopg2_pair.lazy
    with auto_close_db():
        connections[alias].ensure_connection()
        driver = connections[alias].connection

        def strike() -> None:
            del driver.note_begin
            raise Struck

        driver.note_begin = strike
        with suppress(Struck), transaction.atomic(using=alias):
            do(alias, INSERT)
        assert driver.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        do(alias, INSERT.replace("four", "five"))
    assert ask(alias, "SELECT name FROM things") == "five"
