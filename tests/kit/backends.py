"""The descriptions of the drivers: what the tests of the kit have to know of each."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import connections

from servers import PacketProxy
from tests.kit.description import Backend, Count, Leaving
from tests.kit.half_read import (
    HalfRead,
    copied_in,
    copied_out,
    named,
    on_the_server,
    pipelined,
    plain,
    streamed,
)
from tests.kit.oracle import ORACLE
from tests.support.counting import Questions


def postgresql_driver() -> str:
    """Return the name of PostgreSQL's driver in this process, psycopg's with its implementation."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg2"
    import psycopg

    return f"psycopg_{psycopg.pq.__impl__}"


#: The name of PostgreSQL's driver in this process.
POSTGRESQL = postgresql_driver()


# --- half-read results ----------------------------------------------------------------------------------


def notified(wrapper: Any) -> Callable[[], object]:
    """Read one notification of another session. The generator of psycopg 3.3 then has the lock."""

    def notify() -> None:
        do(wrapper.alias, "NOTIFY kit")
        connections[wrapper.alias].close()

    connection = wrapper.connection
    connection.execute("LISTEN kit")
    thread = threading.Thread(target=notify)
    thread.start()
    thread.join()
    found = connection.notifies()
    next(found)

    def rest() -> bool:
        found.close()
        return bool(connection.execute("SELECT 1").fetchone() == (1,))

    return rest


# --- counting -------------------------------------------------------------------------------------------


@contextmanager
def by_status(server: Any) -> Iterator[tuple[dict[str, Any], Count]]:
    """Have the server count."""

    def count(work: Callable[[], object]) -> int:
        with Questions(server) as asked:
            work()
        return asked.count

    yield {}, count


@contextmanager
def by_proxy(server: Any) -> Iterator[tuple[dict[str, Any], Count]]:
    """Count in a proxy."""
    with PacketProxy(server.host, server.port) as proxy:

        def count(work: Callable[[], object]) -> int:
            with proxy.counting() as sent:
                work()
            return sent.total

        yield {"PORT": str(proxy.port)}, count


# --- the descriptions -----------------------------------------------------------------------------------

MYSQL_LEAVES = {
    "user variable": Leaving(("SET @kit = 5",), "SELECT @kit", None),
    "setting": Leaving(("SET SESSION sql_mode = 'ANSI'",), "SELECT @@sql_mode LIKE '%%ANSI%%'", 0),
    "time zone": Leaving(("SET time_zone = '+05:00'",), "SELECT @@time_zone", "SYSTEM"),
    "temporary table": Leaving(
        ("CREATE TEMPORARY TABLE left_over (id INT)",),
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'left_over'",
        0,
    ),
    "lock": Leaving(("SELECT GET_LOCK('kit', 0)",), "SELECT IS_USED_LOCK('kit')", None),
    "transaction": Leaving(("BEGIN", "INSERT INTO kit VALUES (9, 'x')"), "SELECT COUNT(*) FROM kit", 1),
    "isolation level": Leaving(
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",), "SELECT @@tx_isolation", "READ-COMMITTED"
    ),
}


def _mysql(name: str, engine: str, *, resets: bool) -> Backend:
    return Backend(
        name,
        engine,
        "mariadb",
        "SELECT CONNECTION_ID()",
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE = 'Updating'",
        {"plain": plain, "unbuffered": on_the_server("SSCursor")},
        MYSQL_LEAVES,
        counting=by_status,
        resets=resets,
    )


PSYCOPG_HALF_READ: dict[str, HalfRead] = {
    "plain": plain,
    "named": named,
    "stream": streamed,
    "copy out": copied_out,
    "copy in": copied_in,
    "pipeline": pipelined,
    "notifies": notified,
}

POSTGRESQL_LEAVES = {
    "setting": Leaving(("SET statement_timeout = 5000",), "SELECT current_setting('statement_timeout')", "0"),
    "setting by a function": Leaving(
        ("SELECT set_config('work_mem', '77MB', false)",), "SELECT current_setting('work_mem')", "4MB"
    ),
    "setting of the site's own": Leaving(
        ("SET my.kit = '5'",), "SELECT COALESCE(current_setting('my.kit', true), '')", ""
    ),
    "search path": Leaving(
        ("SET search_path = pg_catalog",), "SELECT current_setting('search_path')", '"$user", public'
    ),
    "time zone": Leaving(("SET TIME ZONE 'Asia/Tokyo'",), "SELECT current_setting('TimeZone')", "UTC"),
    "role": Leaving(("SET ROLE pg_monitor",), "SELECT current_user", "poollife"),
    "session authorization": Leaving(
        ("SET SESSION AUTHORIZATION kit_other",), "SELECT session_user", "poollife"
    ),
    "temporary table": Leaving(
        ("CREATE TEMP TABLE left_over (id INT)",), "SELECT to_regclass('left_over')", None
    ),
    "temporary table from a SELECT": Leaving(
        ("SELECT 1 AS id INTO TEMP left_over",), "SELECT to_regclass('left_over')", None
    ),
    "advisory lock": Leaving(
        ("SELECT pg_advisory_lock(77)",),
        "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77",
        0,
    ),
    "prepared statement": Leaving(
        ("PREPARE kit AS SELECT 1",), "SELECT COUNT(*) FROM pg_prepared_statements WHERE name = 'kit'", 0
    ),
    "held cursor": Leaving(
        ("DECLARE kit CURSOR WITH HOLD FOR SELECT 1",),
        "SELECT COUNT(*) FROM pg_cursors WHERE name = 'kit'",
        0,
    ),
    "listening": Leaving(("LISTEN kit",), "SELECT COUNT(*) FROM pg_listening_channels()", 0),
    "transaction": Leaving(("BEGIN", "INSERT INTO kit VALUES (9, 'x')"), "SELECT COUNT(*) FROM kit", 1),
    "failed transaction": Leaving(("BEGIN", "SELECT 1 FROM kit_missing"), "SELECT COUNT(*) FROM kit", 1),
    "isolation level": Leaving(
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",),
        "SELECT current_setting('transaction_isolation')",
        "read committed",
    ),
    "block": Leaving(
        ("DO $$ BEGIN PERFORM set_config('my.block', '1', false); END $$",),
        "SELECT COALESCE(current_setting('my.block', true), '')",
        "",
    ),
    "change of pg_settings": Leaving(
        ("UPDATE pg_settings SET setting = '9999' WHERE name = 'statement_timeout'",),
        "SELECT current_setting('statement_timeout')",
        "0",
    ),
    "comments and quotes": Leaving(
        ("SELECT /* /* */ */ \"set_config\"/**/('work_mem', $q$78MB$q$, false)",),
        "SELECT current_setting('work_mem')",
        "4MB",
    ),
}


def postgresql(name: str) -> Backend:
    """Return the description of a driver of PostgreSQL's."""
    return Backend(
        name,
        "poollife.backends.postgresql",
        "postgresql",
        "SELECT pg_backend_pid()",
        # pg_stat_activity stays the same until a transaction ends.
        "SELECT COUNT(*) FROM pg_locks WHERE NOT granted",
        {"plain": plain, "named": named} if name == "psycopg2" else PSYCOPG_HALF_READ,
        POSTGRESQL_LEAVES,
        counting=by_proxy,
        vias=("tcp", "tls"),
    )


SQLITE = Backend(
    "sqlite3",
    "poollife.backends.sqlite3",
    None,
    None,
    None,
    {"plain": plain},
    {
        "temporary table": Leaving(
            ("CREATE TEMP TABLE left_over (id INT)",), "SELECT COUNT(*) FROM sqlite_temp_master", 0
        ),
        "pragma": Leaving(("PRAGMA case_sensitive_like = 1",), "SELECT 'a' LIKE 'A'", 1),
        "transaction": Leaving(("BEGIN", "INSERT INTO kit VALUES (9, 'x')"), "SELECT COUNT(*) FROM kit", 1),
    },
    resets=False,
    serves_children=False,
)


def _jdbc(name: str, database: Backend, driver: str) -> Backend:
    """Return the description of a driver of Java's for a database that another driver serves as well."""
    leaves = dict(database.leaves)
    if database.server == "mariadb":  # Django sets no isolation level here
        leaves["isolation level"] = leaves["isolation level"]._replace(clean="REPEATABLE-READ")
    return replace(
        database,
        name=name,
        engine="poollife.backends.jdbc",
        half_read={"plain": plain},
        leaves=leaves,
        resets=False,
        vias=("tcp",),
        entry={"JDBC_DRIVER": driver, "JDBC_URL": f"{name}://{{HOST}}:{{PORT}}/{{NAME}}"},
        outlives_forks=False,
    )


#: The drivers of Java's. Their JVM stays in a process, so they have one of their own.
JDBC = (
    _jdbc("jdbc:mariadb", _mysql("", "", resets=False), "org.mariadb.jdbc.Driver"),
    _jdbc("jdbc:postgresql", postgresql(""), "org.postgresql.Driver"),
)
#: The drivers that this process can test: Django takes psycopg or psycopg2, whichever it finds first.
BACKENDS: tuple[Backend, ...] = (
    _mysql("mysqlclient", "poollife.backends.mysql", resets=True),
    _mysql("PyMySQL", "poollife.backends.mysql_pymysql", resets=False),
    postgresql(POSTGRESQL),
    ORACLE,
    SQLITE,
)
#: The driver that docs/new-backend.md shows. A process of its own has it in a folder of its path.
EXAMPLE = _mysql("example", "newcomer", resets=False)
if only := os.environ.get("POOLLIFE_KIT"):
    BACKENDS = tuple(backend for backend in (*BACKENDS, *JDBC, EXAMPLE) if backend.name in only.split(","))
#: Those with a server.
SERVED = [backend for backend in BACKENDS if backend.server]


@contextmanager
def cursor_of(alias: str) -> Iterator[Any]:
    """A cursor, as Django's code opens it."""
    with connections[alias].cursor() as cursor:
        yield cursor


def ask(alias: str, sql: str) -> Any:
    """Return the first value of an answer."""
    with cursor_of(alias) as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def do(alias: str, *statements: str) -> None:
    """Run statements."""
    with cursor_of(alias) as cursor:
        for statement in statements:
            cursor.execute(statement)
