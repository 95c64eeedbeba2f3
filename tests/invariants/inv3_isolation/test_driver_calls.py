"""Invariant 3, the driver's own calls: none gives a borrower another session, or leaves one changed.

docs/design.md has the table of them; each line is a case here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import MySQLdb
import pymysql
import pytest
from django.db import Error, connections
from MySQLdb.connections import Connection

from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.counting import pool_of
from tests.support.web_server import eventually

MYSQLCLIENT, PYMYSQL = "poollife.backends.mysql", "poollife.backends.mysql_pymysql"
DESIGN = ROOT / "docs" / "design.md"
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}
REFUSED = "does not reconnect"

pytestmark = [
    pytest.mark.filterwarnings("ignore:The reconnect parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'reconnect' argument:DeprecationWarning"),
]


class Case(NamedTuple):
    """A call of the driver's connection, and what becomes of its session when that comes back."""

    call: Callable[[Any], object]
    #: "kept", "reset" or "closed".
    session: str
    #: What the call raises with, if it does.
    error: str | None = None


def kill(connection: Any) -> None:
    """End the session as an administrator does: its borrower is not told."""
    connection.administrator(f"KILL {connection.thread_id()}")


def dead(call: Callable[[Any], object]) -> Callable[[Any], object]:
    """That call on a session that the server has ended."""

    def run(connection: Any) -> None:
        kill(connection)
        call(connection)

    return run


def send_and_read(connection: Any) -> None:
    connection.send_query("SET @left = 1")
    connection.read_query_result()


def send_and_be_refused(connection: Any) -> None:
    """The error is the whole answer."""
    connection.send_query("SELECT 1 FROM nowhere")
    connection.read_query_result()


def use_result(connection: Any) -> None:
    connection.query("SELECT 1")
    connection.result = connection.use_result()


def swap_socket(connection: Any) -> None:
    connection._sock, swap_socket.kept = socket.socket(), connection._sock  # type: ignore[attr-defined]


CLOSED_LATER = "2006|2013|1927"
#: By driver; the names are those of the table in docs/design.md.
CALLS: dict[str, dict[str, Case]] = {
    MYSQLCLIENT: {
        "ping()": Case(lambda connection: connection.ping(), "kept"),
        "ping(True)": Case(lambda connection: connection.ping(True), "kept"),
        "ping(True), dead": Case(dead(lambda connection: connection.ping(True)), "closed", REFUSED),
        "ping(), dead": Case(dead(lambda connection: connection.ping()), "closed", CLOSED_LATER),
        "Connection.ping(connection, True), dead": Case(
            dead(lambda connection: Connection.ping(connection, True)), "closed"
        ),
        "__init__()": Case(lambda connection: connection.__init__(host="127.0.0.1"), "kept", REFUSED),
        "change_user()": Case(
            lambda connection: connection.change_user("guest", "guest", "guests"), "closed"
        ),
        "set_server_option()": Case(lambda connection: connection.set_server_option(1), "closed"),
        "_get_native_connection()": Case(lambda connection: connection._get_native_connection(), "closed"),
        "send_query()": Case(lambda connection: connection.send_query("SELECT 1"), "closed"),
        "send_query(); read_query_result()": Case(send_and_read, "reset"),
        "send_query(); read_query_result(), refused": Case(send_and_be_refused, "kept", "1146"),
        "use_result()": Case(use_result, "closed"),
        "query()": Case(lambda connection: connection.query("SET @left = 1"), "reset"),
        "begin()": Case(lambda connection: connection.begin(), "reset"),
        "select_db()": Case(lambda connection: connection.select_db("mysql"), "reset"),
        "set_character_set()": Case(lambda connection: connection.set_character_set("latin1"), "reset"),
        "set_sql_mode()": Case(lambda connection: connection.set_sql_mode("ANSI"), "reset"),
        "autocommit()": Case(lambda connection: connection.autocommit(False), "kept"),
        "kill()": Case(lambda connection: connection.kill(connection.thread_id()), "closed", ".*"),
        "close()": Case(lambda connection: connection.close(), "closed"),
        "close(); query()": Case(
            lambda connection: (connection.close(), connection.query("SELECT 1")), "closed", CLOSED_LATER
        ),
    },
    PYMYSQL: {
        "ping()": Case(lambda connection: connection.ping(), "kept"),
        "ping(True)": Case(lambda connection: connection.ping(True), "kept"),
        "ping(True), dead": Case(dead(lambda connection: connection.ping(True)), "closed", REFUSED),
        # Up to PyMySQL 1.1 this is ping(True).
        "ping(), dead": Case(
            dead(lambda connection: connection.ping()), "closed", f"{CLOSED_LATER}|{REFUSED}"
        ),
        "connect()": Case(lambda connection: connection.connect(), "kept", REFUSED),
        "__init__()": Case(lambda connection: connection.__init__(host="127.0.0.1"), "kept", REFUSED),
        "_sock": Case(swap_socket, "closed"),
        "_force_close()": Case(lambda connection: connection._force_close(), "closed"),
        "query()": Case(lambda connection: connection.query("SET @left = 1"), "closed"),
        "begin()": Case(lambda connection: connection.begin(), "closed"),
        "select_db()": Case(lambda connection: connection.select_db("mysql"), "closed"),
        "set_character_set()": Case(lambda connection: connection.set_character_set("latin1"), "closed"),
        "autocommit()": Case(lambda connection: connection.autocommit(False), "kept"),
        "kill()": Case(lambda connection: connection.kill(connection.thread_id()), "closed", ".*"),
        "close()": Case(lambda connection: connection.close(), "closed"),
        "close(); query()": Case(
            lambda connection: (connection.close(), connection.query("SELECT 1")), "closed", ".*"
        ),
    },
}


def options(engine: str, **more: Any) -> dict[str, Any]:
    return {"OPTIONS": {**({"ssl_disabled": True} if engine == PYMYSQL else {}), **more}}


def session_of(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number: int = cursor.fetchone()[0]
    return number


@pytest.mark.parametrize(("engine", "name"), [(engine, name) for engine in CALLS for name in CALLS[engine]])
def test_a_call_of_the_driver_leaves_a_session_as_the_table_says(
    make_alias: MakeAlias, mariadb: MariaDB, engine: str, name: str
) -> None:
    case = CALLS[engine][name]
    mariadb.execute("CREATE DATABASE IF NOT EXISTS guests")
    mariadb.execute("CREATE OR REPLACE USER guest@'%' IDENTIFIED BY 'guest'")
    mariadb.execute("GRANT ALL ON guests.* TO guest@'%'")
    alias = make_alias(engine, POOL=ONE, **options(engine))
    session, connection = session_of(alias), connections[alias].connection

    def administrator(sql: str) -> None:
        mariadb.execute(sql)
        eventually("it is gone", lambda: session not in {each.id for each in mariadb.sessions()})

    connection.administrator = administrator
    if case.error:
        with pytest.raises((MySQLdb.Error, pymysql.Error), match=case.error):
            case.call(connection)
    else:
        case.call(connection)
    connections[alias].close()
    pool = pool_of(alias)
    assert case.session == ("closed" if pool.closed else "reset" if pool.resets else "kept")
    assert (session_of(alias) == session) is (case.session != "closed")
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT @left, @@tx_isolation, @@autocommit, DATABASE()")
        level = "READ-COMMITTED"
        assert cursor.fetchone() == (None, level, 1, connections[alias].settings_dict["NAME"])


@pytest.mark.parametrize("engine", CALLS)
def test_the_table_in_the_documentation_has_each_call(engine: str) -> None:
    rows = re.findall(r"^\| (.*?) \|", DESIGN.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {call for row in rows for call in re.findall(r"`([^`]+)`", row)}
    calls = {call for name in CALLS[engine] for call in re.sub(", (dead|refused)$", "", name).split("; ")}
    assert calls <= documented


#: Ways to have a driver reconnect.
RECONNECTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "only ping(True)": lambda file: {},
    "option file": lambda file: {"OPTIONS": {"read_default_file": str(file)}},
    "group in an option file": lambda file: {
        "OPTIONS": {"read_default_file": str(file), "read_default_group": "shop"}
    },
    "host": lambda file: {"HOST": "host=127.0.0.1;reconnect=1"},
}


@pytest.mark.parametrize(
    ("engine", "how"),
    [*((MYSQLCLIENT, how) for how in RECONNECTS), *((PYMYSQL, how) for how in RECONNECTS if how != "host")],
)
def test_a_session_with_a_lock_that_dies_is_never_followed_by_another(
    make_alias: MakeAlias, mariadb: MariaDB, tmp_path: Path, engine: str, how: str
) -> None:
    """Neither by a recipe's ping(True) nor by options that have the C client reconnect."""
    file = tmp_path / "my.cnf"
    options = f"user={mariadb.user}\npassword={mariadb.password}\nreconnect=1\n"
    file.write_text(f"[client]\n{options}[shop]\n{options}")
    alias = make_alias(engine, POOL=ONE, **RECONNECTS[how](file))
    connections[alias].ensure_connection()
    connections[alias].connection.ping(True)
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('lock', 0)")
        assert cursor.fetchone() == (1,)
    session = session_of(alias)
    mariadb.execute(f"KILL {session}")
    for _ in range(3):
        with pytest.raises(Error):
            session_of(alias)
    connections[alias].close()
    assert session_of(alias) != session


def test_an_option_file_costs_no_warning(
    make_alias: MakeAlias, mariadb: MariaDB, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """mysqlclient warns of each ping with a parameter, and the only way to switch reconnecting off is one."""
    file = tmp_path / "my.cnf"
    file.write_text(f"[client]\npassword={mariadb.password}\n")
    alias = make_alias(POOL=ONE, **options(MYSQLCLIENT, read_default_file=str(file)))
    session_of(alias)
    assert not [each for each in recwarn if "reconnect" in str(each.message)]
