"""A program that uses JDBC. Its arguments: DATABASES and the name of the case, as JSON."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    connections,
    transaction,
)

from tests.support.programs import children
from tests.support.programs.databases import set_up

Report = dict[str, Any]
PARENT = os.getpid()


def ask(alias: str, sql: str, params: Any = None) -> Any:
    """Return the first row of an answer, and give the session back."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        row = cursor.fetchone()
    connections[alias].close()
    return row


def start() -> Report:
    """Return whether the JVM runs before the first query, and the answer to that query."""
    import jpype

    wrapper = connections["mariadb"]
    before = jpype.isJVMStarted()
    return {"before": before, "answer": ask("mariadb", "SELECT 40 + 2"), "vendor": wrapper.vendor}


# --- values and parameters ------------------------------------------------------------------------------

NOON = datetime(2026, 2, 3, 12, 0, 0, 250000)
VALUES: dict[str, dict[str, list[Any]]] = {
    # Column: values.
    "mariadb": {
        "INT": [1, -5, None],
        "BIGINT UNSIGNED": [2**64 - 1],
        "DECIMAL(20, 2)": [Decimal("1.50")],
        "DOUBLE": [1.5],
        "VARCHAR(50)": ["it's 100 % \\ ?", "\u00fc\U0001f600", ""],
        "LONGTEXT": ["x" * 70_000],
        "BLOB": [b"\0\xff\\'"],
        "DATETIME(6)": [NOON, datetime(2026, 3, 29, 2, 30)],
        "DATE": [date(2026, 2, 3)],
        "TIME(6)": [time(1, 2, 3, 456)],
        "BOOLEAN": [True, False],
    },
    "postgresql": {
        "INT": [1, -5, None],
        "BIGINT": [2**63 - 1],
        "NUMERIC": [Decimal("1.50"), Decimal(2**70)],
        "DOUBLE PRECISION": [1.5],
        "TEXT": ["it's 100 % \\ ?", "\u00fc\U0001f600", "", "x" * 70_000],
        "BYTEA": [b"\0\xff\\'"],
        "TIMESTAMP": [NOON, datetime(2026, 3, 29, 2, 30)],
        "TIMESTAMPTZ": [None, NOON.replace(tzinfo=UTC)],
        "DATE": [date(2026, 2, 3)],
        "TIME": [time(1, 2, 3, 456)],
        "BOOLEAN": [True, False],
    },
}


def values() -> Report:
    """Return the values that did not come back as they went, or with another type."""
    changed = []
    for alias, columns in VALUES.items():
        for kind, values in columns.items():
            ask_nothing(alias, "DROP TABLE IF EXISTS value_", f"CREATE TABLE value_ (n INT, v {kind})")
            with connections[alias].cursor() as cursor:
                cursor.executemany("INSERT INTO value_ VALUES (%s, %s)", list(enumerate(values)))
                cursor.execute("SELECT v FROM value_ ORDER BY n")
                found = [row[0] for row in cursor.fetchall()]
            if list(map(typed, found)) != list(map(typed, values)):
                changed.append(f"{alias}, {kind}: {found!r} for {values!r}")
    arrays = ask("postgresql", "SELECT ARRAY[1, 2], '{\"a\": 1}'::jsonb, %s::uuid", [str(UUID(int=7))])
    return {"changed": changed, "others": repr(arrays)}


def typed(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def ask_nothing(alias: str, *statements: str) -> None:
    with connections[alias].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def parameters() -> Report:
    """Return the answers to statements with percent signs and question marks in all places."""
    named = {"name": "Altair"}
    cases: list[tuple[str, Any]] = [
        ("SELECT %(name)s", named),
        ("SELECT %(name)s, %(name)s", named),
        ("SELECT %s, '%s', '%(name)s', '100%%', 7 %% 4", ["a"]),
        ("SELECT '%s', 7 % 4, '100%%'", None),
        ("SELECT /* %s ? */ 'it''s %s ?', %s -- %s ?", ["a"]),
        ("SELECT ?, %s", ["a", "b"]),
    ]
    only: dict[str, list[tuple[str, Any]]] = {
        "mariadb": [("SELECT 'it\\'s %s', %s # %s", ["a"]), ('SELECT "%s", %s', ["a"])],
        "postgresql": [
            ("SELECT E'it\\'s %s', $$ %s $$, $x$ %s $$ $x$, %s", ["a"]),
            ("SELECT 1 AS \"%s\", 'a\\', %s", ["a"]),
            ("SELECT '{\"a\": 1}'::jsonb ? 'a'", None),
        ],
    }
    return {alias: [ask(alias, sql, params) for sql, params in [*cases, *only[alias]]] for alias in only}


def django_s_own() -> Report:
    """Use Django around raw SQL: models, procedures, names of tables, the shell, test databases."""
    from django.core.management import CommandError, call_command
    from django.db import models

    class User(models.Model):
        name = models.CharField(max_length=20)

        class Meta:
            app_label, db_table, managed = "poollife", "user_", False

    found: Report = {}
    for alias in VALUES:
        ask_nothing(
            alias, "CREATE TABLE user_ (id INT, name VARCHAR(20))", "INSERT INTO user_ VALUES (7, 'Altair')"
        )
        users = User._default_manager.using(alias)
        raw = users.raw("SELECT id, name FROM user_ WHERE name = %(name)s", {"name": "Altair"})
        with connections[alias].cursor() as cursor:
            tables = connections[alias].introspection.table_names(cursor)
        found[alias] = [[(user.pk, user.name) for user in raw], "user_" in tables]
        with connections[alias].schema_editor() as editor:
            for refused in (users.count, users.first, users.create, lambda: editor.create_model(User)):
                try:
                    refused()
                except NotSupportedError as error:
                    found[alias].append(str(error)[:50])
        try:
            call_command("dbshell", database=alias)
        except CommandError as error:
            found[alias].append(str(error))
    ask_nothing(
        "mariadb", "CREATE PROCEDURE twice(IN number INT) BEGIN SELECT number; SELECT 2 * number; END"
    )
    with connections["mariadb"].cursor() as cursor:
        cursor.callproc("twice", [4])
        found["called"] = [cursor.fetchall(), cursor.nextset(), cursor.fetchall()]
    settings.DATABASES["mariadb"]["JDBC_URL"] = connections["mariadb"].jdbc_url  # type: ignore[attr-defined]
    connections["mariadb"].settings_dict["JDBC_URL"] = settings.DATABASES["mariadb"]["JDBC_URL"]
    try:
        connections["mariadb"].creation.create_test_db(verbosity=0)
    except ImproperlyConfigured as error:
        found["test database"] = str(error)
    return found


# --- errors ---------------------------------------------------------------------------------------------


def errors() -> Report:
    """Return the classes of errors, and whether each can be pickled and keeps no object of Java's."""
    statements = {
        "integrity": "INSERT INTO error_ VALUES (1)",
        "not null": "INSERT INTO error_ VALUES (NULL)",
        "syntax": "SELEC 1",
        "no table": "SELECT 1 FROM missing_",
        "no parameter": "SELECT %(missing)s",
        "too few": "SELECT %s, %s",
        "no type": "SELECT %s",
    }
    params: dict[str, Any] = {"no parameter": {"name": 1}, "too few": [1], "no type": [object()]}
    found: Report = {}
    for alias in ("mariadb", "postgresql"):
        ask_nothing(alias, "DROP TABLE IF EXISTS error_", "CREATE TABLE error_ (n INT PRIMARY KEY)")
        ask_nothing(alias, "INSERT INTO error_ VALUES (1)")
        for case, sql in statements.items():
            try:
                ask(alias, sql, params.get(case))
            except DatabaseError as error:
                cause = error.__cause__
                copied = pickle.loads(pickle.dumps(cause))
                assert (type(copied), copied.args, cause.__context__) == (type(cause), cause.args, None)  # type: ignore[union-attr]
                found.setdefault(case, []).append(type(error).__name__)
            assert connections[alias].lease.driver.failure is None  # type: ignore[attr-defined]
        connections[alias].close()
    return found


def read_only() -> Report:
    """Write in a READ ONLY transaction, and then on a server that takes no writes any more."""

    def ask_session() -> int:
        return int(ask("postgresql", "SELECT pg_backend_pid()")[0])

    logging.disable(logging.CRITICAL)
    ask_nothing("admin", "CREATE TABLE log (n INT)")
    found: Report = {"sessions": [ask_session()], "errors": []}
    for own in (True, False):
        if not own:
            ask_nothing("admin", "ALTER SYSTEM SET default_transaction_read_only = on")
            ask("admin", "SELECT pg_reload_conf()")
            while ask("postgresql", "SHOW default_transaction_read_only") != ("on",):
                pass  # the server tells its sessions a moment later
        try:
            with transaction.atomic(using="postgresql"):
                if own:
                    ask_nothing("postgresql", "SET TRANSACTION READ ONLY")
                ask_nothing("postgresql", "INSERT INTO log VALUES (1)")
        except DatabaseError as error:
            found["errors"].append(error.__cause__.sqlstate)  # type: ignore[union-attr]
        connections["postgresql"].close()
        found["sessions"].append(ask_session())
    return found


def refused() -> Report:
    """Return the messages for wrong settings, and those for servers that are not there."""
    logging.disable(logging.CRITICAL)
    found = {}
    for alias in connections:
        try:
            ask(alias, "SELECT 1")
        except (ImproperlyConfigured, DatabaseError) as error:
            found[alias] = f"{type(error).__name__}: {error}"
    return found


# --- threads --------------------------------------------------------------------------------------------


def threads() -> Report:
    """Have 300 threads query and end, and count the threads of Java's."""
    import jpype

    ask("mariadb", "SELECT 1")
    java = jpype.java.lang.Thread
    before = {str(each.getName()) for each in java.getAllStackTraces().keySet()}
    sessions = []

    open_sessions = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"

    def work() -> None:
        sessions.append(ask("mariadb", open_sessions))

    for _ in range(15):
        started = [threading.Thread(target=work) for _ in range(20)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    after = {str(each.getName()) for each in java.getAllStackTraces().keySet()}
    with ThreadPoolExecutor(3) as executor:  # threads that live are there
        list(executor.map(lambda _: work(), range(3)))
        alive = {str(each.getName()) for each in java.getAllStackTraces().keySet()}
    return {
        "left": sorted(after - before),
        "alive": len(alive - before),
        "answers": len(sessions),
        "peak": max(row[0] for row in sessions),
    }


# --- forks ----------------------------------------------------------------------------------------------


def child() -> Report:
    """Try to query, collect garbage, and end."""
    found: Report = {"refused": ""}
    try:
        ask("mariadb", "SELECT 1")
    except InterfaceError as error:
        found["refused"] = f"{type(error).__name__}: {error}"
    for _ in range(20):
        gc.collect()
    found["callbacks"] = [str(each) for each in gc.callbacks if getattr(each, "__module__", "") == "_jpype"]
    return found


def session() -> Report:
    return {"session": ask("mariadb", "SELECT CONNECTION_ID()")[0]}


def handed_out() -> Report:
    """Take the ``java.sql.Connection``, and return whether the next borrower gets its session."""
    mine = session()
    wrapper: Any = connections["mariadb"]
    with wrapper.cursor():
        usable = wrapper.is_usable()
        java = wrapper.connection.get_java_connection()
    wrapper.close()
    return {"usable": usable, "closed": bool(java.isClosed()), "same": session() == mine}


def forks() -> Report:
    """Fork in each way, before and after the JVM runs; each child ends normally."""
    ways: dict[str, Callable[[Callable[[], Report]], children.Child]] = {
        "os.fork": children.fork,
        "multiprocessing": children.process,
        "bare": lambda work: children.fork(work, bare=True),
    }
    found: Report = {"before": {way: start(session).finish() for way, start in ways.items()}}
    mine = session()
    found["after"] = {way: start(child).finish() for way, start in ways.items()}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found["spawned"] = pool.apply(spawned, (settings.DATABASES,))
    found["same"] = session() == mine
    return found


def bare_forks_without_a_query() -> Report:
    """Fork by the C function, and have the child end without any use of a pool."""
    mine = session()
    found = [children.fork(dict, bare=True).finish() for _ in range(3)]
    return {"children": found, "same": session() == mine}


def ends() -> Report:
    """End with an idle session, in a process that had a pool before it loaded JPype."""
    assert ask("default", "SELECT 1") == (1,)
    assert "jpype" not in sys.modules
    with connections["mariadb"].cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        (number,) = cursor.fetchone()
        has_number = connections["mariadb"].lease.driver.session == number  # type: ignore[attr-defined]
    connections["mariadb"].close()
    return {"has number": has_number}


def embedded() -> Report:
    """Use a database in the JVM's own process, whose SQL is not known."""
    wrapper: Any = connections["h2"]
    ask_nothing("h2", "CREATE TABLE kit (n INT PRIMARY KEY, name VARCHAR(20))")
    wrapper.close()
    assert ask("h2", "SELECT 1") == (1,)  # in another session
    opened, found = wrapper.lease_pool.opened, []
    for statement, params in (
        ("INSERT INTO kit (n, name) VALUES (%s, %s)", [1, "100 %"]),
        ("SELECT n, name FROM kit WHERE name LIKE '100 %%' AND n = %(n)s", {"n": 1}),
    ):
        with wrapper.cursor() as cursor:
            cursor.execute(statement, params)
            found.append(cursor.fetchall() if cursor.description else cursor.rowcount)
        fd = wrapper.lease.driver.guard.fd
        wrapper.close()
    try:
        with transaction.atomic(using="h2"):
            ask_nothing("h2", "INSERT INTO kit (n) VALUES (2)")
            with transaction.atomic(using="h2"):
                ask_nothing("h2", "INSERT INTO kit (n) VALUES (1)")
    except IntegrityError:
        found.append(ask("h2", "SELECT COUNT(*) FROM kit")[0])
    kept = wrapper.lease_pool.opened == opened
    ask_nothing("h2", "SET @kit = 5")
    wrapper.close()
    return {"found": found, "fd": fd, "kept": kept, "left": ask("h2", "SELECT @kit")[0]}


def spawned(databases: Any) -> int:
    set_up(databases)
    return int(session()["session"])


if __name__ == "__main__":
    set_up(json.loads(sys.argv[1]))
    print(json.dumps(globals()[json.loads(sys.argv[2])]() | {"pid": PARENT}, default=repr))
