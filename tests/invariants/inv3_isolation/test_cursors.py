"""Invariant 3, cursors: nothing that one borrower left unfinished reaches the next."""

from __future__ import annotations

import gc
import linecache
import os
import select
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import MySQLdb
import pytest
from django.db import OperationalError, connections, transaction
from django.db.backends.signals import connection_created
from django.db.utils import InterfaceError
from django.http import HttpRequest, HttpResponse
from MySQLdb.cursors import Cursor, DictCursor, SSCursor, SSDictCursor
from opentelemetry.instrumentation.mysqlclient import MySQLClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poollife.drivers.contract import HELD
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from poollife.errors import PoolTimeout
from poollife.executors import current_frames
from poollife.pools.pool import LeasePool
from poollife.pools.registry import registry
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import Questions, pool_of
from tests.support.handlers import site, wsgi
from tests.support.programs.running import run
from tests.support.web_server import eventually

ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}
TWO_ROWS = "SELECT 1 AS n UNION SELECT 2"
PROCEDURES = """
CREATE PROCEDURE {name}.two_sets() BEGIN SELECT 1; SELECT 2; END;
CREATE PROCEDURE {name}.begins() BEGIN START TRANSACTION; INSERT INTO log VALUES (1); END;
"""


@pytest.fixture
def name(new_database: Callable[[], str], mariadb: MariaDB) -> str:
    """A database with a table and two procedures."""
    name = new_database()
    mariadb.execute(f"CREATE TABLE {name}.log (n INT)")
    for procedure in PROCEDURES.format(name=name).strip().splitlines():
        mariadb.execute(procedure)
    return name


@pytest.fixture
def alias(make_alias: MakeAlias, name: str) -> str:
    """A pool of one connection: whatever is left on it, the next borrower gets."""
    return make_alias(NAME=name, POOL=ONE)


@pytest.fixture
def pool(alias: str) -> LeasePool:
    return pool_of(alias)


@pytest.fixture
def logged(mariadb: MariaDB, name: str) -> Callable[[], int]:
    """A function that counts the rows that are there for everybody to see."""
    return lambda: int(mariadb.execute(f"SELECT COUNT(*) FROM {name}.log")[0][0])


def ask(alias: str, sql: str = "SELECT CONNECTION_ID()") -> Any:
    """The first column of the first row."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def give_back(alias: str) -> None:
    connections[alias].close()


def raw(alias: str) -> Any:
    """The driver's connection."""
    connections[alias].ensure_connection()
    return connections[alias].connection


def in_a_thread(work: Callable[[], object]) -> None:
    """Do it in a new thread, and wait until that has ended."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def wait_for_end(server: MariaDB, session: int) -> None:
    """Wait until the server has noticed that a session is over."""
    eventually("the server knows", lambda: session not in {each.id for each in server.sessions()})


# --- a cursor dies with its lease ---------------------------------------------------------------------------

USES: dict[str, Callable[[Any], object]] = {
    "execute": lambda cursor: cursor.execute("INSERT INTO log VALUES (666)"),
    "executemany": lambda cursor: cursor.executemany("INSERT INTO log VALUES (%s)", [(666,), (667,)]),
    "callproc": lambda cursor: cursor.callproc("two_sets"),
    "fetchone": lambda cursor: cursor.fetchone(),
    "fetchmany": lambda cursor: cursor.fetchmany(2),
    "fetchall": lambda cursor: cursor.fetchall(),
    "nextset": lambda cursor: cursor.nextset(),
    "iteration": lambda cursor: list(cursor),
}


@pytest.fixture(params=["idle", "borrowed"])
def next_borrower(request: pytest.FixtureRequest, alias: str) -> Callable[[], None]:
    """Leave the connection idle, or give it to somebody else."""
    return lambda: None if request.param == "idle" else connections[alias].ensure_connection()


@pytest.mark.parametrize("use", USES)
def test_a_cursor_of_djangos_dies_with_its_lease(
    alias: str, mariadb: MariaDB, logged: Callable[[], int], next_borrower: Callable[[], None], use: str
) -> None:
    cursor = connections[alias].cursor()
    cursor.execute(TWO_ROWS)
    give_back(alias)
    next_borrower()
    with Questions(mariadb) as asked, pytest.raises(InterfaceError, match="went back to the pool"):
        USES[use](cursor)
    assert (asked.count, logged()) == (0, 0)


@pytest.mark.parametrize("cursor_class", [Cursor, DictCursor, SSCursor, SSDictCursor])
@pytest.mark.parametrize("use", USES)
def test_a_cursor_of_the_drivers_dies_with_its_lease(
    alias: str,
    mariadb: MariaDB,
    logged: Callable[[], int],
    next_borrower: Callable[[], None],
    cursor_class: type,
    use: str,
) -> None:
    first = ask(alias)
    cursor = raw(alias).cursor(cursor_class)
    cursor.execute(TWO_ROWS)
    cursor.fetchone()
    give_back(alias)
    if pool_of(alias).closed:
        wait_for_end(mariadb, first)
    next_borrower()
    with Questions(mariadb) as asked, pytest.raises(MySQLdb.InterfaceError, match="went back to the pool"):
        USES[use](cursor)
    assert (asked.count, logged()) == (0, 0)


def test_a_cursor_stays_dead_when_its_thread_borrows_the_same_connection_again(alias: str) -> None:
    cursor = connections[alias].cursor()
    first = ask(alias)
    give_back(alias)
    assert ask(alias) == first
    with pytest.raises(InterfaceError, match="went back to the pool"):
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda connection: connection.cursor(), id="cursor"),
        pytest.param(lambda connection: connection.query("INSERT INTO log VALUES (666)"), id="query"),
        pytest.param(lambda connection: connection.send_query("DO 1"), id="send_query"),
        pytest.param(lambda connection: connection.begin(), id="begin"),
        pytest.param(lambda connection: connection.commit(), id="commit"),
        pytest.param(lambda connection: connection.rollback(), id="rollback"),
        pytest.param(lambda connection: connection.autocommit(False), id="autocommit"),
        pytest.param(lambda connection: connection.select_db("mysql"), id="select_db"),
        pytest.param(lambda connection: connection.set_character_set("latin1"), id="set_character_set"),
        pytest.param(lambda connection: connection.ping(), id="ping"),
    ],
)
def test_an_idle_connection_works_for_nobody(
    alias: str, mariadb: MariaDB, logged: Callable[[], int], use: Callable[[Any], object]
) -> None:
    """Whoever has kept the driver's connection itself is refused, until somebody else has it."""
    connection = raw(alias)
    first = ask(alias)
    give_back(alias)
    with Questions(mariadb) as asked, pytest.raises(MySQLdb.InterfaceError, match="pool"):
        use(connection)
    assert (asked.count, logged()) == (0, 0)
    assert (ask(alias), ask(alias, "SELECT DATABASE()")) == (first, connections[alias].settings_dict["NAME"])


CLOSINGS: dict[str, Callable[[Any], object]] = {
    "close": lambda cursor: cursor.close(),
    "with": lambda cursor: cursor.__exit__(None, None, None),
}


@pytest.mark.parametrize("closing", CLOSINGS)
def test_closing_a_dead_cursor_sends_nothing(
    alias: str, mariadb: MariaDB, next_borrower: Callable[[], None], closing: str
) -> None:
    cursor = connections[alias].cursor()
    cursor.execute(TWO_ROWS)
    give_back(alias)
    next_borrower()
    with Questions(mariadb) as asked:
        CLOSINGS[closing](cursor)
        CLOSINGS[closing](cursor)
    assert asked.count == 0


@pytest.mark.parametrize("closing", [*CLOSINGS, "garbage"])
def test_closing_a_dead_cursor_takes_nothing_from_the_next_borrower(alias: str, closing: str) -> None:
    """Neither the result that is on its way, nor the number of rows."""
    dead = raw(alias).cursor()
    dead.execute(TWO_ROWS)
    give_back(alias)

    ask(alias, "SELECT 1; SELECT 2")
    connection = raw(alias)
    ask(alias)
    connection.query("INSERT INTO log VALUES (1), (2), (3); SELECT 4")
    if closing in CLOSINGS:
        CLOSINGS[closing](dead)
    else:
        del dead
        gc.collect()
    assert connection.affected_rows() == 3
    connection.store_result()
    assert connection.next_result() == 0
    assert connection.store_result().fetch_row(0) == ((4,),)


def test_an_open_cursor_does_not_keep_its_lease_nor_the_lease_its_cursors(
    alias: str, pool: LeasePool
) -> None:
    cursor = raw(alias).cursor()
    reference = weakref.ref(cursor)
    give_back(alias)
    assert pool.out == 0
    connections[alias].ensure_connection()
    del cursor
    assert reference() is None


# --- an open transaction is rolled back ---------------------------------------------------------------------


def run_sql(sql: str) -> Callable[[str], object]:
    """Run it, and read all of its results."""

    def run_it(alias: str) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)
            while cursor.nextset():
                pass

    return run_it


def finished_block(alias: str) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        ask(alias)


def failed_query(alias: str) -> None:
    with pytest.raises(OperationalError):
        ask(alias, "SELECT no_such_column")


def failed_block(alias: str) -> None:
    with pytest.raises(OperationalError), transaction.atomic(using=alias):
        ask(alias, "SELECT no_such_column")


def autocommit_off_and_on(alias: str) -> None:
    connections[alias].set_autocommit(False)
    connections[alias].set_autocommit(True)


CLEAN: dict[str, Callable[[str], object]] = {
    "nothing": raw,
    "select": ask,
    "lower case": run_sql("\n\tselect 1"),
    "in parentheses": run_sql("(SELECT 1) UNION (SELECT 2)"),
    "with": run_sql("WITH one AS (SELECT 1) SELECT * FROM one"),
    "insert": run_sql("INSERT INTO log VALUES (1)"),
    "update": run_sql("UPDATE log SET n = 2"),
    "delete": run_sql("DELETE FROM log"),
    "for update": run_sql("SELECT * FROM log FOR UPDATE"),
    "savepoint": run_sql("SAVEPOINT lonely"),
    "explain": run_sql("EXPLAIN SELECT 1"),
    "an atomic block": finished_block,
    "a failed query": failed_query,
    "a failed block": failed_block,
    "autocommit off and on": autocommit_off_and_on,
}


@pytest.mark.parametrize("work", CLEAN)
def test_giving_back_a_clean_session_sends_nothing(
    alias: str, pool: LeasePool, mariadb: MariaDB, work: str
) -> None:
    CLEAN[work](alias)
    first = ask(alias)
    with Questions(mariadb) as asked:
        give_back(alias)
        connections[alias].ensure_connection()
    assert asked.count == 0
    assert (ask(alias), pool.closed) == (first, 0)


def failed_query_inside(alias: str) -> None:
    run_sql("BEGIN")(alias)
    failed_query(alias)


#: What a reset costs: ROLLBACK, SET ROLE, SELECT 1, a change of user and SET NAMES.
RESET = 5
OPEN: dict[str, Callable[[str], object]] = {
    "begin": run_sql("BEGIN"),
    "begin work": run_sql("BEGIN WORK"),
    "lower case": run_sql("begin"),
    "white space": run_sql(" \n\t  BEGIN"),
    "much white space": run_sql(" " * 100 + "BEGIN"),
    "start transaction": run_sql("START TRANSACTION"),
    "with snapshot": run_sql("start transaction with consistent snapshot"),
    "comment": run_sql("/* the monthly report */ BEGIN"),
    "comment that looks harmless": run_sql("/*SELECT*/BEGIN"),
    "line comment": run_sql("-- SELECT\nBEGIN"),
    "hash comment": run_sql("# SELECT\nBEGIN"),
    "executable comment": run_sql("/*!40000 BEGIN */"),
    "after a select": run_sql("SELECT 1; BEGIN"),
    "after an insert": run_sql("INSERT INTO log (n) SELECT 1 FROM DUAL WHERE 1 = 0; BEGIN"),
    "after two": run_sql("SELECT 1; SELECT 2; BEGIN; SELECT 3"),
    "committed and chained": run_sql("BEGIN; COMMIT AND CHAIN"),
    "call": run_sql("CALL begins()"),
    "prepared": run_sql("PREPARE it FROM 'START TRANSACTION'; EXECUTE it; DEALLOCATE PREPARE it"),
    "immediate": run_sql("EXECUTE IMMEDIATE 'START TRANSACTION'"),
    "compound": run_sql("BEGIN NOT ATOMIC START TRANSACTION; END"),
    "savepoint inside": run_sql("BEGIN; SAVEPOINT one; RELEASE SAVEPOINT one"),
    "the driver's begin()": lambda alias: raw(alias).begin(),
    "failed query inside": failed_query_inside,
    "autocommit off": run_sql("SET autocommit = 0"),
    "autocommit off, by its full name": run_sql("set session AUTOCOMMIT = OFF"),
    "autocommit off after a select": run_sql("SELECT 1; SET autocommit = 0"),
    "autocommit off and begin": run_sql("SET autocommit = 0; BEGIN"),
}

#: Nothing else can have been left: ROLLBACK and SET autocommit=1.
SWITCHED_OFF: dict[str, Callable[[str], object]] = {
    "Django's set_autocommit": lambda alias: connections[alias].set_autocommit(False),
    "the driver's autocommit": lambda alias: raw(alias).autocommit(False),
}

#: What only looks as if it might have left something costs the same.
SUSPECT: dict[str, Callable[[str], object]] = {
    "do": run_sql("DO 1"),
    "two statements": run_sql("SELECT 1; SELECT 2"),
    "committed": run_sql("BEGIN; COMMIT"),
}


@pytest.mark.parametrize(
    ("work", "statements"),
    [pytest.param(work, RESET, id=name) for name, work in OPEN.items()]
    + [pytest.param(work, 2, id=f"off: {name}") for name, work in SWITCHED_OFF.items()],
)
def test_an_open_transaction_is_rolled_back(
    alias: str,
    pool: LeasePool,
    mariadb: MariaDB,
    logged: Callable[[], int],
    work: Callable[[str], object],
    statements: int,
) -> None:
    first = ask(alias)
    work(alias)
    ask(alias, "INSERT INTO log VALUES (666) RETURNING n")
    assert ask(alias, "SELECT @@in_transaction") == 1
    with Questions(mariadb) as asked:
        give_back(alias)
    assert asked.count == statements
    assert logged() == 0
    # The same session, as new: what the next borrower writes stays.
    assert (ask(alias), pool.closed) == (first, 0)
    assert (ask(alias, "SELECT @@in_transaction"), ask(alias, "SELECT @@autocommit")) == (0, 1)
    ask(alias, "INSERT INTO log VALUES (1) RETURNING n")
    assert logged() == 1
    with Questions(mariadb) as asked:
        give_back(alias)
    assert asked.count == 0


@pytest.mark.parametrize("work", SUSPECT)
def test_a_false_suspicion_costs_one_reset(alias: str, mariadb: MariaDB, work: str) -> None:
    SUSPECT[work](alias)
    for statements in RESET, 0:
        with Questions(mariadb) as asked:
            give_back(alias)
        assert asked.count == statements
        ask(alias)


def test_a_lock_in_an_open_transaction_is_released(alias: str, mariadb: MariaDB, name: str) -> None:
    mariadb.execute(f"INSERT INTO {name}.log VALUES (1)")
    run_sql("BEGIN; SELECT * FROM log FOR UPDATE")(alias)
    give_back(alias)
    assert mariadb.execute(f"SELECT n FROM {name}.log FOR UPDATE NOWAIT") == [(1,)]


def test_a_distributed_transaction_costs_the_session(
    alias: str, pool: LeasePool, mariadb: MariaDB, logged: Callable[[], int]
) -> None:
    """No ROLLBACK ends it, so the connection's end does."""
    first = ask(alias)
    run_sql("XA START 'one'")(alias)
    run_sql("INSERT INTO log VALUES (666)")(alias)
    give_back(alias)
    assert (pool.out, pool.closed) == (0, 1)
    assert ask(alias) != first
    assert (logged(), mariadb.execute("XA RECOVER")) == (0, [])


def test_autocommit_switched_off_in_the_settings_stays_off(
    make_alias: MakeAlias, name: str, logged: Callable[[], int]
) -> None:
    alias = make_alias(NAME=name, POOL=ONE, AUTOCOMMIT=False)
    for _ in range(2):
        ask(alias, "INSERT INTO log VALUES (666) RETURNING n")
        assert ask(alias, "SELECT @@autocommit") == 0
        give_back(alias)
    assert logged() == 0
    assert pool_of(alias).opened == 1


def test_django_knows_the_state_of_what_it_borrows(alias: str) -> None:
    connections[alias].set_autocommit(False)
    give_back(alias)
    assert connections[alias].get_autocommit()
    with transaction.atomic(using=alias):
        assert ask(alias, "SELECT @@autocommit") == 0
    assert ask(alias, "SELECT @@autocommit") == 1


# --- unread results cost the session ------------------------------------------------------------------------


def cursor_with(sql: str, cursor_class: type = Cursor, read: int = 0) -> Callable[[str], object]:
    """Open, execute, and leave it like that."""

    def leave(alias: str) -> object:
        cursor = raw(alias).cursor(cursor_class)
        cursor.execute(sql)
        for _ in range(read):
            cursor.fetchone()
        return cursor

    return leave


def forgotten(alias: str) -> None:
    cursor_with("SELECT seq FROM seq_1_to_1000", SSCursor, read=1)(alias)
    gc.collect()


UNREAD: dict[str, Callable[[str], object]] = {
    "half read": cursor_with("SELECT seq FROM seq_1_to_100000", SSCursor, read=1),
    "half read, small": cursor_with("SELECT seq FROM seq_1_to_3", SSCursor, read=1),
    "never read": cursor_with("SELECT 1", SSCursor),
    "read, but for the end": cursor_with("SELECT 1", SSCursor, read=1),
    "more statements": cursor_with("SELECT 1; SELECT 2", read=1),
    "more statements without rows": cursor_with("SELECT 1; SET @x = 1", read=1),
    "more unbuffered statements": cursor_with("SELECT 1; SELECT 2", SSCursor, read=2),
    "call": cursor_with("CALL two_sets()"),
    "sent": lambda alias: raw(alias).send_query("SELECT 1"),
    "sent and answered": lambda alias: (raw(alias).send_query("SELECT 1"), raw(alias).read_query_result()),
    "queried": lambda alias: raw(alias).query("SELECT 1"),
    "next of them queried": lambda alias: (
        raw(alias).query("DO 1; SELECT 1"),
        raw(alias).store_result(),
        raw(alias).next_result(),
    ),
}


@pytest.mark.parametrize("leave", UNREAD)
def test_unread_results_cost_the_session(alias: str, pool: LeasePool, leave: str) -> None:
    first = ask(alias)
    kept = UNREAD[leave](alias)
    give_back(alias)
    assert (pool.out, pool.closed) == (0, 1)
    assert ask(alias) != first
    assert [ask(alias, f"SELECT {number}") for number in range(5)] == [0, 1, 2, 3, 4]
    del kept
    gc.collect()
    assert ask(alias, "SELECT 5") == 5


@pytest.mark.skipif(not hasattr(MySQLdb._mysql.connection, "more_results"), reason="needs mysqlclient 2.3")
def test_giving_back_does_not_wait_for_a_result_that_is_still_being_made(
    alias: str, pool: LeasePool, mariadb: MariaDB
) -> None:
    def is_asleep() -> bool:
        return any("SLEEP" in str(each.info) for each in mariadb.sessions() if each.id == first)

    first = ask(alias)
    raw(alias).query("SELECT 1; SELECT SLEEP(30)")
    raw(alias).store_result()
    eventually("it is asleep", is_asleep)
    give_back(alias)
    assert (pool.out, pool.closed) == (0, 1)
    assert is_asleep()
    mariadb.execute(f"KILL {first}")


READ: dict[str, Callable[[str], object]] = {
    "buffered, rows left": cursor_with("SELECT seq FROM seq_1_to_1000", read=1),
    "dict, rows left": cursor_with("SELECT seq FROM seq_1_to_1000", DictCursor, read=1),
    "unbuffered, to its end": cursor_with("SELECT 1", SSCursor, read=2),
    "unbuffered, all": lambda alias: cursor_with(TWO_ROWS, SSCursor)(alias).fetchall(),  # type: ignore[attr-defined]
    "unbuffered, closed": lambda alias: cursor_with(TWO_ROWS, SSCursor, read=1)(alias).close(),  # type: ignore[attr-defined]
    "unbuffered, forgotten": forgotten,  # freed, the driver reads the rest
    "unbuffered, none": cursor_with("SELECT 1 FROM DUAL WHERE 1 = 0", SSCursor, read=1),
    "call": run_sql("CALL two_sets()"),
    "more statements": run_sql("SELECT 1; SELECT 2; DO 1"),
    "queried and stored": lambda alias: (raw(alias).query("SELECT 1"), raw(alias).store_result()),
    "queried without rows": lambda alias: raw(alias).query("DO 1"),
}


@pytest.mark.parametrize("work", READ)
def test_results_that_were_read_do_not_cost_the_session(alias: str, pool: LeasePool, work: str) -> None:
    first = ask(alias)
    kept = READ[work](alias)
    give_back(alias)
    assert (ask(alias), pool.closed) == (first, 0)
    del kept
    gc.collect()
    assert (ask(alias), pool.closed) == (first, 0)


def test_an_error_in_the_second_statement_does_not_cost_the_session(alias: str, pool: LeasePool) -> None:
    first = ask(alias)
    with pytest.raises(OperationalError, match="no_such_column"):
        run_sql("SELECT 1; SELECT no_such_column; SELECT 3")(alias)
    give_back(alias)
    assert (ask(alias), pool.closed) == (first, 0)


# --- sessions that die --------------------------------------------------------------------------------------


def test_sessions_killed_while_idle_are_replaced_unseen(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL={"pool_size": 5, "max_overflow": 0})
    pool, barrier = pool_of(alias), threading.Barrier(5)
    descriptors, ids, errors = [], [], []

    def borrow() -> None:
        try:
            session = raw(alias)
            ids.append(session.thread_id())
            descriptors.append(session.fileno())
            barrier.wait(30)  # all at once, so that each has one of its own
        except Exception as error:
            errors.append(error)
        finally:
            give_back(alias)

    def in_threads() -> None:
        threads = [threading.Thread(target=borrow) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_threads()
    for session in ids:
        mariadb.execute(f"KILL {session}")
    for descriptor in descriptors:
        select.select([descriptor], [], [], 30)
    in_threads()
    assert errors == []
    assert len(set(ids)) == 10
    assert (pool.out, pool.opened, pool.closed) == (0, 10, 5)


def test_a_connection_closed_in_an_atomic_block_does_not_come_back(
    alias: str, pool: LeasePool, logged: Callable[[], int]
) -> None:
    first = ask(alias)

    def work() -> None:
        with transaction.atomic(using=alias):
            ask(alias, "INSERT INTO log VALUES (666) RETURNING n")
            raw(alias).close()
            ask(alias)

    with pytest.raises(OperationalError):
        work()
    give_back(alias)
    assert (pool.out, logged()) == (0, 0)
    assert ask(alias) != first


# --- an exception in the middle -----------------------------------------------------------------------------


class Interruption(BaseException):
    """Comes from outside, as a signal's handler raises it."""


class Interrupt:
    """Raises ``Interruption`` at the nth line that is run of these modules."""

    def __init__(self, line: int, *modules: str) -> None:
        self.left = line
        self._modules = modules

    def __enter__(self) -> Interrupt:
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(self._modules) or is_in_destructor(frame):
            return None
        if event == "line" and source_of(frame) not in ("with self._lock:", "try:"):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise Interruption(f"{module}:{frame.f_lineno}")
        return self


def is_in_destructor(frame: FrameType | None) -> bool:
    """What is raised in there has nowhere to go."""
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def source_of(frame: FrameType) -> str:
    """The line that it is at."""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage has the trace function")
@pytest.mark.parametrize("cursor_class", [Cursor, SSCursor])
@pytest.mark.parametrize("sql", ["SELECT 111 UNION SELECT 222", "SELECT 111; SELECT 222", "CALL two_sets()"])
def test_an_exception_at_any_line_reaches_nobody_else(
    alias: str, pool: LeasePool, cursor_class: type, sql: str
) -> None:
    """Wherever it strikes: the session comes back in step, or not at all."""
    kept, line, struck = [], 0, True
    while struck:
        line += 1
        connection = raw(alias)
        try:
            with Interrupt(line, "MySQLdb.", "poollife.drivers."):
                kept.append(connection.cursor(cursor_class))
                kept[-1].execute(sql)
                kept[-1].fetchall()
                kept[-1].nextset()
        except Interruption as interruption:
            where = str(interruption)
        else:
            struck = False
        give_back(alias)
        assert pool.out == 0, where
        assert [ask(alias, f"SELECT {number}") for number in range(3)] == [0, 1, 2], where
        assert connections[alias].get_autocommit()
        give_back(alias)
    assert line > 30


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage has the trace function")
@pytest.mark.parametrize("way", ["there", "back"])
def test_an_exception_at_any_line_of_the_pool_costs_no_slot(make_alias: MakeAlias, way: str) -> None:
    """Either the borrower has the connection or the pool has it: on the way there, and on the way back."""
    alias = make_alias(POOL={**ONE, "timeout": 0})
    pool, line, struck, answers = pool_of(alias), 0, True, list[int]()
    while struck:
        line += 1
        leases: set[Any] = set()
        if way == "back":
            run_sql("BEGIN")(alias)
            leases = pool.leases.copy()
        try:
            with Interrupt(line, "poollife.pools.", "poollife.backends."):
                raw(alias) if way == "there" else give_back(alias)
        except Interruption as interruption:
            where = str(interruption)
        else:
            struck = False
        if any(lease.state is not HELD for lease in leases):
            in_a_thread(lambda: answers.append(ask(alias, "SELECT 1")))
            assert answers.pop() == 1, where
        give_back(alias)
        assert ask(alias, "SELECT 1") == 1, where
        assert pool.out == 1, where
        give_back(alias)
        assert pool.out == 0, where
    assert line > 20


def test_a_signal_in_the_middle_of_a_query_costs_the_session(
    alias: str, pool: LeasePool, mariadb: MariaDB
) -> None:
    """Nobody knows what is on the wire. Ctrl-C comes like this, and Celery's soft time limit."""

    def handler(number: int, frame: object) -> None:
        raise Interruption

    def send_signal() -> None:
        eventually(
            "it is asleep",
            lambda: any("SLEEP" in str(each.info) for each in mariadb.sessions() if each.id == first),
        )
        os.kill(os.getpid(), signal.SIGUSR1)

    first = ask(alias)
    sender = threading.Thread(target=send_signal)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        sender.start()
        with pytest.raises(Interruption):
            ask(alias, "SELECT SLEEP(1)")
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    give_back(alias)
    assert (pool.out, pool.closed) == (0, 1)
    assert ask(alias) != first


# --- APM tools wrap connect() -------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """OpenTelemetry's instrumentation of mysqlclient, and what it has recorded."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = MySQLClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()


def test_a_traced_connection_is_pooled_and_guarded(
    spans: InMemorySpanExporter, alias: str, pool: LeasePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[Any] = []
    traced_connect = MySQLdb.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        returned.append(traced_connect(*args, **kwargs))
        return returned[-1]

    monkeypatch.setattr(MySQLdb, "connect", connect)
    for _ in range(3):
        assert raw(alias) is returned[0]
        ask(alias, "SELECT 1")
        cursor = connections[alias].cursor()
        cursor.execute("SELECT 2")
        give_back(alias)
        for use in USES.values():
            with pytest.raises((InterfaceError, MySQLdb.InterfaceError), match="went back to the pool"):
                use(cursor)
        cursor.close()
    assert type(returned[0]) is not GuardedConnection
    assert (len(returned), pool.opened, pool.closed, pool.out) == (1, 1, 0, 0)
    statements = [(span.attributes or {})["db.statement"] for span in spans.get_finished_spans()]
    assert [statement for statement in statements if statement in ("SELECT 1", "SELECT 2")] == [
        "SELECT 1",
        "SELECT 2",
    ] * 3


@pytest.mark.usefixtures("spans")
@pytest.mark.parametrize("work", ["half read", "more statements", "call"])
def test_unread_results_cost_a_traced_session(alias: str, pool: LeasePool, work: str) -> None:
    first = ask(alias)
    kept = UNREAD[work](alias)
    give_back(alias)
    assert ask(alias) != first
    assert pool.closed == 1
    del kept


@pytest.mark.usefixtures("spans")
def test_a_traced_session_is_reset_if_something_was_left(alias: str, pool: LeasePool) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT %s", ["me@example.com"])
    give_back(alias)
    assert pool.resets == 0
    run_sql("SET @left = 1")(alias)
    give_back(alias)
    assert (ask(alias, "SELECT @left"), pool.resets) == (None, 1)


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True], ids=["os.fork", "bare fork"])
def test_a_traced_connection_is_refused_in_a_child(mariadb: MariaDB, name: str, bare: bool) -> None:
    report = run("traced_fork", mariadb.database(name), bare)
    assert report["traced"] != GuardedConnection.__name__
    child = report["child"]
    assert (child["status"], child["refusals"]) == (0, ["InterfaceError"] * 5)
    assert child["session"] != report["before"]
    assert report["rows"] == [[1], [2]]
    assert report["after"] == report["before"]


# --- once per physical connection ---------------------------------------------------------------------------


def test_a_new_thread_asks_the_server_nothing_of_its_own(alias: str, mariadb: MariaDB) -> None:
    """Each thread has a wrapper of its own, and Django asks for the server's version once per wrapper."""

    def work() -> None:
        assert connections[alias].mysql_version  # type: ignore[attr-defined]
        ask(alias)
        give_back(alias)

    in_a_thread(work)
    with Questions(mariadb) as asked:
        for _ in range(10):
            in_a_thread(work)
    assert asked.count == 10


def test_connection_created_is_sent_once_per_session(alias: str, mariadb: MariaDB) -> None:
    sent: list[Any] = []

    def receiver(connection: Any, **_: Any) -> None:
        sent.append(connection.connection)
        # Receivers set up sessions; and what they set up is no reason to clean it away.
        with connection.cursor() as cursor:
            cursor.execute("SET @set_up = 'yes'")

    connection_created.connect(receiver)
    try:
        for _ in range(5):
            first = ask(alias)
            with Questions(mariadb) as asked:
                give_back(alias)
            assert asked.count == 0
        assert ask(alias, "SELECT @set_up") == "yes"
        assert len(sent) == 1
        raw(alias).close()
        give_back(alias)
        assert ask(alias) != first
        assert ask(alias, "SELECT @set_up") == "yes"
        assert len(sent) == 2
    finally:
        connection_created.disconnect(receiver)


def test_a_session_is_set_up_once(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(
        POOL=ONE, OPTIONS={"isolation_level": "serializable", "init_command": "SET @started = 1"}
    )
    ask(alias)
    give_back(alias)
    with Questions(mariadb) as asked:
        for _ in range(10):
            assert ask(alias, "SELECT @@tx_isolation") == "SERIALIZABLE"
            give_back(alias)
    assert asked.count == 10
    assert ask(alias, "SELECT @started") == 1


def test_a_session_that_could_not_be_set_up_leaves_its_slot(alias: str, pool: LeasePool) -> None:
    def receiver(**_: Any) -> None:
        raise RuntimeError("a receiver that fails")

    connection_created.connect(receiver)
    try:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="a receiver that fails"):
                ask(alias)
            assert pool.out == 0
    finally:
        connection_created.disconnect(receiver)
    ask(alias)
    assert (pool.out, pool.opened, pool.closed) == (1, 4, 3)


# --- how long a session lives -------------------------------------------------------------------------------


@pytest.mark.parametrize(("wait_timeout", "recycle"), [(28800, 3600.0), (100, 90.0)])
def test_sessions_are_replaced_before_the_server_ends_them(
    make_alias: MakeAlias, wait_timeout: int, recycle: float
) -> None:
    with MariaDB(options=[f"--wait-timeout={wait_timeout}"]) as server:
        server.create_database("first")
        server.create_database("second")
        costs = []
        for name in "first", "second":
            alias = make_alias(server=server, NAME=name, POOL=ONE)
            with Questions(server) as asked:
                ask(alias)
            costs.append(asked.count)
            assert pool_of(alias).liveness.recycle == recycle
        # The second pool did not ask the same server again how long it waits.
        assert costs[0] - costs[1] == 1

        first = ask(alias)
        raw(alias).born -= 0.89 * recycle
        give_back(alias)
        assert ask(alias) == first
        raw(alias).born -= 0.12 * recycle
        give_back(alias)
        assert ask(alias) != first
        give_back(alias)


@pytest.mark.parametrize(("recycle", "replaced"), [(60, True), (-1, False)])
def test_recycle_can_be_set(make_alias: MakeAlias, recycle: int, replaced: bool) -> None:
    alias = make_alias(POOL={**ONE, "recycle": recycle})
    first = ask(alias)
    raw(alias).born -= 61
    give_back(alias)
    assert (ask(alias) != first) is replaced


def test_connections_to_no_database_are_never_pooled(alias: str, mariadb: MariaDB) -> None:
    ids = []
    for _ in range(3):
        with connections[alias]._nodb_cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            ids.append(cursor.fetchone()[0])
    assert len(set(ids)) == 3
    assert [
        (pool.opened - pool.closed, pool.out) for pool in registry.pools() if pool.key.alias != alias
    ] == [(0, 0)]
    eventually("the server sees none", lambda: not [each for each in mariadb.sessions() if each.db is None])


# --- when all are out ---------------------------------------------------------------------------------------


def test_exhaustion_tells_who_has_them_and_what_to_do(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 1, "timeout": 0.1})
    raw(alias)
    borrowed, done = threading.Event(), threading.Event()

    def hold() -> None:
        raw(alias)
        borrowed.set()
        done.wait(30)
        give_back(alias)

    holder = threading.Thread(target=hold, name="monthly-report")
    holder.start()
    messages = []

    def wait() -> None:
        with pytest.raises(PoolTimeout) as caught:
            raw(alias)
        messages.append(str(caught.value))

    waiter = threading.Thread(target=wait)
    try:
        assert borrowed.wait(30)
        waiter.start()
        waiter.join()
    finally:
        done.set()
        holder.join()
    assert issubclass(PoolTimeout, OperationalError)
    (message,) = messages
    for part in (
        f"pool {alias!r}",
        "within 0.1 s",
        "all 2 are out",
        "thread MainThread for ",
        "thread monthly-report for ",
        f'DATABASES[{alias!r}]["POOL"]',
        "pool_size=1",
        "max_overflow=1",
        "timeout=0.1",
    ):
        assert part in message


def test_exhaustion_names_the_request_that_has_it(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.1})
    messages = []

    def wait() -> None:
        with pytest.raises(PoolTimeout) as caught:
            raw(alias)
        messages.append(str(caught.value))

    def view(request: HttpRequest) -> HttpResponse:
        raw(alias)
        in_a_thread(wait)
        return HttpResponse()

    with site(view=view):
        wsgi("/view").close()
    assert "GET /view in thread MainThread for " in messages[0]


def is_waiting(thread: threading.Thread) -> bool:
    """Whether it stands in the pool's queue right now."""
    frame = current_frames().get(thread.ident or 0)
    return frame is not None and "signal.acquire" in source_of(frame)


LEFT: dict[str, tuple[Callable[[str], object], int]] = {
    "nothing": (raw, 0),
    "a transaction": (run_sql("BEGIN; INSERT INTO log VALUES (666)"), 0),
    "rows": (cursor_with("SELECT seq FROM seq_1_to_100000", SSCursor, read=1), 1),
    "a closed connection": (lambda alias: raw(alias).close(), 1),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("collected", [True, False], ids=["collected", "not yet collected"])
def test_a_thread_that_has_died_holds_nothing(
    alias: str, pool: LeasePool, logged: Callable[[], int], left: str, collected: bool
) -> None:
    """What it borrowed is there for the next, whether the garbage collector has found its wrapper or not."""
    work, thrown_away = LEFT[left]

    def borrow_and_die() -> None:
        threading.current_thread().kept = work(alias)  # type: ignore[attr-defined]

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            in_a_thread(borrow_and_die)
            if collected:
                gc.collect()
            assert ask(alias, "SELECT 1") == 1
            give_back(alias)
    finally:
        gc.enable()
    assert (pool.out, pool.checkouts, pool.closed, logged()) == (0, 6, 3 * thrown_away, 0)


@pytest.mark.parametrize("left", LEFT)
def test_a_wrapper_that_was_dropped_holds_nothing(
    alias: str, pool: LeasePool, logged: Callable[[], int], left: str
) -> None:
    """Its thread lives on, so only the garbage collector can tell."""
    work, thrown_away = LEFT[left]
    kept = []
    for _ in range(3):
        kept.append(work(alias))
        del connections[alias]
        gc.collect()
        assert ask(alias, "SELECT 1") == 1
        give_back(alias)
    assert (pool.out, pool.checkouts, pool.closed, logged()) == (0, 6, 3 * thrown_away, 0)


@pytest.mark.parametrize("left", LEFT)
def test_a_waiter_gets_what_a_dead_thread_left(make_alias: MakeAlias, name: str, left: str) -> None:
    alias = make_alias(NAME=name, POOL={**ONE, "timeout": 2})
    pool, (work, _) = pool_of(alias), LEFT[left]
    borrowed, die = threading.Event(), threading.Event()
    got = []

    def borrow_and_die() -> None:
        work(alias)
        borrowed.set()
        die.wait(30)

    def wait() -> None:
        got.append(ask(alias, "SELECT 1"))
        give_back(alias)

    holder, waiter = threading.Thread(target=borrow_and_die), threading.Thread(target=wait)
    holder.start()
    assert borrowed.wait(30)
    waiter.start()
    eventually("it waits", lambda: is_waiting(waiter))
    die.set()
    holder.join()
    gc.collect()
    waiter.join()
    assert (got, pool.out) == ([1], 0)


class Meanwhile:
    """At the nth line of poollife's pools that this thread runs, another thread gets in between.

    The object itself is the trace function. A bound method would be freed by ``settrace(None)`` while it
    runs, and CPython 3.11 may call what takes its place in memory.
    """

    def __init__(self, line: int, other: threading.Thread, until: threading.Event) -> None:
        self.left = line
        self._other, self._until = other, until

    def __enter__(self) -> Meanwhile:
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("poollife.pools."):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self._other.start()
                # It may have to wait for this thread: for a lock, or for the connection itself.
                eventually("its turn is over", lambda: self._until.is_set() or is_blocked(self._other))
        return self


def is_blocked(thread: threading.Thread) -> bool:
    """Whether it waits for something, or stands still in a line of poollife's that takes a lock."""
    frame = current_frames().get(thread.ident or 0)
    if frame is None or is_waiting(thread):
        return frame is not None
    return frame.f_globals["__name__"].startswith("poollife.") and source_of(frame) == "with self._lock:"


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage has the trace function")
def test_two_that_find_the_same_dead_thread_do_not_both_take_its_connection_back(
    alias: str, pool: LeasePool, logged: Callable[[], int]
) -> None:
    """By then it may be somebody else's: whose transaction must not be rolled back, nor his cursor read."""

    def take_it_and_work() -> None:
        pool.reclaim()
        run_sql("BEGIN; INSERT INTO log VALUES (1)")(alias)
        begun.set()
        assert done.wait(30)
        in_transaction.append(ask(alias, "SELECT @@in_transaction"))
        raw(alias).commit()
        give_back(alias)

    line, struck, in_transaction = 0, True, list[int]()
    while struck:
        line += 1
        in_a_thread(lambda: run_sql("BEGIN")(alias))
        begun, done = threading.Event(), threading.Event()
        other = threading.Thread(target=take_it_and_work)
        with Meanwhile(line, other, begun) as meanwhile:
            pool.reclaim()
        struck = meanwhile.left <= 0
        done.set()
        if struck:
            other.join()
            assert in_transaction == [1] * line, f"after {line} lines"
            assert (logged(), pool.out, pool.closed) == (line, 0, 0), f"after {line} lines"
    assert line > 10
    assert ask(alias, "SELECT 1") == 1
