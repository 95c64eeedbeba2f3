"""Invariant 3, session state: nothing that one borrower has set reaches the next."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import MySQLdb
import pytest
from django.db import connections, transaction
from django.db.backends.mysql.base import django_conversions
from django.db.backends.signals import connection_created
from django.db.utils import DatabaseError, InterfaceError, OperationalError
from MySQLdb.cursors import Cursor, SSCursor

from poollife import pool_stats
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import Questions, pool_of

ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}
STOCK = "django.db.backends.mysql"
TABLES = """
CREATE TABLE {name}.log (n INT)
CREATE TABLE {name}.other (n INT)
CREATE TABLE {name}.watched (n INT)
CREATE TABLE {name}.numbered (id INT AUTO_INCREMENT PRIMARY KEY, n INT)
CREATE SEQUENCE {name}.sequence
CREATE PROCEDURE {name}.sets() SET @left = 'procedure'
CREATE FUNCTION {name}.sets() RETURNS INT BEGIN SET @left = 'function'; RETURN 1; END
CREATE TRIGGER {name}.trigger_ BEFORE INSERT ON {name}.watched FOR EACH ROW SET @left = 'trigger'
CREATE VIEW {name}.view_ AS SELECT {name}.sets() AS n
CREATE TABLE {name}.defaulted (n INT DEFAULT (@left := 1))
"""


@pytest.fixture
def name(new_database: Callable[[], str], mariadb: MariaDB) -> str:
    """A database in which statements find what they need."""
    name = new_database()
    for statement in TABLES.strip().splitlines():
        mariadb.execute(statement.format(name=name))
    mariadb.execute(f"INSERT INTO {name}.log VALUES (1), (2), (3)")
    mariadb.execute("CREATE OR REPLACE ROLE clerk")
    mariadb.execute(f"GRANT clerk TO {mariadb.user}@'%'")
    return name


@pytest.fixture
def alias(make_alias: MakeAlias, name: str) -> str:
    """A pool of one connection: whatever is left on it, the next borrower gets."""
    return make_alias(NAME=name, POOL=ONE)


def ask(alias: str, sql: str, parameters: Any = None) -> Any:
    """The first column of the first row, or the server's error."""
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql, parameters)
            row = cursor.fetchone() if cursor.description else None
            while connections[alias].vendor == "mysql" and cursor.nextset():
                pass
            return row and row[0]
    except DatabaseError as error:
        return error.args[0]


def raw(alias: str) -> Any:
    """The driver's connection."""
    connections[alias].ensure_connection()
    return connections[alias].connection


def give_back(alias: str) -> None:
    connections[alias].close()


# --- the leak table -----------------------------------------------------------------------------------------


def sql(*statements: str) -> Callable[[str], object]:
    def run(alias: str) -> None:
        for statement in statements:
            ask(alias, statement)

    return run


def unread(alias: str) -> object:
    cursor = raw(alias).cursor(SSCursor)
    cursor.execute("SELECT n FROM log")
    cursor.fetchone()
    return cursor


def dropped(alias: str) -> None:
    unread(alias)


def lock_is_free(alias: str) -> Any:
    return ask(alias, "SELECT IS_FREE_LOCK('left')")


def variable(name: str) -> Callable[[str], Any]:
    return lambda alias: ask(alias, f"SELECT @@{name}")


def answer(statement: str) -> Callable[[str], Any]:
    return lambda alias: ask(alias, statement)


def hidden(statement: str) -> Callable[[str], Any]:
    """Ask so that the question is not seen, which is refused otherwise: see test_diagnostic_functions.py."""
    return answer(f"EXECUTE IMMEDIATE '{statement}'")


LEFT = answer("SELECT @left")
#: How something is left, and how the next borrower would come across it.
STATE: dict[str, tuple[Callable[[str], object], Callable[[str], Any]]] = {
    "variable": (sql("SET @left = 1"), LEFT),
    "variable in SELECT": (sql("SELECT @left := 1"), LEFT),
    "variable in UPDATE": (sql("UPDATE log SET n = (@left := n)"), LEFT),
    "SELECT INTO variable": (sql("SELECT 1 INTO @left"), LEFT),
    "variable behind a SELECT": (sql("SELECT 1; SET @left = 1"), LEFT),
    "variable in executable comment": (sql("SELECT 1 /*!, @left := 1 */"), LEFT),
    "variable in MariaDB's comment": (sql("SELECT 1 /*M!, @left := 1 */"), LEFT),
    "variable from procedure": (sql("CALL sets()"), LEFT),
    "variable from function": (sql("SELECT sets()"), LEFT),
    "variable by EXECUTE IMMEDIATE": (sql("EXECUTE IMMEDIATE 'SET @left = 1'"), LEFT),
    "callproc": (lambda alias: raw(alias).cursor().callproc("sets"), LEFT),
    "raw query": (lambda alias: raw(alias).query("SET @left = 1"), LEFT),
    "sql_mode": (sql("SET sql_mode = 'ANSI_QUOTES'"), variable("sql_mode")),
    "time_zone": (sql("SET time_zone = '+05:00'"), variable("time_zone")),
    "isolation level": (
        sql("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        variable("tx_isolation"),
    ),
    "READ ONLY": (sql("SET SESSION TRANSACTION READ ONLY"), answer("INSERT INTO log VALUES (4)")),
    "next transaction READ ONLY": (sql("SET TRANSACTION READ ONLY"), answer("INSERT INTO log VALUES (4)")),
    "foreign_key_checks": (sql("SET foreign_key_checks = 0"), variable("foreign_key_checks")),
    "max_statement_time": (sql("SET max_statement_time = 60"), variable("max_statement_time")),
    "wait_timeout": (sql("SET wait_timeout = 60"), variable("wait_timeout")),
    "timestamp": (sql("SET timestamp = 1"), answer("SELECT NOW() > '1980-01-01'")),
    "autocommit by SQL": (sql("SET autocommit = 0"), variable("autocommit")),
    "autocommit by Django": (lambda alias: connections[alias].set_autocommit(False), variable("autocommit")),
    "autocommit by the driver": (lambda alias: raw(alias).autocommit(False), variable("autocommit")),
    "transaction": (sql("BEGIN"), variable("in_transaction")),
    "XA": (sql("XA START 'left'"), answer("XA START 'other'")),
    "GET_LOCK": (sql("SELECT GET_LOCK('left', 0)"), lock_is_free),
    "LOCK TABLES": (sql("LOCK TABLES log READ"), answer("SELECT COUNT(*) FROM other")),
    "global read lock": (sql("FLUSH TABLES WITH READ LOCK"), answer("INSERT INTO log VALUES (4)")),
    "temporary table": (
        sql("CREATE TEMPORARY TABLE log_today (n INT)"),
        answer("SELECT COUNT(*) FROM log_today"),
    ),
    "temporary table over a real one": (
        sql("CREATE TEMPORARY TABLE log (n INT)"),
        answer("SELECT COUNT(*) FROM log"),
    ),
    "USE": (sql("USE mysql"), answer("SELECT DATABASE()")),
    "select_db": (lambda alias: raw(alias).select_db("mysql"), answer("SELECT DATABASE()")),
    "character_set_results": (sql("SET character_set_results = latin1"), variable("character_set_results")),
    "SET NAMES": (sql("SET NAMES latin1"), variable("character_set_client")),
    "set_character_set": (
        lambda alias: raw(alias).set_character_set("latin1"),
        lambda alias: (ask(alias, "SELECT @@character_set_client"), raw(alias).encoding),
    ),
    "multi statements": (
        lambda alias: raw(alias).set_server_option(1),  # MYSQL_OPTION_MULTI_STATEMENTS_OFF
        answer("SELECT 1; SELECT 2"),
    ),
    "PREPARE": (sql("PREPARE it FROM 'SELECT 666'"), answer("EXECUTE it")),
    "HANDLER": (sql("HANDLER log OPEN"), answer("HANDLER log READ FIRST")),
    "LAST_INSERT_ID(expr)": (sql("SELECT LAST_INSERT_ID(77)"), hidden("SELECT LAST_INSERT_ID()")),
    "SQL_CALC_FOUND_ROWS": (
        sql("SELECT SQL_CALC_FOUND_ROWS n FROM log LIMIT 1"),
        hidden("SELECT FOUND_ROWS() > 1"),
    ),
    "sequence": (sql("SELECT NEXT VALUE FOR sequence"), hidden("SELECT LASTVAL(sequence)")),
    "SET ROLE": (sql("SET ROLE clerk"), answer("SELECT CURRENT_ROLE()")),
    "another user": (
        lambda alias: raw(alias).change_user("guest", "guest", "guests"),
        answer("SELECT CURRENT_USER()"),
    ),
    "unread cursor, kept": (unread, answer("SELECT 1")),
}


@pytest.fixture
def guest(mariadb: MariaDB) -> None:
    """Another user, whom somebody may change to."""
    mariadb.execute("CREATE DATABASE IF NOT EXISTS guests")
    mariadb.execute("CREATE OR REPLACE USER guest@'%' IDENTIFIED BY 'guest'")
    mariadb.execute("GRANT ALL ON guests.* TO guest@'%'")


def left_by(work: Callable[[str], object], look: Callable[[str], Any], alias: str) -> tuple[Any, Any, Any]:
    """What a new session answers, the one in which that was done, and the next borrower's.

    Each looks only once: to look may itself change something.
    """
    new = look(alias)
    raw(alias).close()
    give_back(alias)
    kept = work(alias)
    changed = look(alias)
    give_back(alias)
    raw(alias).close()
    give_back(alias)
    kept = work(alias)
    give_back(alias)
    next_ = look(alias)
    del kept
    raw(alias).close()
    give_back(alias)
    return new, changed, next_


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("kind", STATE)
def test_nothing_is_left_to_the_next_borrower(alias: str, mariadb: MariaDB, kind: str) -> None:
    new, changed, next_ = left_by(*STATE[kind], alias)
    assert changed != new  # or this test would prove nothing
    assert next_ == new


def test_there_are_enough_kinds() -> None:
    assert len(STATE) >= 40


def crossing(alias: str) -> set[str]:
    """The kinds that reach the next borrower."""
    found = set()
    for kind, (work, look) in STATE.items():
        new, _, next_ = left_by(work, look, alias)
        if next_ != new:
            found.add(kind)
    return found


#: Even by "rollback": a transaction, and what costs the session.
ALWAYS_ENDED = {
    "next transaction READ ONLY",
    "autocommit by SQL",
    "autocommit by Django",
    "autocommit by the driver",
    "transaction",
    "XA",
    "multi statements",
    "another user",
    "unread cursor, kept",
}


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("reset", "expected"), [("auto", set()), ("always", set()), ("rollback", STATE.keys() - ALWAYS_ENDED)]
)
def test_what_each_kind_of_reset_lets_through(
    make_alias: MakeAlias, name: str, reset: str, expected: set[str]
) -> None:
    assert crossing(make_alias(NAME=name, POOL={**ONE, "reset": reset})) == expected


#: The statement's text does not show it.
HIDDEN = {
    "trigger": sql("INSERT INTO watched VALUES (1)"),
    "function in a view": sql("SELECT * FROM view_"),
    "default of a column": sql("INSERT INTO defaulted () VALUES ()"),
}


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.parametrize(("reset", "left"), [("always", None), ("auto", "something")])
def test_what_no_text_shows_needs_always(
    make_alias: MakeAlias, name: str, kind: str, reset: str, left: str | None
) -> None:
    """docs/settings.md says so."""
    alias = make_alias(NAME=name, POOL={**ONE, "reset": reset})
    HIDDEN[kind](alias)
    give_back(alias)
    assert bool(ask(alias, "SELECT @left")) is bool(left)


def test_a_dropped_cursor_leaves_nothing(alias: str) -> None:
    """The driver reads the rest when it is freed."""
    dropped(alias)
    give_back(alias)
    assert [ask(alias, f"SELECT {number}") for number in range(3)] == [0, 1, 2]


def test_a_stale_cursor_does_not_write_into_the_next_transaction(
    alias: str, mariadb: MariaDB, name: str
) -> None:
    stale = connections[alias].cursor()
    stale.execute("SELECT 1")
    give_back(alias)

    def work() -> None:
        with transaction.atomic(using=alias):
            ask(alias, "INSERT INTO other VALUES (666)")
            with pytest.raises(InterfaceError, match="went back to the pool"):
                stale.execute("COMMIT")
            raise RuntimeError("roll back")

    with pytest.raises(RuntimeError, match="roll back"):
        work()
    assert mariadb.execute(f"SELECT * FROM {name}.other") == []
    assert pool_of(alias).resets == 0


def test_a_prepared_distributed_transaction_costs_the_session(alias: str, mariadb: MariaDB) -> None:
    """After a change of user MariaDB would fail each INSERT."""
    sql("XA START 'left'", "INSERT INTO log VALUES (4)", "XA END 'left'", "XA PREPARE 'left'")(alias)
    give_back(alias)
    assert pool_of(alias).closed == 1
    mariadb.execute("XA ROLLBACK 'left'")
    assert ask(alias, "INSERT INTO log VALUES (5) RETURNING n") == 5


def test_the_role_that_a_session_begins_with(make_alias: MakeAlias, name: str, mariadb: MariaDB) -> None:
    mariadb.execute("CREATE OR REPLACE USER clerks@'%' IDENTIFIED BY 'clerks'")
    mariadb.execute("GRANT ALL ON *.* TO clerks@'%'")
    mariadb.execute("GRANT clerk TO clerks@'%'")
    mariadb.execute("SET DEFAULT ROLE clerk FOR clerks@'%'")
    alias = make_alias(NAME=name, POOL=ONE, USER="clerks", PASSWORD="clerks")
    for resets in range(3):
        assert (ask(alias, "SELECT CURRENT_ROLE()"), pool_of(alias).resets) == ("clerk", resets)
        ask(alias, "SET ROLE NONE")
        assert ask(alias, "SELECT CURRENT_ROLE()") is None
        give_back(alias)


def test_what_a_dead_thread_has_left_reaches_nobody(alias: str) -> None:
    def work() -> None:
        sql("SET @left = 1", "SELECT GET_LOCK('left', 0)")(alias)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ask(alias, "SELECT @left") is None
    assert lock_is_free(alias) == 1


def test_two_that_share_a_database_share_no_state(make_alias: MakeAlias, name: str) -> None:
    """Each tenant's USE ends with its request."""
    alias = make_alias(NAME=name, POOL=ONE)
    for tenant in "mysql", "information_schema", "performance_schema":
        assert ask(alias, "SELECT DATABASE()") == name
        ask(alias, f"USE {tenant}")
        assert ask(alias, "SELECT DATABASE()") == tenant
        give_back(alias)


# --- a reset ------------------------------------------------------------------------------------------------

#: All that the server tells of a session, but for what each statement changes. By a string that is executed:
#: a plain question would be refused, as some of it is about earlier statements.
VARIABLES = """
EXECUTE IMMEDIATE '
SELECT variable_name, variable_value FROM information_schema.session_variables
WHERE variable_name NOT IN
(''TIMESTAMP'', ''RAND_SEED1'', ''RAND_SEED2'', ''PSEUDO_THREAD_ID'', ''LAST_GTID'')
'
"""
OPTIONS: dict[str, Any] = {
    "isolation_level": "serializable",
    "init_command": "SET @started = 'yes', SESSION lock_wait_timeout = 7; SELECT 1",
    "sql_mode": "ANSI_QUOTES,STRICT_ALL_TABLES",
    "charset": "utf8mb4",
    "collation": "utf8mb4_bin",
}


def everything(alias: str) -> dict[str, str]:
    with connections[alias].cursor() as cursor:
        cursor.execute(VARIABLES)
        return dict(cursor.fetchall())


@pytest.mark.parametrize("options", [{}, OPTIONS, {"charset": "latin1"}], ids=["none", "all", "latin1"])
@pytest.mark.parametrize("via", ["tcp", "socket", "tls"])
def test_a_session_that_was_reset_is_like_a_new_one(
    make_alias: MakeAlias, name: str, options: dict[str, Any], via: Any
) -> None:
    alias = make_alias(NAME=name, POOL=ONE, via=via)
    settings = connections[alias].settings_dict["OPTIONS"]
    settings.update(options)
    first, new, encoding = ask(alias, "SELECT CONNECTION_ID()"), everything(alias), raw(alias).encoding
    for statement in "SET sql_mode = ''", "SET NAMES cp1251", "SET lock_wait_timeout = 60", "USE mysql":
        ask(alias, statement)
    raw(alias).set_character_set("cp1251")
    give_back(alias)
    assert (everything(alias), raw(alias).encoding) == (new, encoding)
    assert ask(alias, "SELECT CONNECTION_ID()") == first
    assert ask(alias, "SELECT DATABASE()") == name
    assert ask(alias, "SELECT @started") == ("yes" if "init_command" in options else None)
    assert (pool_of(alias).resets, pool_of(alias).opened) == (1, 1)


def test_receivers_of_connection_created_set_up_a_session_that_was_reset(alias: str) -> None:
    sent = []

    def receiver(connection: Any, **_: Any) -> None:
        sent.append(connection.connection)
        ask(connection.alias, "SET @set_up = 'yes'")

    connection_created.connect(receiver)
    try:
        for resets in range(3):
            assert (len(sent), pool_of(alias).resets) == (resets, resets)
            assert ask(alias, "SELECT @set_up") == "yes"  # a variable: it may have been set
            give_back(alias)
        assert len({id(connection) for connection in sent}) == pool_of(alias).opened == 1
    finally:
        connection_created.disconnect(receiver)


def test_what_sets_up_a_session_is_not_dirt(make_alias: MakeAlias, name: str, mariadb: MariaDB) -> None:
    alias = make_alias(NAME=name, POOL=ONE, OPTIONS=OPTIONS)
    for _ in range(5):
        ask(alias, "SELECT 1")
        give_back(alias)
    assert pool_stats()[alias]["resets"] == 0
    with Questions(mariadb) as asked:
        ask(alias, "SELECT 1")
        give_back(alias)
    assert asked.count == 1


#: ROLLBACK, SET ROLE, SELECT 1 (one packet), the change of user and SET NAMES; at the next checkout the
#: isolation level.
RESET = 6


@pytest.mark.parametrize(
    ("reset", "clean", "dirty"),
    [
        ("auto", 0, RESET),
        ("always", RESET, RESET),
        ("rollback", 0, 1),
    ],
)
def test_what_each_kind_of_reset_costs(
    make_alias: MakeAlias, name: str, mariadb: MariaDB, reset: str, clean: int, dirty: int
) -> None:
    """Statements beside the request's own, in the documentation's table."""
    alias = make_alias(NAME=name, POOL={**ONE, "reset": reset})
    for statement, cost in ("SELECT 1", clean), ("SET @left = 1", dirty), ("DO 1", dirty):
        raw(alias)
        with Questions(mariadb) as asked:
            ask(alias, statement)
            give_back(alias)
            raw(alias)
        assert asked.count == 1 + cost, statement


def test_it_is_reset_before_anybody_waits_for_it(alias: str, mariadb: MariaDB) -> None:
    """A lock that somebody forgot is free as soon as his connection is back, used again or not."""
    ask(alias, "SELECT GET_LOCK('left', 0)")
    assert mariadb.execute("SELECT IS_FREE_LOCK('left')") == [(0,)]
    give_back(alias)
    assert mariadb.execute("SELECT IS_FREE_LOCK('left')") == [(1,)]


def test_a_password_that_is_no_longer_valid_costs_the_session(
    make_alias: MakeAlias, name: str, mariadb: MariaDB
) -> None:
    mariadb.execute("CREATE OR REPLACE USER rotating@'%' IDENTIFIED BY 'old'")
    mariadb.execute("GRANT ALL ON *.* TO rotating@'%'")
    alias = make_alias(NAME=name, POOL=ONE, USER="rotating", PASSWORD="old")
    first = ask(alias, "SELECT CONNECTION_ID()")
    mariadb.execute("SET PASSWORD FOR rotating@'%' = PASSWORD('new')")
    ask(alias, "SET @left = 1")
    give_back(alias)
    assert (pool_of(alias).out, pool_of(alias).closed) == (0, 1)
    connections[alias].settings_dict["PASSWORD"] = "new"
    assert ask(alias, "SELECT @left") is None
    assert ask(alias, "SELECT CONNECTION_ID()") != first


def test_an_account_that_was_locked_costs_the_session(
    make_alias: MakeAlias, name: str, mariadb: MariaDB
) -> None:
    mariadb.execute("CREATE OR REPLACE USER leaving@'%' IDENTIFIED BY 'leaving'")
    mariadb.execute("GRANT ALL ON *.* TO leaving@'%'")
    alias = make_alias(NAME=name, POOL=ONE, USER="leaving", PASSWORD="leaving")
    ask(alias, "SET @left = 1")
    mariadb.execute("ALTER USER leaving@'%' ACCOUNT LOCK")
    give_back(alias)
    assert (pool_of(alias).out, pool_of(alias).idle, pool_of(alias).closed) == (0, 0, 1)
    with pytest.raises(OperationalError, match="locked"):
        raw(alias)
    mariadb.execute("ALTER USER leaving@'%' ACCOUNT UNLOCK")
    assert ask(alias, "SELECT @left") is None


def test_a_database_that_was_dropped_costs_the_session(
    make_alias: MakeAlias, name: str, mariadb: MariaDB
) -> None:
    alias = make_alias(NAME=name, POOL=ONE)
    ask(alias, "SET @left = 1")
    mariadb.execute(f"DROP DATABASE {name}")
    give_back(alias)
    assert (pool_of(alias).out, pool_of(alias).idle, pool_of(alias).closed) == (0, 0, 1)
    mariadb.execute(f"CREATE DATABASE {name}")
    assert ask(alias, "SELECT @left") is None


def test_parameters_in_a_file_cost_the_session(
    make_alias: MakeAlias, name: str, mariadb: MariaDB, tmp_path: Path
) -> None:
    """What an option file says can't be repeated."""
    file = tmp_path / "my.cnf"
    file.write_text(f"[client]\npassword={mariadb.password}\ninit-command=\"SET @started = 'yes'\"\n")
    alias = make_alias(NAME=name, POOL=ONE, PASSWORD="", OPTIONS={"read_default_file": str(file)})
    for opened in 1, 2:
        assert ask(alias, "SELECT @started") == "yes"
        give_back(alias)
        assert (pool_of(alias).opened, pool_of(alias).closed) == (opened, opened)


def test_parameters_in_the_host_cost_the_session(make_alias: MakeAlias, name: str, mariadb: MariaDB) -> None:
    """libmariadb takes it for a connection string."""
    host = f"host={mariadb.host};init-command=SELECT 1 INTO @started"
    alias = make_alias(NAME=name, POOL=ONE, HOST=host)
    for opened in 1, 2:
        assert ask(alias, "SELECT @started") == 1
        give_back(alias)
        assert (pool_of(alias).opened, pool_of(alias).closed) == (opened, opened)


def test_a_session_that_dies_before_it_is_reset_is_replaced(alias: str, mariadb: MariaDB) -> None:
    ask(alias, "SET @left = 1")
    mariadb.execute(f"KILL {raw(alias).thread_id()}")
    give_back(alias)
    assert (pool_of(alias).out, pool_of(alias).closed) == (0, 1)
    assert ask(alias, "SELECT 1") == 1


def test_without_a_pool_nothing_is_reset(make_alias: MakeAlias, name: str, mariadb: MariaDB) -> None:
    alias = make_alias(NAME=name, POOL=False)
    ask(alias, "SET @left = 1")
    with Questions(mariadb) as asked:
        give_back(alias)
    assert (ask(alias, "SELECT @left"), pool_stats()[alias]["resets"]) == (None, 0)
    assert asked.count <= 2  # ROLLBACK and the good-bye


# --- invariant 5: what does not make a session dirty --------------------------------------------------------

MAIL = "o'reilly@example.com; SET @left := 1 /*! # -- \\' \" ` %s"


def many(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.executemany("INSERT INTO numbered (n) VALUES (%s)", [(1,), (2,)])
        cursor.executemany("UPDATE numbered SET n = %s WHERE n = %s", [(1, 2), (3, 4)])
        cursor.executemany("SELECT %s", [(MAIL,), (MAIL,)])
        cursor.executemany("INSERT INTO texts (text) VALUES (%s)", [(MAIL,)] * 1000)


CLEAN: dict[str, Callable[[str], object]] = {
    "a parameter": lambda alias: ask(alias, "SELECT %s", [MAIL]),
    "bytes": lambda alias: ask(alias, "SELECT _binary %s", [MAIL.encode()]),
    "by name": lambda alias: ask(alias, "SELECT %(mail)s", {"mail": MAIL}),
    "a tuple": lambda alias: raw(alias).cursor().execute("SELECT 1 IN %s", [(MAIL, "x")]),
    "executemany": many,
    "raw": lambda alias: (raw(alias).query("SELECT 1"), raw(alias).store_result()),
    "an error": answer("SELECT no_such_column"),
    "system variables": answer("SELECT @@version"),
    "reading warnings": lambda alias: (ask(alias, "SELECT n FROM log"), raw(alias).show_warnings()),
    "comments of two tools": answer("SELECT 1 /*route='x'*/ /*traceparent='00-4a8a572e-04e54ef1-03'*/"),
    "comments around": answer("/*a*/ /*b*/ SELECT 1 /*c*//*d*/;"),
    "a line comment": answer("SELECT 1 -- it's mine"),
    "an encoded comment": lambda alias: ask(alias, "SELECT %s /*db_driver='x%%3A1'*/ /*b*/", [MAIL]),
    "pinging": lambda alias: raw(alias).ping(),
}


@pytest.mark.parametrize("work", CLEAN)
def test_a_clean_session_costs_nothing(alias: str, mariadb: MariaDB, name: str, work: str) -> None:
    mariadb.execute(f"CREATE TABLE {name}.texts (text TEXT)")
    raw(alias)
    CLEAN[work](alias)
    with Questions(mariadb) as asked:
        give_back(alias)
        raw(alias)
    assert (asked.count, pool_of(alias).resets) == (0, 0)


class OwnCursor(Cursor):  # type: ignore[misc]  # mysqlclient is not typed
    """It sends something else."""

    def execute(self, query: str, args: Any = None) -> Any:
        return super().execute(query.replace("SELECT", "SELECT @left :="), args)


def test_a_cursor_class_of_somebodys_own_does_not_vouch(alias: str) -> None:
    raw(alias).cursor(OwnCursor).execute("SELECT %s", [1])
    assert ask(alias, "SELECT @left") == 1
    give_back(alias)
    assert ask(alias, "SELECT @left") is None


class Code:
    """A parameter that is code."""


def test_converters_of_somebodys_own_do_not_vouch(make_alias: MakeAlias, name: str) -> None:
    conv = {**django_conversions, Code: lambda value, conv: "@left := 1"}
    alias = make_alias(NAME=name, POOL=ONE, OPTIONS={"conv": conv})
    ask(alias, "SELECT %s", [Code()])
    assert ask(alias, "SELECT @left") == 1
    give_back(alias)
    assert ask(alias, "SELECT @left") is None
    give_back(alias)
    resets = pool_of(alias).resets
    assert ask(alias, "SELECT %s", ["plain"]) == "plain"
    give_back(alias)
    assert pool_of(alias).resets == resets


def code(value: object, conv: object) -> str:
    """What a converter of somebody's own may make of a parameter."""
    return "@left := 1"


@pytest.mark.parametrize("how", ["receiver", "borrower"])
def test_converters_that_were_added_later_do_not_vouch(make_alias: MakeAlias, name: str, how: str) -> None:
    """By a receiver of connection_created they stay, by a borrower they cost the session."""
    alias = make_alias(NAME=name, POOL=ONE)

    def receiver(connection: Any, **_: Any) -> None:
        connection.connection.encoders[Code] = code

    if how == "receiver":
        connection_created.connect(receiver)
    try:
        raw(alias)
    finally:
        connection_created.disconnect(receiver)
    if how == "borrower":
        raw(alias).encoders[Code] = code
    assert ask(alias, "SELECT %s", [Code()]) == 1
    give_back(alias)
    assert (pool_of(alias).resets, pool_of(alias).closed) == ((1, 0) if how == "receiver" else (0, 1))
    assert ask(alias, "SELECT @left") is None


def decimals(alias: str) -> Any:
    return type(ask(alias, "SELECT 1.5"))


def kept(attribute: str) -> Callable[[str], Any]:
    return lambda alias: getattr(raw(alias), attribute)


#: The same for the driver's own side of a session.
DRIVERS_STATE: dict[str, tuple[Callable[[str], object], Callable[[str], Any]]] = {
    "a decoder": (lambda alias: raw(alias).converter.update({246: float}), decimals),  # DECIMAL
    "decoders": (lambda alias: setattr(raw(alias), "converter", {}), decimals),
    "an encoder": (
        lambda alias: raw(alias).encoders.__setitem__(int, lambda value, conv: "7"),
        lambda alias: ask(alias, "SELECT %s", [1]),
    ),
    "encoders": (
        lambda alias: setattr(raw(alias), "encoders", {}),
        lambda alias: len(raw(alias).encoders),
    ),
    "cursorclass": (lambda alias: setattr(raw(alias), "cursorclass", SSCursor), kept("cursorclass")),
    "encoding": (lambda alias: setattr(raw(alias), "encoding", "latin1"), kept("encoding")),
}


@pytest.mark.parametrize("kind", DRIVERS_STATE)
def test_nothing_is_left_in_the_driver(alias: str, kind: str) -> None:
    new, changed, next_ = left_by(*DRIVERS_STATE[kind], alias)
    assert changed != new
    assert next_ == new


@pytest.mark.parametrize("charset", ["sjis", "ujis"])
def test_a_yen_sign_is_a_backslash_in_some_encodings(make_alias: MakeAlias, name: str, charset: str) -> None:
    """So what looks like a string is code for the server."""
    alias = make_alias(NAME=name, POOL=ONE, OPTIONS={"charset": charset})
    yen = "SELECT '\u00a5', ' , sets() /*'*/"
    new, changed, next_ = left_by(sql(yen), LEFT, alias)
    assert (new, changed, next_) == (None, "function", None)
    give_back(alias)
    resets = pool_of(alias).resets
    assert ask(alias, "SELECT %s", ["\u30bd"]) == "\u30bd"  # as a parameter anything may come
    give_back(alias)
    assert pool_of(alias).resets == resets


@pytest.mark.parametrize("batches", ["loop", "multi"])
def test_batches_of_the_driver_keep_their_promise(
    make_alias: MakeAlias, name: str, mariadb: MariaDB, batches: str
) -> None:
    """Several statements in one string count as dirt, although the driver has made them of one."""
    options = {} if batches == "loop" else {"executemany_fallback": "multi"}
    if options and not hasattr(MySQLdb.connections.Connection, "executemany_fallback"):
        pytest.skip("new in mysqlclient 2.3")
    alias = make_alias(NAME=name, POOL=ONE, OPTIONS=options)
    with connections[alias].cursor() as cursor:
        cursor.executemany("UPDATE log SET n = %s WHERE n = %s", [(1, 2), (3, 4)])
    give_back(alias)
    assert pool_of(alias).resets == (batches == "multi")


def test_a_request_in_a_transaction_costs_no_more_than_with_stock_django(
    make_alias: MakeAlias, name: str, mariadb: MariaDB
) -> None:
    counts = []
    for engine, entry in (STOCK, {"CONN_MAX_AGE": None}), ("poollife.backends.mysql", {"POOL": ONE}):
        alias = make_alias(engine, NAME=name, **entry)
        ask(alias, "SELECT 1")
        connections[alias].close_if_unusable_or_obsolete()
        if engine != STOCK:
            give_back(alias)
        with Questions(mariadb) as asked:
            with transaction.atomic(using=alias):
                ask(alias, "SELECT n FROM log")
                ask(alias, "UPDATE log SET n = n + 1")
            if engine != STOCK:
                give_back(alias)
        counts.append(asked.count)
    assert counts == [5, 5]


def test_the_orm_keeps_sessions_clean(alias: str, mariadb: MariaDB) -> None:
    """All that it sends for a site; but for DDL, and constraints that are switched off."""
    from tests.support.orm import traffic

    pool = pool_of(alias)
    work = traffic(alias)
    for step in work:
        resets = pool.resets
        give_back(alias)
        assert (step, pool.resets - resets) == (step, 0)


# --- SQLite -------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_alias(make_alias: MakeAlias, tmp_path: Path) -> str:
    return make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "db.sqlite3"), POOL=ONE)


def row_type(alias: str) -> Any:
    return type(raw(alias).execute("SELECT 'x'").fetchone())


class OwnSQLiteCursor(sqlite3.Cursor):
    """It runs something else."""

    def execute(self, *args: Any) -> Any:
        return super().execute("PRAGMA cache_size = 77")


#: As above: a handle in which something may have been left is closed.
SQLITE_STATE: dict[str, tuple[Callable[[str], object], Callable[[str], Any]]] = {
    "PRAGMA": (sql("PRAGMA foreign_keys = OFF"), answer("PRAGMA foreign_keys")),
    "PRAGMA that is explained": (sql("EXPLAIN PRAGMA cache_size = 77"), answer("PRAGMA cache_size")),
    "PRAGMA in a comment's shade": (
        sql("/* SELECT */ PRAGMA cache_size = 77 -- SELECT"),
        answer("PRAGMA cache_size"),
    ),
    "raw": (lambda alias: raw(alias).execute("PRAGMA cache_size = 77"), answer("PRAGMA cache_size")),
    "ATTACH": (sql("ATTACH ':memory:' AS extra"), answer("SELECT COUNT(*) FROM extra.sqlite_master")),
    "temporary table": (sql("CREATE TEMP TABLE extra (n)"), answer("SELECT COUNT(*) FROM extra")),
    "executescript": (
        lambda alias: raw(alias).executescript("CREATE TEMP TABLE extra (n)"),
        answer("SELECT COUNT(*) FROM extra"),
    ),
    "executescript of a cursor": (
        lambda alias: raw(alias).cursor().executescript("SELECT 1; PRAGMA cache_size = 77"),
        answer("PRAGMA cache_size"),
    ),
    "function": (
        lambda alias: raw(alias).create_function("extra", 0, lambda: 1),
        answer("SELECT extra()"),
    ),
    "limit": (
        lambda alias: raw(alias).setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        lambda alias: raw(alias).getlimit(sqlite3.SQLITE_LIMIT_ATTACHED),
    ),
    "authorizer": (
        lambda alias: raw(alias).set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else sqlite3.SQLITE_OK
        ),
        answer("PRAGMA cache_size"),
    ),
    "cursor of somebody's own": (
        lambda alias: raw(alias).cursor(OwnSQLiteCursor).execute("SELECT 1"),
        answer("PRAGMA cache_size"),
    ),
    "row_factory": (lambda alias: setattr(raw(alias), "row_factory", sqlite3.Row), row_type),
    "text_factory": (
        lambda alias: setattr(raw(alias), "text_factory", bytes),
        lambda alias: type(raw(alias).execute("SELECT 'x'").fetchone()[0]),
    ),
    "isolation_level": (
        lambda alias: setattr(raw(alias), "isolation_level", "IMMEDIATE"),
        lambda alias: raw(alias).isolation_level,
    ),
    "transaction": (sql("BEGIN"), lambda alias: raw(alias).in_transaction),
}


@pytest.mark.parametrize("kind", SQLITE_STATE)
def test_nothing_is_left_in_a_handle(sqlite_alias: str, kind: str) -> None:
    new, changed, next_ = left_by(*SQLITE_STATE[kind], sqlite_alias)
    assert changed != new
    assert next_ == new


def test_the_orm_keeps_handles_clean(sqlite_alias: str) -> None:
    from tests.support.orm import traffic

    pool = pool_of(sqlite_alias)
    for step in traffic(sqlite_alias):
        closed = pool.closed
        give_back(sqlite_alias)
        assert (step, pool.closed - closed) == (step, 0)


@pytest.mark.parametrize("opened", ["cursor", "execute"])
def test_a_dead_cursor_runs_nothing(sqlite_alias: str, opened: str) -> None:
    connection = raw(sqlite_alias)
    cursor = connection.cursor() if opened == "cursor" else connection.execute("SELECT 1")
    give_back(sqlite_alias)
    raw(sqlite_alias)
    for use in cursor.execute, cursor.executescript:
        with pytest.raises(sqlite3.InterfaceError, match="went back to the pool"):
            use("CREATE TABLE extra (n)")
    assert ask(sqlite_alias, "SELECT COUNT(*) FROM sqlite_master") == 0


def test_a_blob_writes_nothing_after_its_lease(sqlite_alias: str) -> None:
    for statement in "CREATE TABLE blobs (b BLOB)", "INSERT INTO blobs VALUES (zeroblob(3))":
        ask(sqlite_alias, statement)
    give_back(sqlite_alias)
    blob = raw(sqlite_alias).blobopen("blobs", "b", 1)
    give_back(sqlite_alias)
    raw(sqlite_alias)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        blob.write(b"abc")
    assert ask(sqlite_alias, "SELECT b FROM blobs") == bytes(3)
