"""Invariant 3, marks: what a borrower puts on the driver's connection goes with what it stands for."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import MySQLdb
import pymysql
import pytest
from django.db import connections
from django.db.backends.signals import connection_created

from poollife.drivers.mysql.connection import MySQLConnection
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import Questions, pool_of
from tests.support.orm import traffic

MYSQLCLIENT, PYMYSQL = "poollife.backends.mysql", "poollife.backends.mysql_pymysql"
SQLITE = "poollife.backends.sqlite3"
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}
ZONE = "+05:00"


@pytest.fixture(params=[MYSQLCLIENT, PYMYSQL])
def alias(request: pytest.FixtureRequest, make_alias: MakeAlias) -> str:
    """A pool of one connection: whatever is left on it, the next borrower gets."""
    return make_alias(request.param, POOL=ONE, **options(request.param))


def options(engine: str) -> dict[str, Any]:
    return {"OPTIONS": {"ssl_disabled": True}} if engine == PYMYSQL else {}


@pytest.fixture
def mysqlclient_alias(make_alias: MakeAlias) -> str:
    """The same, with the driver that can reset a session."""
    return make_alias(POOL=ONE)


def ask(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def raw(alias: str) -> Any:
    """The driver's connection."""
    connections[alias].ensure_connection()
    return connections[alias].connection


def module_of(alias: str) -> Any:
    """The driver's module."""
    wrapper: Any = connections[alias]
    return wrapper.Database


def give_back(alias: str) -> None:
    connections[alias].close()


def zone(alias: str) -> Any:
    return ask(alias, "SELECT @@session.time_zone")


# --- a mark and what it stands for --------------------------------------------------------------------------


def set_up_once(connection: Any, **_: Any) -> None:
    """Set the session's time zone, as user code does that was written for stock Django."""
    connection.ensure_connection()
    if not getattr(connection.connection, "_ready", False):
        ask(connection.alias, f"SET time_zone = '{ZONE}'")
        connection.connection._ready = True


def test_a_borrowers_mark_goes_with_its_setting(alias: str) -> None:
    zones = []
    for _ in range(4):
        set_up_once(connections[alias])
        zones.append(zone(alias))
        give_back(alias)
    assert zones == [ZONE] * 4


def test_a_receivers_mark_goes_with_what_a_reset_takes(mysqlclient_alias: str) -> None:
    """It stays on the connection as long as the session has what it stands for."""
    connection_created.connect(set_up_once)
    try:
        for resets in range(3):
            for _ in range(2):
                assert (zone(mysqlclient_alias), pool_of(mysqlclient_alias).resets) == (ZONE, resets)
                assert raw(mysqlclient_alias)._ready
                give_back(mysqlclient_alias)
            ask(mysqlclient_alias, "SET @left = 1")
            give_back(mysqlclient_alias)
    finally:
        connection_created.disconnect(set_up_once)
    assert pool_of(mysqlclient_alias).opened == 1


def test_a_mark_in_a_weak_set_costs_the_session_its_reset(mysqlclient_alias: str) -> None:
    """A WeakSet has the mark, where nothing can take it away: only another connection is without it."""
    ready: weakref.WeakSet[Any] = weakref.WeakSet()
    zones = []
    for _ in range(3):
        if raw(mysqlclient_alias) not in ready:
            ask(mysqlclient_alias, f"SET time_zone = '{ZONE}'")
            ready.add(raw(mysqlclient_alias))
        zones.append(zone(mysqlclient_alias))
        give_back(mysqlclient_alias)
    assert zones == [ZONE] * 3
    assert pool_of(mysqlclient_alias).closed == 3


def test_a_mark_in_a_weak_set_costs_a_clean_session_nothing(alias: str) -> None:
    ready: weakref.WeakSet[Any] = weakref.WeakSet()
    for _ in range(3):
        ready.add(raw(alias))
        ask(alias, "SELECT 1")
        give_back(alias)
    assert (len(ready), pool_of(alias).closed) == (1, 0)


# --- what is on the object ----------------------------------------------------------------------------------


def refuse(*_: Any) -> None:
    raise RuntimeError("a borrower's own")


def swap(connection: Any) -> None:
    """Leave as many attributes as there were."""
    vars(connection).pop(next(iter(connection.marks_at_rest)))
    connection._ready = True


MARKS: dict[str, Callable[[Any], object]] = {
    "attribute": lambda connection: setattr(connection, "_ready", True),
    "errorhandler": lambda connection: setattr(connection, "errorhandler", refuse),
    "method": lambda connection: setattr(connection, "commit", refuse),
    "messages": lambda connection: setattr(connection, "messages", ["ready"]),
    "a driver's own": lambda connection: setattr(connection, "host", "elsewhere"),
    "in place of a driver's own": swap,
}


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_a_mark_is_gone_at_the_next_checkout(alias: str, kind: str, dirty: bool) -> None:
    give_back(alias)
    before = {**vars(raw(alias))}
    MARKS[kind](raw(alias))
    if dirty:
        ask(alias, "SET @left = 1")
    give_back(alias)
    after = vars(raw(alias))
    changing = type(raw(alias)).CHANGING
    assert after.keys() == before.keys()
    assert {name for name in after.keys() - changing if after[name] != before[name]} <= {
        "server_thread_id",
        "salt",
    }
    assert pool_of(alias).closed == (dirty and module_of(alias) is pymysql)
    ask(alias, "SELECT 1")
    raw(alias).commit()


def test_an_equal_object_of_a_borrower_does_not_take_the_place_of_a_mark(alias: str) -> None:
    """Its borrower may have kept it, and change it later. An equal text can't be told apart."""
    marks: list[Any] = []

    def set_up(connection: Any, **_: Any) -> None:
        marks.append([])
        connection.connection.tags = marks[-1]

    connection_created.connect(set_up)
    try:
        assert raw(alias).tags is marks[-1]
        raw(alias).tags = []
        raw(alias).host = "".join([*raw(alias).host])
        give_back(alias)
        assert raw(alias).tags is marks[-1]
        give_back(alias)
    finally:
        connection_created.disconnect(set_up)
    assert pool_of(alias).opened == 1


def test_messages_of_one_borrower_do_not_reach_the_next(mysqlclient_alias: str) -> None:
    """The DB-API's list is the driver's own; what is in it is not."""
    raw(mysqlclient_alias).messages.append("ready")
    give_back(mysqlclient_alias)
    assert raw(mysqlclient_alias).messages == []


def test_a_mark_without_dirt_costs_nothing(alias: str, mariadb: MariaDB) -> None:
    raw(alias)._ready = True
    with Questions(mariadb) as asked:
        give_back(alias)
        assert not hasattr(raw(alias), "_ready")
    assert (asked.count, pool_of(alias).opened) == (0, 1)


def test_a_mark_on_a_handle_of_sqlite_goes(make_alias: MakeAlias, tmp_path: Path) -> None:
    alias = make_alias(SQLITE, NAME=str(tmp_path / "db.sqlite3"), POOL=ONE)
    handle = raw(alias)
    handle._ready = True
    give_back(alias)
    assert raw(alias) is handle
    assert not hasattr(handle, "_ready")


class CountingConnection(sqlite3.Connection):
    """A connection class of a site's, which keeps something of its own."""

    cursors_opened = 0

    def cursor(self, *args: Any) -> Any:
        self.cursors_opened += 1
        return super().cursor(*args)


def test_the_attributes_of_a_sites_own_connection_class_stay(make_alias: MakeAlias, tmp_path: Path) -> None:
    options = {"factory": CountingConnection}
    alias = make_alias(SQLITE, NAME=str(tmp_path / "db.sqlite3"), POOL=ONE, OPTIONS=options)
    opened = []
    for _ in range(3):
        ask(alias, "SELECT 1")
        opened.append(raw(alias).cursors_opened)
        give_back(alias)
    assert opened == [opened[0], opened[0] + 1, opened[0] + 2]


# --- what stays ---------------------------------------------------------------------------------------------


def traced(connect: Callable[..., Any]) -> Callable[..., Any]:
    """The driver's ``connect()`` as an APM tool wraps it, which marks what it returns."""

    def call(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        connection.apm = {"spans": 0}
        connection.apm_state = "new"
        return connection

    return call


@pytest.fixture
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MySQLdb, "connect", traced(MySQLdb.connect))
    monkeypatch.setattr(pymysql, "connect", traced(pymysql.connect))


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_the_mark_of_a_tool_that_wraps_connect_stays(mysqlclient_alias: str, dirty: bool) -> None:
    """It belongs to the connection, not to a session's state; what a borrower makes of it does not stay."""
    apm = raw(mysqlclient_alias).apm
    for _ in range(3):
        assert raw(mysqlclient_alias).apm is apm
        assert raw(mysqlclient_alias).apm_state == "new"
        raw(mysqlclient_alias).apm_state = "a borrower's"
        if dirty:
            ask(mysqlclient_alias, "SET @left = 1")
        give_back(mysqlclient_alias)
    assert (pool_of(mysqlclient_alias).closed, pool_of(mysqlclient_alias).resets) == (0, 3 if dirty else 0)


#: What a driver itself assigns to while it works, or what is looked at otherwise.
DRIVERS_OWN = {
    MySQLdb: {"cursorclass", "encoders", "encoding"},
    pymysql: {
        *("cursorclass", "decoders", "encoders", "encoding", "use_unicode", "_sock", "_closed"),
        *("_affected_rows", "_current_timeout", "_next_seq_id", "_result", "_rfile"),
        *("autocommit_mode", "server_status"),
    },
}


@pytest.mark.usefixtures("_traced")
def test_marks_are_of_tools_and_borrowers_only(alias: str) -> None:
    """All that poollife itself keeps on a connection is known by name: it is never taken for a mark."""
    connections[alias].ensure_connection()
    own = vars(raw(alias)).keys()
    with module_of(alias).connect(**connections[alias].get_connection_params()) as connection:
        given = vars(connection).keys()
    changing = type(raw(alias)).CHANGING
    assert own - given <= changing
    # Not every version has all of them.
    assert given & changing <= DRIVERS_OWN[module_of(alias)]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All connections whose marks were looked at one by one."""
    found: list[Any] = []
    drop = MySQLConnection.drop_marks

    def note(connection: MySQLConnection, marks: dict[str, Any]) -> None:
        found.append(connection)
        drop(connection, marks)

    monkeypatch.setattr(MySQLConnection, "drop_marks", note)
    return found


def test_ordinary_work_changes_no_attribute_that_counts(make_alias: MakeAlias, dropped: list[Any]) -> None:
    """Otherwise each return would take the long way."""
    for engine in MYSQLCLIENT, PYMYSQL:
        alias = make_alias(engine, POOL=ONE, **options(engine))
        for _ in traffic(alias):
            dropped.clear()
            give_back(alias)
            assert not dropped
    raw(alias)._ready = True
    give_back(alias)
    assert dropped
