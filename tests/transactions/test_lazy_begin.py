"""A transaction that begins with its first statement does what Django's own does, in fewer packets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, transaction

from benchmarks.wiretap import Wiretap
from poollife import auto_close_db
from poollife.drivers.mysql.transactions import LONGEST
from servers.packets import PacketProxy
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.transactions.conftest import MYSQLCLIENT, WAYS, Pair, Way, statements

pytestmark = pytest.mark.slow


def test_each_driver_is_tested() -> None:
    assert [way.name for way in WAYS] == ["mysqlclient", "PyMySQL", "psycopg"]


# --- packets ------------------------------------------------------------------------------------------------


class Tap:
    """The statements that a client sends, a text for each packet."""

    def __init__(self, way: Way, server: Any) -> None:
        self.proxy: Any = (Wiretap if way.server == "mariadb" else PacketProxy)(server.host, server.port)

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield a list that has the packets of the block after its end."""
        found: list[str] = []
        if isinstance(self.proxy, Wiretap):
            with self.proxy.listening() as heard:
                yield found
            found += heard
        else:
            with self.proxy.counting() as count:
                yield found
            assert count.total == len(count.texts)
            found += count.texts


def update(alias: str) -> None:
    do(alias, "UPDATE things SET number = 5 WHERE id = 1")


def select_and_update(alias: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, "SELECT name FROM things WHERE id = 1")
        update(alias)


def nested_update(alias: str) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        update(alias)


def empty(alias: str) -> None:
    with transaction.atomic(using=alias):
        pass


def select(alias: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, "SELECT name FROM things WHERE id = 1")


def rolled_back(alias: str) -> None:
    with transaction.atomic(using=alias):
        update(alias)
        transaction.set_rollback(True, using=alias)


#: Packets: with lazy_begin, of Django with MySQL, and of Django with PostgreSQL.
PACKETS: dict[Callable[[str], None], tuple[int, int, int]] = {
    select_and_update: (3, 5, 4),
    nested_update: (4, 6, 5),
    empty: (0, 3, 0),
    select: (2, 4, 3),  # a request with ATOMIC_REQUESTS
    rolled_back: (2, 4, 3),
    update: (1, 1, 1),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("program", PACKETS, ids=lambda program: program.__name__)
def test_transaction_takes_fewer_packets(
    way: Way, program: Callable[[str], None], make_alias: MakeAlias, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(way.server)
    tap = Tap(way, server)
    with tap.proxy:
        pair = Pair(way, server, make_alias, PORT=str(tap.proxy.port))
        counts = []
        for alias in (pair.lazy, pair.stock):
            connections[alias].close()
            with auto_close_db():
                program(alias)  # warm
                with tap.listening() as heard:
                    program(alias)
            counts.append(len(heard))
            connections[alias].close()
    lazy, *stock = PACKETS[program]
    assert counts == [lazy, stock[way.server != "mariadb"]]


@pytest.mark.parametrize("way", [way for way in WAYS if way.server == "mariadb"], ids=str)
def test_long_statement_has_a_packet_of_its_own(way: Way, make_alias: MakeAlias, mariadb: Any) -> None:
    """The server takes packets up to a limit."""
    tap = Tap(way, mariadb)
    with tap.proxy:
        alias = Pair(way, mariadb, make_alias, PORT=str(tap.proxy.port)).lazy
        connections[alias].close()
        with auto_close_db():
            do(alias, "SELECT 1")  # what made the table may have cost the session its initialisation
        counts = []
        for length in (LONGEST - 1000, LONGEST + 1):
            with auto_close_db(), tap.listening() as heard, transaction.atomic(using=alias):
                do(alias, f"SELECT LENGTH('{'x' * length}')")
            counts.append(len(heard))
        connections[alias].close()
    assert counts == [2, 3]


# --- cases --------------------------------------------------------------------------------------------------

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
    from psycopg.sql import SQL, Identifier

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
        "stream": (streamed, INSERT),
        "pipeline": (pipelined, INSERT),
        "composed": (composed, INSERT),
        "bytes": (partial(execute, b"SELECT 1", None), INSERT),
        "bound at the server": (bound_at_the_server, INSERT),
        "copy": (copy_in, "SELECT COUNT(*) FROM things"),
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


class Undone(Exception):
    """Ends a block with a rollback."""


def in_block(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    try:
        with transaction.atomic(using=alias):
            for step in steps:
                yield outcome(alias, step)
            if not commits:
                raise Undone
    except Exception as error:
        yield type(error).__name__


def in_nested_block(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    try:
        with transaction.atomic(using=alias):
            yield from in_block(alias, steps, commits)
            yield outcome(alias, "SELECT COUNT(*) FROM things")
    except Exception as error:
        yield type(error).__name__


def by_hand(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    """Two transactions without Django's blocks."""
    transaction.set_autocommit(False, using=alias)
    try:
        for _ in range(2):
            for step in steps:
                yield outcome(alias, step)
            yield outcome(alias, transaction.commit if commits else transaction.rollback)
    finally:
        yield outcome(alias, transaction.rollback)
        yield outcome(alias, partial(transaction.set_autocommit, True))


def report(pair: Pair, alias: str, form: Any, steps: tuple[Step, ...], commits: bool) -> list[Any]:
    """Return all that can be seen of a program, with the state of the transaction after each step."""
    HOOKS.clear()
    found: list[Any] = []
    with auto_close_db(), statements(alias) as captured:
        found += [(each, pair.state(alias), is_atomic(alias)[1:]) for each in form(alias, steps, commits)]
        found.append((list(HOOKS), pair.state(alias)))
    savepoints = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
    texts = [str(query["sql"]) for query in captured.captured_queries]
    found.append([text for text in texts if not text.startswith(savepoints)])
    connections[alias].close()
    found.append(outcome(alias, "SELECT id < 1000, name, number FROM things"))
    connections[alias].close()
    return found


@pytest.mark.parametrize(
    ("form", "commits"),
    [(in_block, True), (in_block, False), (in_nested_block, True), (by_hand, True), (by_hand, False)],
    ids=["commit", "rollback", "nested", "commit by hand", "rollback by hand"],
)
def test_cases(pair: Pair, form: Any, commits: bool, tmp_path: Path) -> None:
    """Same rows, counts, errors with their codes and texts, logs, and state of the transaction."""
    FILES["rows"] = tmp_path / "rows"
    FILES["rows"].write_text("from a file\t9\n")
    if pair.way.server == "mariadb":
        for alias in pair.both:
            do(alias, "CREATE PROCEDURE two_results() BEGIN SELECT 1; SELECT name FROM things; END")
    differing = {}
    cases = {**EVERYWHERE, **OF_DIALECT[pair.way.server]}
    assert len(cases) > 70
    for name, steps in cases.items():
        pair.reset()
        stock, lazy = (report(pair, alias, form, steps, commits) for alias in pair.both)
        if stock != lazy:
            differing[name] = [both for both in zip_longest(stock, lazy) if both[0] != both[1]]
    assert differing == {}


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_session_that_dies_before_the_first_statement(pair: Pair, commits: bool) -> None:
    """The statement fails, and so does the COMMIT of a block that goes on after that."""

    def killed(alias: str) -> str:
        wrapper = connections[alias]
        driver = wrapper.connection
        pair.server.kill(driver.thread_id() if wrapper.vendor == "mysql" else driver.info.backend_pid)
        with pytest.raises(DatabaseError) as caught:
            run(alias, "SELECT 1")
        return caught.typename

    found = []
    for alias in pair.both:
        with auto_close_db():
            run(alias, "SELECT 1")
            found.append(list(in_block(alias, (killed,), commits)))
        connections[alias].close()
    stock, lazy = found
    assert lazy == stock


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "options", "cure"),
    [
        ("mysql", {"multi_statements": False}, "multi_statements"),
        ("mysql_pymysql", {}, "CLIENT.MULTI_STATEMENTS"),
        ("postgresql", {"server_side_binding": True}, "server_side_binding"),
        ("sqlite3", {}, "takes no packet"),
    ],
)
def test_drivers_that_cannot_are_refused(
    engine: str, options: dict[str, Any], cure: str, make_alias: MakeAlias
) -> None:
    alias = make_alias(f"poollife.backends.{engine}", OPTIONS=options, POOL={"lazy_begin": True}, NAME="any")
    with pytest.raises(ImproperlyConfigured, match=rf"POOL\['lazy_begin'\].*{cure}"):
        connections[alias].ensure_connection()


def test_autocommit_that_is_off_in_settings(mariadb: Any, make_alias: MakeAlias) -> None:
    """Each statement is in a transaction, which the next borrower does not see."""
    alias = Pair(MYSQLCLIENT, mariadb, make_alias, AUTOCOMMIT=False).lazy
    connections[alias].commit()
    connections[alias].close()
    with auto_close_db():
        do(alias, INSERT)
        assert not connections[alias].get_autocommit()
    with auto_close_db():
        assert ask(alias, "SELECT COUNT(*) FROM things") == 0
        do(alias, INSERT)
        connections[alias].commit()
        do(alias, "INSERT INTO things (name) VALUES ('five')")
    with auto_close_db():
        assert ask(alias, "SELECT COUNT(*) FROM things") == 1


def test_transaction_of_an_earlier_borrower_is_not_begun_by_the_next(
    mariadb: Any, make_alias: MakeAlias
) -> None:
    """A borrower that switches autocommit off and sends nothing leaves nothing."""
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    connections[pair.lazy].close()
    with auto_close_db():
        transaction.set_autocommit(False, using=pair.lazy)
    with auto_close_db():
        do(pair.lazy, INSERT)
    with auto_close_db():
        assert ask(pair.lazy, "SELECT COUNT(*) FROM things") == 1


def test_begin_of_a_borrowers_own_is_committed(mariadb: Any, make_alias: MakeAlias) -> None:
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    for alias in pair.both:
        with auto_close_db():
            do(alias, "BEGIN", INSERT)
            transaction.set_autocommit(False, using=alias)
            connections[alias].commit()
        connections[alias].close()
        assert ask(alias, "SELECT COUNT(*) FROM things") == 1
