"""Invariant 7, errors that say "not this session" or "not this server": each number has its meaning."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import MySQLdb
import pymysql
import pytest
from django.db import DatabaseError, connections
from MySQLdb.constants import CR, ER

from benchmarks.wiretap import Wiretap
from poollife.drivers.mysql import mysqlclient
from poollife.drivers.mysql import pymysql as pymysql_driver
from poollife.drivers.mysql.errors import MEANINGS, verdict_on
from poollife.drivers.verdicts import Verdict
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.cluster import Cluster
from tests.support.counting import pool_of
from tests.support.web_server import eventually

MYSQLCLIENT, PYMYSQL = "poollife.backends.mysql", "poollife.backends.mysql_pymysql"
ENGINES: dict[str, dict[str, Any]] = {MYSQLCLIENT: {}, PYMYSQL: {"OPTIONS": {"ssl_disabled": True}}}
SIZE = 3
POOL = {"pool_size": SIZE, "max_overflow": 0, "timeout": 10}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def ask(alias: str, sql: str = "SELECT 1") -> Any:
    """One request: the first column of the first row, or the error's number."""
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
            return row and row[0]
    except DatabaseError as error:
        return error.args[0]
    finally:
        connections[alias].close()


def fill(alias: str) -> None:
    """Have the pool open all that it may have."""
    borrowers = [connections.create_connection(alias) for _ in range(SIZE)]
    for borrower in borrowers:
        borrower.ensure_connection()
    for borrower in borrowers:
        borrower.close()


# --- the table ----------------------------------------------------------------------------------------------


def names_of(constants: Any) -> dict[int, str]:
    return {number: name for name, number in vars(constants).items() if isinstance(number, int)}


#: The driver's own tables end before MySQL 5.7, and leave out two of the server's log.
KNOWN = names_of(ER) | names_of(CR)


@pytest.mark.parametrize("code", sorted(MEANINGS.keys() & KNOWN.keys()))
def test_the_table_names_errors_as_the_driver_does(code: int) -> None:
    assert MEANINGS[code].name == KNOWN[code]


def test_most_of_the_table_was_compared() -> None:
    assert len(MEANINGS.keys() - KNOWN.keys()) <= 11


#: A message of each number that stands for something else as well, where it does.
OTHERS: dict[int, str] = {1047: "Unknown command", 1290: "running with the --secure-file-priv option"}
#: Errors that are about one statement only, and look as if they were not.
STATEMENTS = [1046, 1146, 1205, 1213, 1317, 1969, 3024, 3100, 3101, 3572]


@pytest.mark.parametrize("code", [*OTHERS, *STATEMENTS])
def test_an_error_about_one_statement_says_nothing_of_its_session(code: int) -> None:
    error = MySQLdb.OperationalError(code, OTHERS.get(code, "of one statement"))
    assert verdict_on(error) is Verdict.NONE


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MySQLdb.OperationalError(2027, "Malformed packet"), Verdict.LOST),
        (MySQLdb.InterfaceError("no number"), Verdict.LOST),
        (MySQLdb.Error(), Verdict.LOST),
        (pymysql.InternalError("Packet sequence number wrong - got 3 expected 1"), Verdict.LOST),
        (pymysql.OperationalError(["no", "number"]), Verdict.LOST),
        (
            MySQLdb.OperationalError(
                6789, "The server is currently in offline mode since 12:00, reason: low disk"
            ),
            Verdict.LOST | Verdict.CUT_OFF,
        ),
    ],
    ids=str,
)
def test_an_error_that_is_not_in_the_table_is_judged_by_its_kind(error: Exception, verdict: Verdict) -> None:
    assert verdict_on(error) == verdict


# --- said in a session --------------------------------------------------------------------------------------


def signal(code: int) -> str:
    """SQL on which the server answers with that error."""
    text = (MEANINGS[code].texts if code in MEANINGS else ()) or ("something",)
    return f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'says {text[0]} of itself'"


def said_by_servers(verdict: Verdict) -> list[int]:
    return [
        code for code, meaning in MEANINGS.items() if verdict in meaning.verdict and not 2000 <= code < 3000
    ]


@pytest.mark.parametrize("code", said_by_servers(Verdict.LOST))
def test_the_other_sessions_are_asked_after_an_error_that_ends_one(
    make_alias: MakeAlias, tap: Wiretap, engine: str, code: int
) -> None:
    alias = make_alias(engine, POOL=POOL, PORT=str(tap.port), **ENGINES[engine])
    fill(alias)
    assert ask(alias, signal(code)) == code
    assert (pool_of(alias).idle, pool_of(alias).closed) == (SIZE - 1, 1)
    with tap.listening() as heard:
        fill(alias)
    assert heard.count("DO 1") == SIZE  # the new one is asked, too, before it is lent
    assert (pool_of(alias).idle, pool_of(alias).closed) == (SIZE, 1)


@pytest.mark.parametrize("code", said_by_servers(Verdict.READ_ONLY))
def test_all_sessions_are_replaced_after_an_error_of_a_read_only_server(
    make_alias: MakeAlias, engine: str, code: int
) -> None:
    alias = make_alias(engine, POOL=POOL, **ENGINES[engine])
    fill(alias)
    assert ask(alias, signal(code)) == code
    fill(alias)
    assert (pool_of(alias).idle, pool_of(alias).closed) == (SIZE, SIZE)


@pytest.mark.parametrize("code", [*STATEMENTS, *said_by_servers(Verdict.REFUSED)])
def test_a_session_is_kept_after_an_error_about_its_statement(
    make_alias: MakeAlias, tap: Wiretap, code: int
) -> None:
    """1045 is also what ``LOAD DATA`` without the privilege gets."""
    alias = make_alias(POOL=POOL, PORT=str(tap.port))
    fill(alias)
    assert ask(alias, signal(code)) == code
    with tap.listening() as heard:
        fill(alias)
    assert heard.count("DO 1") == 0
    assert (pool_of(alias).idle, pool_of(alias).closed, pool_of(alias).resets) == (SIZE, 0, 1)


# --- in the middle of a result --------------------------------------------------------------------------

ROWS = "SELECT seq, REPEAT('x', 1000), SLEEP(0.00001) FROM seq_1_to_200000"
UNBUFFERED = {MYSQLCLIENT: MySQLdb.cursors.SSCursor, PYMYSQL: pymysql.cursors.SSCursor}


def read_one_by_one(cursor: Any) -> None:
    while cursor.fetchone():
        pass


#: How a borrower comes across the end of the session, if at all.
READINGS: dict[str, Callable[[Any], object]] = {
    "fetchone": read_one_by_one,
    "fetchmany": lambda cursor: cursor.fetchmany(200_000),
    "fetchall": lambda cursor: list(cursor.fetchall()),
    "iteration": list,
    "close": lambda cursor: cursor.close(),
    "execute": lambda cursor: cursor.execute("SELECT 1"),
}


def begin_to_read(alias: str, engine: str, server: MariaDB) -> Any:
    """A cursor in the middle of a long result, the session of which has ended."""
    connections[alias].ensure_connection()
    connection = connections[alias].connection
    cursor = connection.cursor(UNBUFFERED[engine])
    cursor.execute(ROWS)
    cursor.fetchone()
    session = connection.thread_id()
    server.execute(f"KILL {session}")
    eventually("it is gone", lambda: session not in {each.id for each in server.sessions()})
    return cursor


@pytest.mark.filterwarnings("ignore:Previous unbuffered result")
@pytest.mark.parametrize("how", READINGS)
def test_a_session_that_ends_in_the_middle_of_a_result_is_lost(
    make_alias: MakeAlias, mariadb: MariaDB, tap: Wiretap, engine: str, how: str
) -> None:
    """No call of the connection has failed: the rows come from its socket."""
    alias = make_alias(engine, POOL=POOL, PORT=str(tap.port), **ENGINES[engine])
    fill(alias)
    cursor = begin_to_read(alias, engine, mariadb)
    with pytest.raises(Exception):  # noqa: B017, PT011  # PyMySQL has an AttributeError for the second time
        READINGS[how](cursor)
    connections[alias].close()
    assert (pool_of(alias).idle, pool_of(alias).closed) == (SIZE - 1, 1)
    with tap.listening() as heard:
        fill(alias)
    assert heard.count("DO 1") == SIZE  # the new one is asked, too, before it is lent


def test_a_session_that_ends_behind_a_dropped_cursor_is_not_kept(
    make_alias: MakeAlias, mariadb: MariaDB, engine: str
) -> None:
    """The driver reads the rest by itself and closes its socket, without an error."""
    alias = make_alias(engine, POOL=POOL, **ENGINES[engine])
    cursor = begin_to_read(alias, engine, mariadb)
    del cursor
    gc.collect()
    connections[alias].close()
    assert (pool_of(alias).idle, pool_of(alias).closed) == (0, 1)


def test_a_cursor_that_is_misused_says_nothing_of_its_session(make_alias: MakeAlias, engine: str) -> None:
    alias = make_alias(engine, POOL=POOL, **ENGINES[engine])
    connections[alias].ensure_connection()
    with pytest.raises((MySQLdb.ProgrammingError, pymysql.ProgrammingError)):
        connections[alias].connection.cursor().fetchall()
    connections[alias].close()
    assert (pool_of(alias).idle, pool_of(alias).closed) == (1, 0)


# --- said where a session is opened -------------------------------------------------------------------------


@pytest.mark.parametrize("code", MEANINGS)
@pytest.mark.parametrize(
    "driver", [mysqlclient.driver, pymysql_driver.driver], ids=["mysqlclient", "PyMySQL"]
)
def test_the_table_says_whether_an_error_of_connecting_is_an_outage(driver: Any, code: int) -> None:
    module = MySQLdb if driver is mysqlclient.driver else pymysql
    verdict, texts = MEANINGS[code].verdict, MEANINGS[code].texts
    error = module.OperationalError(code, *texts[:1])
    assert driver.unreachable(error) is (
        None if Verdict.CUT_OFF in verdict else Verdict.UNREACHABLE in verdict
    )
    assert driver.refused(error) is (Verdict.REFUSED in verdict)
    assert not driver.refused(LookupError(1045))


# --- Galera -------------------------------------------------------------------------------------------------


def test_a_node_that_leaves_galeras_primary_component_costs_one_request(
    make_alias: MakeAlias, cluster: Cluster, engine: str
) -> None:
    alias = make_alias(engine, POOL=POOL, PORT=str(cluster.port), **ENGINES[engine])
    fill(alias)
    cluster.leave_primary_component()
    assert [ask(alias) for _ in range(12)] == [1047] + 11 * [1]
    fill(alias)
    assert (pool_of(alias).closed, pool_of(alias).out) == (SIZE, 0)


def test_a_busy_pool_loses_what_was_under_way_when_a_node_leaves(
    make_alias: MakeAlias, cluster: Cluster, engine: str
) -> None:
    """Each thread has one failure at most: its session's."""
    alias = make_alias(engine, POOL=POOL, PORT=str(cluster.port), **ENGINES[engine])
    begun, gone = threading.Barrier(SIZE + 1), threading.Event()
    said: list[list[Any]] = [[] for _ in range(SIZE)]

    def work(answers: list[Any]) -> None:
        connections[alias].ensure_connection()
        begun.wait(30)
        assert gone.wait(30)
        answers.extend(ask(alias) for _ in range(10))

    threads = [threading.Thread(target=work, args=(answers,)) for answers in said]
    for thread in threads:
        thread.start()
    begun.wait(30)
    cluster.leave_primary_component()
    gone.set()
    for thread in threads:
        thread.join()
    assert said == [[1047] + 9 * [1]] * SIZE


def test_a_node_that_leaves_before_a_reset_has_the_other_sessions_asked(
    make_alias: MakeAlias, cluster: Cluster
) -> None:
    """No borrower has met the error: the pool has, when it cleaned a session."""
    alias = make_alias(POOL=POOL, PORT=str(cluster.port))
    fill(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute("SET @left = 1")
    cluster.leave_primary_component()
    connections[alias].close()
    assert [ask(alias) for _ in range(4)] == [1] * 4
