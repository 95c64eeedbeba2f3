"""The cases that are compared: programs of a few steps, with statements and errors of many kinds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections, transaction

from tests.kit.backends import do

#: A step of a program: a statement, or a function of the alias.
Step = str | Callable[[str], Any]

INSERT = "INSERT INTO things (name, number) VALUES ('four', 4)"
DUPLICATE = "INSERT INTO things (id, name, number) VALUES (1, 'other', 4)"


def execute(sql: Any, params: Any, alias: str) -> Any:
    return run(alias, sql, params)


def many(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.executemany(
            "INSERT INTO things (name, number) VALUES (%s, %s)", [("a", 1), ("b", 2), ("c", 3)]
        )
        return cursor.rowcount


def many_with_a_duplicate(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.executemany("INSERT INTO things (name, number) VALUES (%s, %s)", [("a", 1), ("one", 2)])


def chunks(alias: str) -> Any:
    """A cursor on the server."""
    with connections[alias].chunked_cursor() as cursor:
        cursor.execute("SELECT name FROM things ORDER BY id")
        return cursor.fetchmany(2), cursor.fetchall()


def last_id(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute("DELETE FROM things WHERE id > 3")
        cursor.execute("INSERT INTO things (id, name, number) VALUES (77, 'x', 1)")
        return cursor.rowcount, getattr(cursor.cursor, "lastrowid", None)


def further_results(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchall(), cursor.nextset()


def warned(alias: str) -> Any:
    do(alias, "SELECT 1 + 'x'")
    return run(alias, "SHOW WARNINGS")


def is_atomic(alias: str) -> Any:
    wrapper = connections[alias]
    return wrapper.in_atomic_block, wrapper.get_autocommit(), wrapper.needs_rollback


def savepoint(alias: str) -> Any:
    """A block that is rolled back, as the first of a transaction."""
    try:
        with transaction.atomic(using=alias):
            run(alias, INSERT)
            run(alias, DUPLICATE)
    except DatabaseError:
        return run(alias, "SELECT COUNT(*) FROM things")


def hooks(alias: str) -> Any:
    transaction.on_commit(lambda: HOOKS.append("called"), using=alias)
    return list(HOOKS)


def wrapped(alias: str) -> Any:
    seen = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        run(alias, "SELECT 1")
    return seen


def locked(alias: str) -> Any:
    """Another session has the row."""
    with other_session(alias, "SELECT * FROM things WHERE id = 1 FOR UPDATE"):
        return outcome(alias, partial(execute, "SELECT * FROM things WHERE id = 1 FOR UPDATE NOWAIT", None))


def deadlock(alias: str) -> Any:
    """Two sessions wait for each other; the server ends one of the two transactions."""
    run(alias, "UPDATE things SET number = 10 WHERE id = 1")
    with other_session(alias, "UPDATE things SET number = 20 WHERE id IN (2, 3)") as other:
        waiting = threading.Thread(target=other, args=("UPDATE things SET number = 20 WHERE id = 1",))
        waiting.start()
        result = outcome(alias, partial(execute, "UPDATE things SET number = 10 WHERE id = 2", None))
        waiting.join()
    return isinstance(result, tuple) and result[0] in ("OperationalError", "done")


def load_data(alias: str) -> Any:
    return run(alias, f"LOAD DATA LOCAL INFILE '{FILES['rows']}' INTO TABLE things (name, number)")


def streamed(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        return list(cursor.cursor.stream("SELECT name FROM things ORDER BY id"))


def composed(alias: str) -> Any:
    from django.db.backends.postgresql.psycopg_any import sql

    SQL, Identifier = sql.SQL, sql.Identifier
    return run(alias, SQL("SELECT name FROM {} WHERE id = %s").format(Identifier("things")), [2])


def pipelined(alias: str) -> Any:
    with connections[alias].cursor() as cursor, connections[alias].connection.pipeline():
        cursor.execute("UPDATE things SET number = 8 WHERE id = 1")
        cursor.execute("SELECT number FROM things WHERE id = 1")
        return cursor.fetchall()


def bound_at_the_server(alias: str) -> Any:
    """A cursor class of psycopg's own that sends one statement only."""
    from psycopg import Cursor

    driver = connections[alias].connection
    factory, driver.cursor_factory = driver.cursor_factory, Cursor
    try:
        with driver.cursor() as cursor:
            cursor.execute("SELECT name FROM things WHERE id = %s", [2])
            return cursor.fetchall()
    finally:
        driver.cursor_factory = factory


def copy_in(alias: str) -> Any:
    with connections[alias].cursor() as cursor, cursor.copy("COPY things (name, number) FROM STDIN") as copy:
        copy.write("from a file\t9\n")
    return cursor.rowcount


def block_of_the_driver(alias: str) -> Any:
    """It is an inner one if a transaction is open, and otherwise commits."""
    with connections[alias].connection.transaction():
        return run(alias, "UPDATE things SET number = 8 WHERE id = 1")


def copied_from_a_file(alias: str, text: str = "from a file\t9\n") -> Any:
    with connections[alias].cursor() as cursor:
        cursor.copy_expert("COPY things (name, number) FROM STDIN", StringIO(text))
        return cursor.rowcount


def called(alias: str, name: str = "upper") -> Any:
    with connections[alias].cursor() as cursor:
        cursor.cursor.callproc(name, ["a"])
        return cursor.fetchall()


def many_values(alias: str) -> Any:
    from psycopg2.extras import execute_values

    with connections[alias].cursor() as cursor:
        execute_values(cursor.cursor, "INSERT INTO things (name, number) VALUES %s", [("a", 1), ("b", 2)])
        return cursor.rowcount, cursor.cursor.query


def large_object(alias: str) -> Any:
    return connections[alias].connection.lobject(0, "w").write("text")


def declared_twice(alias: str) -> Any:
    with connections[alias].chunked_cursor() as cursor:
        for _ in range(2):
            cursor.execute("SELECT 1")


def scrolled(alias: str) -> Any:
    with connections[alias].connection.cursor("scrolled", scrollable=True) as cursor:
        cursor.execute("SELECT name FROM things WHERE id > %s ORDER BY id", [0])
        found = cursor.fetchmany(2)
        cursor.scroll(-2)
        return found, cursor.fetchall(), cursor.query, cursor.rownumber


def held(alias: str) -> Any:
    with connections[alias].connection.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT name FROM things ORDER BY id")
        return list(cursor)


#: What some of the functions above need.
HOOKS: list[str] = []
FILES: dict[str, Path] = {}

EVERYWHERE: dict[str, tuple[Step, ...]] = {
    "nothing": (),
    "select": ("SELECT name, number FROM things ORDER BY id",),
    "select with parameters": (partial(execute, "SELECT name FROM things WHERE id = %s", [2]),),
    "named parameters": (partial(execute, "SELECT name FROM things WHERE id = %(id)s", {"id": 2}),),
    "select of nothing": ("SELECT name FROM things WHERE id = 99",),
    "insert": (INSERT,),
    "insert of several rows": ("INSERT INTO things (name, number) VALUES ('a', 1), ('b', 2)",),
    "insert returning": ("INSERT INTO things (id, name) VALUES (70, 'a'), (71, 'b') RETURNING id, name",),
    "last id": (last_id,),
    "duplicate": (DUPLICATE, "SELECT COUNT(*) FROM things"),
    "null": ("INSERT INTO things (name) VALUES (NULL)", INSERT),
    "too long": ("INSERT INTO things (name) VALUES ('a name of more than twenty characters')", INSERT),
    "update": ("UPDATE things SET number = number + 1 WHERE id > 1",),
    "update of nothing": ("UPDATE things SET number = 1 WHERE id = 99",),
    "delete": ("DELETE FROM things WHERE id = 1",),
    "for update": ("SELECT * FROM things WHERE id = 1 FOR UPDATE",),
    "locked by another": (locked, INSERT),
    "with": ("WITH t AS (SELECT 1 AS a) SELECT a FROM t",),
    "parenthesis": ("(SELECT 1) UNION (SELECT 2)",),
    "comment first": ("/* why */ SELECT 1",),
    "comment behind": ("SELECT 1 -- why",),
    "semicolon": ("SELECT 1;",),
    "lower case": ("select 1",),
    "line breaks": ("\n\nSELECT 1\n, nowhere\nFROM things",),
    "text beyond ASCII": (partial(execute, "SELECT 'é€😀', name FROM things WHERE name <> %s", ["é€😀"]),),
    "table that is not there": ("SELECT 1 FROM nowhere", INSERT),
    "column that is not there": ("SELECT nothing FROM things", "SELECT 1"),
    "column that is not there, in line 3": ("SELECT id\nFROM things\nWHERE nothing = 1",),
    "syntax": ("SELECT FROM WHERE", INSERT),
    "syntax later": (INSERT, "SELECT FROM WHERE", "SELECT 1"),
    "syntax and parameters": (partial(execute, "SELECT FROM WHERE %s", ["x"]), "SELECT 1"),
    "open quote": ("SELECT 'x", "SELECT 1"),
    "no text": ("",),
    "too few parameters": (partial(execute, "SELECT %s, %s", [1]), INSERT),
    "a parameter that can't be sent": (partial(execute, "SELECT %s", [object()]), INSERT),
    "decimal": (partial(execute, "SELECT %s + 1", [Decimal("1.5")]),),
    "long": (partial(execute, "SELECT LENGTH(%s)", ["x" * 70_000]),),
    "many": (many, "SELECT COUNT(*) FROM things"),
    "many with a duplicate": (many_with_a_duplicate, INSERT),
    "chunks": (chunks, INSERT),
    "chunks later": (INSERT, chunks),
    "chunks, with an error": (partial(execute, "SELECT nothing", None), chunks),
    "further results": (further_results,),
    "savepoint": (savepoint, INSERT),
    "hooks": (hooks, INSERT, hooks),
    "state": (is_atomic, INSERT, is_atomic),
    "wrapper": (wrapped,),
    "explain": (partial(execute, "EXPLAIN SELECT 1", None),),
    "two statements": (f"{INSERT}; UPDATE things SET number = 0", "SELECT SUM(number) FROM things"),
    "commit in the text": (INSERT, "COMMIT", "UPDATE things SET number = 0", "SELECT 1"),
    "rollback in the text": (INSERT, "ROLLBACK", "UPDATE things SET number = 0"),
    "begin in the text": ("BEGIN", INSERT),
    "commit first": ("COMMIT", INSERT),
    "rollback first": ("ROLLBACK", INSERT),
    "savepoint that is not there": ("ROLLBACK TO nowhere", INSERT),
    "definition": ("CREATE TABLE more (id INT)", INSERT, "DROP TABLE more"),
    "level": ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT COUNT(*) FROM things"),
    "read only": ("SET TRANSACTION READ ONLY", INSERT, "SELECT 1"),
}
OF_DIALECT: dict[str, dict[str, tuple[Step, ...]]] = {
    "mariadb": {
        "function that is not there": ("SELECT nothing(1)", INSERT),
        "warnings": (warned,),
        "deadlock": (deadlock, INSERT),  # InnoDB ends the transaction that has changed fewer rows
        "procedure": (lambda alias: procedure(alias),),
        "call": ("CALL two_results()", INSERT),
        "load data": (load_data, "SELECT COUNT(*) FROM things"),
        "ANSI quotes": ("SET sql_mode = 'ANSI_QUOTES'", 'SELECT name FROM "things" WHERE id = 1'),
        "Oracle mode": ("SET sql_mode = 'ORACLE'", "SELECT 1 FROM DUAL", "BEGIN NULL; END"),
        "variable": ("SET @a = 5", "SELECT @a"),
        "upsert": (f"{DUPLICATE} ON DUPLICATE KEY UPDATE number = 9",),
        "replace": ("REPLACE INTO things VALUES (1, 'one', 5)",),
        "show": ("SHOW COLUMNS FROM things",),
        "lock tables": ("LOCK TABLES things WRITE", INSERT, "UNLOCK TABLES"),
        "is in a transaction": ("SELECT @@in_transaction", INSERT, "SELECT @@in_transaction, @@autocommit"),
        "row count": (INSERT, "SELECT ROW_COUNT(), LAST_INSERT_ID() > 0"),
        "bytes": (partial(execute, b"SELECT 1", None),),
        "truncate": ("TRUNCATE things", INSERT),
    },
    "postgresql": {
        "function that is not there": ("SELECT nothing(1)", INSERT, "SELECT 1"),
        "division": ("SELECT 1 / 0", INSERT, "SELECT 1"),
        "do": ("DO $$ BEGIN PERFORM 1; END $$", INSERT),
        "syntax error inside of do": ("DO $$ BEGIN EXECUTE 'selec'; END $$", INSERT),
        "outside of transactions only": ("VACUUM things", INSERT),
        "composed": (composed, INSERT),
        "bytes": (partial(execute, b"SELECT 1", None), INSERT),
        "upsert": (f"{DUPLICATE} ON CONFLICT (id) DO UPDATE SET number = 9",),
        "set local": ("SET LOCAL work_mem = '1MB'", "SHOW work_mem"),
        "values": ("VALUES (1), (2)",),
        "table": ("TABLE things",),
        "dollars": ("SELECT $$;$$, '; x'",),
        "truncate": ("TRUNCATE things", INSERT),
        "lock": ("LOCK TABLE things", INSERT),
        "transaction's number": ("SELECT txid_current_if_assigned() IS NULL",),
        "time of the transaction": ("SELECT 1", "SELECT now() < statement_timestamp()"),
        "deferred": ("SET CONSTRAINTS ALL DEFERRED", INSERT),
        "commit that fails": (
            "CREATE TEMP TABLE later (id INT UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO later VALUES (1), (1)",
            INSERT,
        ),
    },
}
OF_DRIVER: dict[str, dict[str, tuple[Step, ...]]] = {
    "mysqlclient": {},
    "PyMySQL": {},
    "psycopg": {
        "stream": (streamed, INSERT),
        "pipeline": (pipelined, INSERT),
        "bound at the server": (bound_at_the_server, INSERT),
        "copy": (copy_in, "SELECT COUNT(*) FROM things"),
        "block of the driver's own": (block_of_the_driver, INSERT),
    },
    "psycopg2": {
        "copy": (copied_from_a_file, "SELECT COUNT(*) FROM things"),
        "copy, with an error": (partial(copied_from_a_file, text="x"), INSERT),
        "function": (called, INSERT),
        "function that is not there, called": (partial(called, name="nothing"), INSERT),
        "values": (many_values, "SELECT SUM(number) FROM things"),
        "large object": (large_object, INSERT),
        "declared twice": (declared_twice, INSERT),
        "scrolled": (scrolled, INSERT),
        "with hold": (held, INSERT),
    },
}


def procedure(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.callproc("two_results")
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found


def run(alias: str, sql: Any, params: Any = None) -> Any:
    """Return all that a cursor shows after a statement."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        columns = [column[0] for column in cursor.description or ()]
        rows = sorted(map(str, cursor.fetchall())) if columns else None
        return columns, rows, cursor.rowcount, getattr(cursor.cursor, "statusmessage", None)


def outcome(alias: str, step: Step) -> Any:
    """Return what a step does: its result, or its error with the driver's own."""
    try:
        return "done", run(alias, step) if isinstance(step, str) else step(alias)
    except Exception as error:
        cause = error.__cause__
        database = connections[alias].settings_dict["NAME"]
        texts = [str(text).replace(database, "DB") for text in (error, *(cause.args if cause else ()))]
        return type(error).__name__, type(cause).__name__, getattr(cause, "sqlstate", None), texts


@contextmanager
def other_session(alias: str, statement: str) -> Iterator[Callable[[str], Any]]:
    """A transaction in a session of another thread's, and a function that runs a statement there."""
    settings = connections[alias].settings_dict
    wrapper = type(connections[alias])({**settings, "POOL": False}, f"{alias}_other")
    wrapper.inc_thread_sharing()
    wrapper.set_autocommit(False)

    def execute(sql: str) -> None:
        with wrapper.cursor() as cursor:
            try:
                cursor.execute(sql)
            except DatabaseError:
                wrapper.rollback()  # the server has ended this transaction of the two

    execute(statement)
    try:
        yield execute
    finally:
        wrapper.rollback()
        wrapper.close()
