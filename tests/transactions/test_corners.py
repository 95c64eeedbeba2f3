"""Corners of ``POOL["lazy_begin"]``: asynchronous exceptions, resets, calls of the driver, errors' texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from django.db import connections, transaction

from benchmarks.wiretap import Wiretap
from poollife import auto_close_db
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.support.counting import pool_of
from tests.transactions.cases import execute, outcome
from tests.transactions.conftest import MYSQLCLIENT, PSYCOPG, PYMYSQL, Pair, Way

pytestmark = pytest.mark.slow
INSERT = "INSERT INTO things (name) VALUES ('{}')"


class Struck(BaseException):
    """An asynchronous exception."""


@pytest.fixture
def postgresql_pair(postgresql: Any, make_alias: MakeAlias) -> Iterator[Pair]:
    pytest.importorskip("psycopg")
    made = Pair(PSYCOPG, postgresql, make_alias)
    made.reset()
    yield made
    for alias in made.both:
        connections[alias].close()


def same(pair: Pair, program: Callable[[str], Any]) -> None:
    found = []
    for alias in pair.both:
        with auto_close_db():
            found.append(program(alias))
            connections[alias].close()
    stock, lazy = found
    assert lazy == stock


def test_dirty_session_is_reset_and_kept(mariadb: Any, make_alias: MakeAlias) -> None:
    alias = Pair(MYSQLCLIENT, mariadb, make_alias).lazy
    connections[alias].close()
    opened = pool_of(alias).opened
    for _ in range(3):
        with auto_close_db():
            do(alias, "SET @left = 5")
    assert pool_of(alias).opened == opened


def test_statement_of_the_next_borrower_is_in_its_transaction(postgresql_pair: Pair) -> None:
    """An asynchronous exception comes after take_begin(): ``has_begin`` outlives the lease."""
    import psycopg

    class Own(psycopg.ClientCursor[Any]):
        """A cursor class of the site's own: nothing reads its statements."""

    alias = postgresql_pair.lazy

    def strike(self: Any) -> None:
        raise Struck

    with auto_close_db(), suppress(Struck), transaction.atomic(using=alias):
        connections[alias].ensure_connection()
        driver = connections[alias].connection
        cursor = driver.cursor()
        type(cursor)._reset = strike
        try:
            cursor.execute("SELECT 1")
        finally:
            del type(cursor)._reset
    with auto_close_db(), suppress(KeyError), transaction.atomic(using=alias):
        assert connections[alias].connection is driver
        cursor_class, driver.cursor_factory = driver.cursor_factory, Own
        driver.cursor().execute(INSERT.format("rolled back"))
        driver.cursor_factory = cursor_class
        raise KeyError
    assert ask(alias, "SELECT COUNT(*) FROM things WHERE name = 'rolled back'") == 0


def test_cursor_on_the_server_of_the_next_borrower(postgresql_pair: Pair) -> None:
    alias = postgresql_pair.lazy

    def strike(self: Any) -> None:
        raise Struck

    with auto_close_db(), suppress(Struck), transaction.atomic(using=alias):
        connections[alias].ensure_connection()
        cursor = connections[alias].connection.cursor()
        type(cursor)._reset = strike
        try:
            cursor.execute("SELECT 1")
        finally:
            del type(cursor)._reset
    with (
        auto_close_db(),
        transaction.atomic(using=alias),
        connections[alias].chunked_cursor() as chunked,
    ):
        chunked.execute("SELECT name FROM things")
        assert len(chunked.fetchall()) == 3


@pytest.mark.parametrize("way", [MYSQLCLIENT, PYMYSQL], ids=str)
def test_session_whose_autocommit_the_borrower_has_switched_off_is_kept(
    way: Way, mariadb: Any, make_alias: MakeAlias
) -> None:
    """Without lazy_begin ``begun`` is True here."""
    pair = Pair(way, mariadb, make_alias)
    kept = []

    def body() -> None:
        wrapper = connections[pair.lazy]
        wrapper.ensure_connection()
        driver = wrapper.connection
        driver.autocommit(False)
        with wrapper.cursor():
            pass
        kept.append(wrapper.connection is driver)
        do(pair.lazy, INSERT.format("rolled back"))
        with suppress(Exception):
            driver.rollback()
        wrapper.close()

    connections[pair.lazy].close()
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert kept == [True]
    assert ask(pair.lazy, "SELECT COUNT(*) FROM things") == 0


def strike_in_end(driver: Any, place: str) -> None:
    """Have an asynchronous exception come behind a call in ``_end()``."""
    method = getattr(driver, place)

    def call(*args: Any) -> Any:
        delattr(driver, place)
        method(*args)
        raise Struck

    setattr(driver, place, call)


@pytest.mark.parametrize("place", ["_query", "_next_result"])
def test_statement_after_an_interrupted_commit_is_in_a_transaction(
    place: str, mariadb: Any, make_alias: MakeAlias
) -> None:
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    wrapper = connections[pair.lazy]
    wrapper.set_autocommit(False)
    do(pair.lazy, INSERT.format("committed"))
    strike_in_end(wrapper.connection, place)
    with suppress(Struck):
        wrapper.commit()
    do(pair.lazy, INSERT.format("rolled back"))
    wrapper.rollback()
    wrapper.close()
    assert ask(pair.lazy, "SELECT GROUP_CONCAT(name) FROM things") == "committed"


def test_interrupted_commit_of_a_block_raises_the_interrupt(mariadb: Any, make_alias: MakeAlias) -> None:
    """A signal that comes while the C client waits for the COMMIT's answer is handled in this place."""
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    connections[pair.lazy].close()

    def block() -> None:
        with transaction.atomic(using=pair.lazy):
            do(pair.lazy, INSERT.format("committed"))
            strike_in_end(connections[pair.lazy].connection, "_query")

    with auto_close_db(), pytest.raises(Struck):
        block()


def test_interrupt_before_a_pair_is_sent_leaves_nothing_to_wait_for(
    mariadb: Any, make_alias: MakeAlias
) -> None:
    """PyMySQL would wait for an answer that no statement has asked for, until its time limit closes it."""
    pair = Pair(PYMYSQL, mariadb, make_alias)
    connections[pair.lazy].close()

    def strike(statement: Any) -> None:
        raise Struck

    with auto_close_db(), suppress(Struck), transaction.atomic(using=pair.lazy):
        connections[pair.lazy].ensure_connection()
        driver = connections[pair.lazy].connection
        driver._read_timeout = 1
        driver._query = strike
        try:
            do(pair.lazy, INSERT.format("never sent"))
        finally:
            del driver._query
            assert driver.open


def test_statement_of_the_drivers_own_is_in_the_transaction(mariadb: Any, make_alias: MakeAlias) -> None:
    """mysqlclient's ``send_query()`` returns before the answer has come, so its statement goes alone."""
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    wrapper = connections[pair.lazy]
    wrapper.set_autocommit(False)
    wrapper.connection.send_query(INSERT.format("rolled back").encode())
    wrapper.connection.read_query_result()
    wrapper.rollback()
    wrapper.close()
    assert ask(pair.lazy, "SELECT COUNT(*) FROM things") == 0


def test_autocommit_that_is_switched_off_at_run_time(mariadb: Any, make_alias: MakeAlias) -> None:
    """The session is initialised once more, and each of its statements is in a transaction."""
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    wrapper = connections[pair.lazy]
    wrapper.close()
    wrapper.settings_dict["OPTIONS"]["isolation_level"] = None  # then Django initialises by no statement
    wrapper.settings_dict["AUTOCOMMIT"] = True
    do(pair.lazy, "SELECT 1")
    wrapper.close()
    wrapper.settings_dict["AUTOCOMMIT"] = False
    for _ in range(3):
        with auto_close_db():
            assert ask(pair.lazy, "SELECT COUNT(*) FROM things") == 0
            do(pair.lazy, INSERT.format("rolled back"))


def test_cursor_that_sends_one_statement_only_sends_no_begin_with_it() -> None:
    """The server would refuse both, and the statement would be sent once more."""
    psycopg = pytest.importorskip("psycopg")
    from poollife.drivers.postgresql.psycopg3_cursors import LAZY_CURSORS, LazyCursor

    assert issubclass(LAZY_CURSORS[psycopg.ClientCursor], LazyCursor)
    assert not issubclass(LAZY_CURSORS[psycopg.Cursor], LazyCursor)


def test_canceled_statement_is_not_sent_again(postgresql_pair: Pair) -> None:
    """A cancel request may come while the server is at the BEGIN."""
    import psycopg

    alias, sent = postgresql_pair.lazy, []

    def send(query: Any, params: Any) -> None:
        sent.append(query)
        raise psycopg.errors.QueryCanceled

    with auto_close_db():
        connections[alias].ensure_connection()
        cursor = connections[alias].connection.cursor()
        cursor._first = (b"BEGIN",)
        with pytest.raises(psycopg.errors.QueryCanceled):
            cursor._send(send, "SELECT 1", None)
        cursor.close()
    assert sent == ["SELECT 1"]


RAISES = """
    CREATE OR REPLACE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
    CREATE OR REPLACE TRIGGER raises BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION raises()
"""
TRIGGERS = {
    "query of a trigger": r"EXECUTE E'SELECT 1\nFROM nowhere';",
    "text of a trigger": r"RAISE EXCEPTION E'bad file:\nLINE 3 of it' USING DETAIL = E'x\nLINE 7';",
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_error_of_a_trigger_has_the_same_text(name: str, postgresql_pair: Pair) -> None:
    def program(alias: str) -> Any:
        do(alias, RAISES.format(TRIGGERS[name]))
        with transaction.atomic(using=alias):
            found = outcome(alias, INSERT.format("x"))
            transaction.set_rollback(True, using=alias)
        return found

    same(postgresql_pair, program)


@pytest.mark.parametrize(
    "statement", ["SELECT CAST(%s AS int)", "INSERT INTO things (id, name) VALUES (1, %s)"]
)
def test_error_with_a_line_in_a_value_has_the_same_text(statement: str, postgresql_pair: Pair) -> None:
    def program(alias: str) -> Any:
        do(alias, r"DELETE FROM things", "INSERT INTO things (id, name) VALUES (9, E'a\nLINE 5: b')")
        with transaction.atomic(using=alias):
            found = outcome(alias, partial(execute, statement.replace("1,", "2,"), ["a\nLINE 5: b"]))
            transaction.set_rollback(True, using=alias)
        return found

    same(postgresql_pair, program)


@pytest.mark.parametrize("lazy_begin", [False, True])
def test_lease_with_autocommit_off_in_settings_takes_two_packets(
    lazy_begin: bool, mariadb: Any, make_alias: MakeAlias
) -> None:
    """Its sessions begin a transaction when they are opened."""
    with Wiretap(mariadb.host, mariadb.port) as tap:
        pool = {"pool_size": 1, "max_overflow": 0, "lazy_begin": lazy_begin}
        alias = make_alias(server=mariadb, PORT=str(tap.port), AUTOCOMMIT=False, POOL=pool)
        for _ in range(2):
            with tap.listening() as heard, auto_close_db():
                do(alias, "SELECT 1")
        connections[alias].close()
    assert len(heard) == 2
