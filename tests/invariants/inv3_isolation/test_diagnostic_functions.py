"""Invariant 3, functions about earlier statements: the answer is the borrower's own, or an error.

A borrower may find itself in another session with its next statement. So what depends on an earlier one is
answered only where such a statement of the same lease has run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import MySQLdb
import pytest
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.backends.signals import connection_created

from poollife import auto_close_db
from poollife.drivers.effects import (
    FOUND_ROWS,
    INSERT_ID,
    LAST_NUMBER,
    LAST_STATEMENT,
    LAST_WRITE,
    MAY_SET_INSERT_ID,
    MESSAGES,
    PINS,
    READS,
    SETS,
    UPSERTS,
)
from poollife.drivers.mysql.statements import read
from poollife.drivers.sqlite import statements as sqlite_statements
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, out
from tests.support.counting import pool_of

ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 10}
TABLES = """
CREATE TABLE {name}.log (n INT PRIMARY KEY)
CREATE TABLE {name}.numbered (id INT AUTO_INCREMENT PRIMARY KEY, n INT UNIQUE)
CREATE TABLE {name}.scrap (n INT)
CREATE SEQUENCE {name}.numbers
CREATE TABLE {name}.counted (id BIGINT DEFAULT (NEXT VALUE FOR {name}.numbers), n INT)
CREATE PROCEDURE {name}.adds() INSERT INTO {name}.numbered (n) VALUES (NULL)
INSERT INTO {name}.log VALUES (1), (2), (3)
"""
INSERT = "INSERT INTO numbered (n) VALUES (NULL)"
SELECT = "SELECT n FROM log"
WARN = "SELECT CAST('mine' AS INT)"


class Kind(NamedTuple):
    """A statement that sets something, another one that tells it, and how its answer is known to be right."""

    sets: str
    asks: str
    is_right: Callable[[Any], bool]
    engines: tuple[str, ...] = ("mysql", "mysql_pymysql")


def last_id(rows: Any) -> bool:
    return int(rows[0][-1]) > 0


def tells(*row: Any) -> Callable[[Any], bool]:
    return lambda rows: rows[0] == row


def mine(rows: Any) -> bool:
    return "mine" in rows[0][2]


def answered(rows: Any) -> bool:
    return True


SQLITE = ("sqlite3",)
#: docs/settings.md has this table.
KINDS = {
    "LAST_INSERT_ID()": Kind(INSERT, "SELECT LAST_INSERT_ID()", last_id),
    "last_insert_id ()": Kind(INSERT, "select last_insert_id ()", last_id),
    "`last_insert_id`()": Kind(INSERT, "SELECT `last_insert_id`/**/()", last_id),
    "LAST_INSERT_ID() in WHERE": Kind(INSERT, "SELECT id FROM numbered WHERE id = LAST_INSERT_ID()", last_id),
    "LAST_INSERT_ID() in INSERT": Kind(
        INSERT, "INSERT INTO numbered (n) VALUES (LAST_INSERT_ID()) RETURNING n", last_id
    ),
    "LAST_INSERT_ID() in an executable comment": Kind(INSERT, "SELECT 1 /*!, LAST_INSERT_ID() */", last_id),
    "LAST_INSERT_ID() beside a variable": Kind(INSERT, "SELECT @x, LAST_INSERT_ID()", last_id),
    "@@identity": Kind(INSERT, "SELECT @@identity", last_id),
    "@@last_insert_id": Kind(INSERT, "SELECT @@last_insert_id", last_id),
    "@@session.`identity`": Kind(INSERT, "SELECT @@session.`identity`", last_id),
    "SHOW VARIABLES": Kind(INSERT, "SHOW SESSION VARIABLES LIKE 'last_insert_id'", last_id),
    "FOUND_ROWS()": Kind(SELECT, "SELECT FOUND_ROWS()", tells(3)),
    "ROW_COUNT()": Kind("UPDATE log SET n = n + 10 WHERE n > 1", "SELECT ROW_COUNT()", tells(2)),
    "SHOW WARNINGS": Kind(WARN, "SHOW WARNINGS", mine),
    "SHOW ERRORS": Kind("SELECT mine", "SHOW ERRORS LIMIT 1", mine),
    "SHOW COUNT(*) WARNINGS": Kind(WARN, "SHOW COUNT(*) WARNINGS", tells(1)),
    "@@warning_count": Kind(WARN, "SELECT @@warning_count", tells(1)),
    "@@error_count": Kind("SELECT mine", "SELECT @@local.error_count", tells(1)),
    "GET DIAGNOSTICS": Kind(WARN, "GET DIAGNOSTICS @number = NUMBER", answered),
    "@@last_gtid": Kind(INSERT, "SELECT @@last_gtid", answered),
    "LASTVAL()": Kind("INSERT INTO counted (n) VALUES (1)", "SELECT LASTVAL(numbers)", last_id),
    "PREVIOUS VALUE FOR": Kind("SELECT NEXT VALUE FOR numbers", "SELECT PREVIOUS VALUE FOR numbers", last_id),
    "SHOW PROFILES": Kind(SELECT, "SHOW PROFILES", answered),
    "Last_query_cost": Kind(SELECT, "SHOW STATUS LIKE 'Last_query_cost'", answered),
    "last_insert_rowid()": Kind(
        "INSERT INTO numbered (n) VALUES (7)", "SELECT last_insert_rowid()", last_id, SQLITE
    ),
    '"last_insert_rowid"()': Kind(
        "WITH x AS (SELECT 7) INSERT INTO numbered (n) SELECT * FROM x",
        'SELECT "LAST_insert_rowid" ()',
        last_id,
        SQLITE,
    ),
    "changes()": Kind("UPDATE log SET n = n + 10 WHERE n > 1", "SELECT changes()", tells(2), SQLITE),
}
CASES = [
    pytest.param(kind, engine, id=f"{name}-{engine}")
    for name, kind in KINDS.items()
    for engine in kind.engines
]
each_kind = pytest.mark.parametrize(("kind", "engine"), CASES)
REFUSED = "went back to the pool"


class MakeSite(NamedTuple):
    """A function that makes a pool of one session to a database with tables."""

    make_alias: MakeAlias
    mariadb: MariaDB
    path: Path

    def __call__(self, engine: str, **entry: Any) -> str:
        entry = {"POOL": ONE, **entry}
        if engine == "sqlite3":
            alias = self.make_alias("poollife.backends.sqlite3", NAME=str(self.path / "db.sqlite3"), **entry)
            for statement in (
                "CREATE TABLE log (n INT)",
                "CREATE TABLE numbered (id INTEGER PRIMARY KEY, n INT)",
                "INSERT INTO log VALUES (1), (2), (3)",
            ):
                run(alias, statement)
        else:
            options: Any = {"OPTIONS": {"ssl_disabled": True}} if engine == "mysql_pymysql" else {}
            alias = self.make_alias(f"poollife.backends.{engine}", **options, **entry)
            for statement in TABLES.strip().splitlines():
                self.mariadb.execute(statement.format(name=connections[alias].settings_dict["NAME"]))
        connections[alias].close()
        return alias


@pytest.fixture
def make_site(make_alias: MakeAlias, mariadb: MariaDB, tmp_path: Path) -> MakeSite:
    return MakeSite(make_alias, mariadb, tmp_path)


@pytest.fixture
def thread() -> Iterator[Callable[..., Any]]:
    """A function that has a thread which lives on call something, and waits for that."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda function, *args: executor.submit(function, *args).result(PATIENCE)


def run(alias: str, sql: str) -> Any:
    """All rows, by a cursor of its own."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def set_it(alias: str, kind: Kind) -> None:
    """Run what sets it; that may be an error."""
    if kind.sets == "SELECT mine":
        with pytest.raises(DatabaseError):
            run(alias, kind.sets)
    else:
        run(alias, kind.sets)


def leave(alias: str, kind: Kind) -> None:
    """Be another borrower, with an answer to give away."""
    set_it(alias, kind)
    connections[alias].close()


# --- the table ----------------------------------------------------------------------------------------------


@each_kind
def test_what_the_last_borrower_did_is_told_to_no_other(make_site: MakeSite, kind: Kind, engine: str) -> None:
    alias = make_site(engine)
    leave(alias, kind)
    pool = pool_of(alias)
    before = pool.closed, pool.resets
    for _ in range(2):
        with pytest.raises(InterfaceError, match=REFUSED):
            run(alias, kind.asks)
    connections[alias].close()
    # It was not sent, so it has left nothing.
    assert (pool.closed, pool.resets) == before
    set_it(alias, kind)
    assert kind.is_right(run(alias, kind.asks))


@each_kind
def test_a_block_is_answered_what_it_did_itself(
    make_site: MakeSite, kind: Kind, engine: str, thread: Any
) -> None:
    alias = make_site(engine)
    leave(alias, kind)

    def ask(around: Callable[[], Any]) -> bool:
        with around():
            with pytest.raises(InterfaceError, match=REFUSED):
                run(alias, kind.asks)
            set_it(alias, kind)
            return kind.is_right(run(alias, kind.asks))

    assert thread(ask, auto_close_db)
    if kind.sets != "SELECT mine":  # ends a block
        assert thread(ask, lambda: transaction.atomic(using=alias))


@each_kind
def test_a_thread_between_whose_statements_the_session_goes_back_is_refused(
    make_site: MakeSite, kind: Kind, engine: str, thread: Any
) -> None:
    alias = make_site(engine)
    if "NEXT VALUE" in kind.sets:
        return  # it leaves something, so the thread keeps the session
    thread(set_it, alias, kind)
    assert out(alias) == 0
    with pytest.raises(InterfaceError, match=REFUSED):
        thread(run, alias, kind.asks)


@each_kind
def test_the_same_cursor_is_answered(make_site: MakeSite, kind: Kind, engine: str, thread: Any) -> None:
    if kind.sets == "SELECT mine":
        return
    alias = make_site(engine)
    leave(alias, kind)

    def ask() -> Any:
        with connections[alias].cursor() as cursor:
            cursor.execute(kind.sets)
            if cursor.description:
                cursor.fetchall()
            cursor.execute(kind.asks)
            return cursor.fetchall() if cursor.description else []

    assert kind.is_right(thread(ask))


@pytest.mark.parametrize("engine", ["mysql", "mysql_pymysql", "sqlite3"])
def test_two_threads_that_take_turns_are_never_told_each_others_numbers(
    make_site: MakeSite, engine: str
) -> None:
    """On one session, without a block and with one."""
    alias = make_site(engine)
    function = "last_insert_rowid()" if engine == "sqlite3" else "LAST_INSERT_ID()"
    told: list[tuple[int, int]] = []
    refused: list[str] = []
    turn = threading.Barrier(2, timeout=PATIENCE)

    def insert() -> int:
        with connections[alias].cursor() as cursor:
            cursor.execute("INSERT INTO numbered (n) VALUES (NULL)")
            return int(cursor.lastrowid)

    def work() -> None:
        for _ in range(20):
            turn.wait()
            number = insert()
            try:
                told.append((number, run(alias, f"SELECT {function}")[0][0]))
            except InterfaceError as error:
                refused.append(str(error))
            with auto_close_db():
                told.append((insert(), run(alias, f"SELECT {function}")[0][0]))

    with ThreadPoolExecutor(2) as executor:
        for job in [executor.submit(work) for _ in range(2)]:
            job.result(2 * PATIENCE)
    assert [pair for pair in told if pair[0] != pair[1]] == []
    assert (len(told), len(refused)) == (40, 40)


def test_the_error_names_the_function_and_the_cures(make_site: MakeSite) -> None:
    alias = make_site("mysql")
    with pytest.raises(InterfaceError) as caught:
        run(alias, "SELECT 1, `found_rows` ()")
    for part in "FOUND_ROWS() tells", "cursor.lastrowid", "cursor.rowcount", "atomic()", "auto_close_db()":
        assert part in str(caught.value)


# --- what is no question ------------------------------------------------------------------------------------

NO_QUESTIONS = [
    "SELECT 'LAST_INSERT_ID()', \"it's @@identity\", 'FOUND_ROWS()'",
    "SELECT 'it\\'s LAST_INSERT_ID()' -- \\",
    "SELECT 1 AS `last_insert_id`, 2 AS `@@identity`, 3 AS `row_count`",
    "SELECT 1 /* LAST_INSERT_ID() @@identity */",
    "SELECT @x, 'ROW_COUNT()' /* FOUND_ROWS() */ -- LAST_INSERT_ID()\n",
    "SELECT @x # SHOW WARNINGS; SELECT LAST_INSERT_ID()",
    "SELECT @identity, @`last_insert_id`, @last_gtid",
    "SELECT 1 AS last_insert_id, 2 AS found_rows, 3 AS warning_count, 4 AS connection_id",
    "SELECT LAST_INSERT_ID(5)",
    "UPDATE numbered SET n = LAST_INSERT_ID(n + 1)",
    "INSERT INTO numbered (n) VALUES (5) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
    "SET @@last_insert_id = 5",
    "SELECT shop.last_insert_id()",
    "SELECT `shop`.`last_insert_id`()",
    "SELECT my_last_insert_id(), $row_count()",
    "SHOW GLOBAL STATUS",
    "SHOW VARIABLES LIKE 'sql_mode'",
    "SHOW VARIABLES LIKE '%timeout%'",
    "SHOW VARIABLES LIKE '%'",
    "INSERT INTO lastval (v) VALUES (1)",
    "INSERT t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = LAST_INSERT_ID(a); SELECT LAST_INSERT_ID()",
    "CREATE DEFINER = `a`@`b` TRIGGER t AFTER INSERT ON a FOR EACH ROW BEGIN DO 1; SET @y = @@identity; END",
    "SHOW TABLES LIKE 'warnings'",
    "SHOW COLUMNS FROM warnings",
    "SELECT warnings, errors, status FROM show_warnings",
    "CREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (1); SELECT LAST_INSERT_ID(); END",
    "CREATE OR REPLACE VIEW v AS SELECT LAST_INSERT_ID()",
    "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW SET @x = LAST_INSERT_ID()",
    "INSERT INTO t (a) VALUES (1); SELECT LAST_INSERT_ID()",
    "INSERT INTO t (a) VALUES (1); UPDATE u SET a = LAST_INSERT_ID(); SELECT ROW_COUNT(), @@identity",
    "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1; SELECT FOUND_ROWS()",
    "CALL adds(); SELECT LAST_INSERT_ID()",
    "BEGIN NOT ATOMIC INSERT INTO t (a) VALUES (1); SELECT LAST_INSERT_ID(); END",
    b"SELECT '\xff LAST_INSERT_ID()'",
    None,
]
QUESTIONS = [
    ("SELECT 1; SELECT LAST_INSERT_ID()", INSERT_ID),
    ("CREATE INDEX i ON t (a); SELECT LAST_INSERT_ID()", INSERT_ID),
    ("CREATE VIEW v AS SELECT 1; SELECT LAST_INSERT_ID()", INSERT_ID),
    ("INSERT INTO t (a) VALUES (LASTVAL(s))", LAST_NUMBER),
    ("SELECT LAST_INSERT_ID(); INSERT INTO t (a) VALUES (1)", INSERT_ID),
    ("CREATE TABLE t AS SELECT LAST_INSERT_ID()", INSERT_ID),
    ("SET @x = LAST_INSERT_ID()", INSERT_ID),
    ("SET @x = @@identity", INSERT_ID),
    ("SELECT 'it''s', LAST_INSERT_ID()", INSERT_ID),
    ("SELECT `it's`, LAST_INSERT_ID()", INSERT_ID),
    ("SELECT /* it's */ LAST_INSERT_ID()", INSERT_ID),
    ("SELECT 1 -- it's\n, LAST_INSERT_ID()", INSERT_ID),
    ("/*!50000 SELECT LAST_INSERT_ID() */", INSERT_ID),
    ("SELECT LAST_INSERT_ID(), FOUND_ROWS()", INSERT_ID | FOUND_ROWS),
    ("CALL p(LAST_INSERT_ID())", INSERT_ID),
    ("BEGIN NOT ATOMIC SELECT LAST_INSERT_ID(); END", INSERT_ID),
    (b"SELECT '\xff', ROW_COUNT()", LAST_STATEMENT),
]


@pytest.mark.parametrize("sql", NO_QUESTIONS, ids=repr)
def test_what_only_looks_like_a_question_is_sent(sql: object) -> None:
    assert not read(sql) & ((SETS << READS) | PINS)


@pytest.mark.parametrize(("sql", "reads"), QUESTIONS, ids=repr)
def test_a_question_is_found_in_what_is_not_understood_too(sql: object, reads: int) -> None:
    assert read(sql) & (SETS << READS) == reads << READS


@pytest.mark.parametrize(
    ("sql", "effects"),
    [
        ("SELECT 'changes()', \"last_insert_rowid\", [changes] FROM t -- changes()", 0),
        ("SELECT changes FROM t", 0),
        ("WITH changes (a) AS (SELECT 1) SELECT * FROM changes", 0),
        ("SELECT 'it''s', changes ()", LAST_WRITE << READS),
        ("SELECT [changes]()", LAST_WRITE << READS),
        ("SELECT `last_insert_rowid`/* */()", INSERT_ID << READS),
        ("PRAGMA x; SELECT last_insert_rowid()", INSERT_ID << READS),
        ("SELECT total_changes()", PINS),
    ],
)
def test_questions_of_sqlite(sql: str, effects: int) -> None:
    assert sqlite_statements.read(sql) & ((SETS << READS) | PINS) == effects


# --- what sets an answer ------------------------------------------------------------------------------------

#: Statements, as the server is asked whether they have set what they are taken to set.
SETTERS = """
SELECT 1
SELECT 1 FROM DUAL
SELECT n FROM log
SELECT n FROM log WHERE n = 99
SELECT * FROM (SELECT 1) x
SELECT EXTRACT(DAY FROM NOW())
SELECT TRIM(LEADING 'a' FROM 'b'), SUBSTRING('abc' FROM 2)
SELECT EXTRACT(DAY FROM NOW()) FROM log
SELECT SUBSTRING('abc', 2) FROM log
SELECT 'FROM log'
SELECT (SELECT COUNT(*) FROM log)
WITH c AS (SELECT 1) SELECT * FROM c
SELECT 1 UNION SELECT 2
(SELECT 1)
SELECT CAST('y' AS INT)
SELECT nothing
SELECT nothing FROM log
SELEKT
SELECT 1 INTO @a
SELECT SQL_CALC_FOUND_ROWS n FROM log LIMIT 1
SELECT LAST_INSERT_ID(9)
SELECT NEXT VALUE FOR numbers
INSERT INTO log VALUES (1)
INSERT INTO log VALUES (10)
INSERT IGNORE INTO log VALUES (1)
INSERT INTO numbered (n) VALUES (50)
INSERT INTO numbered (n) VALUES (60), (61), (62)
INSERT INTO numbered (n) VALUES (63) RETURNING id
INSERT INTO numbered (n) SELECT 64
INSERT IGNORE INTO numbered (n) VALUES (1)
INSERT INTO numbered (n) VALUES (1)
INSERT INTO numbered (n) VALUES (1) ON DUPLICATE KEY UPDATE n = 1
INSERT INTO numbered (n) VALUES (1) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), n = 77
REPLACE INTO numbered (n) VALUES (1)
INSERT INTO counted (n) VALUES (1)
UPDATE log SET n = n WHERE n = 1
UPDATE log SET n = n + 20
UPDATE numbered SET n = LAST_INSERT_ID(n) WHERE n = 1
UPDATE numbered SET n = LAST_INSERT_ID(n) WHERE n = -1
DELETE FROM log WHERE n = 99
DELETE FROM log
SHOW TABLES
SHOW VARIABLES LIKE 'sql_mode'
SHOW INDEX FROM log
SHOW CREATE TABLE log
SHOW PROCESSLIST
SHOW ENGINES
SHOW FULL COLUMNS FROM log
SHOW WARNINGS
EXPLAIN SELECT n FROM log
EXPLAIN SELECT 1
EXPLAIN INSERT INTO numbered (n) VALUES (66)
ANALYZE SELECT n FROM log
ANALYZE FORMAT=JSON SELECT n FROM log
ANALYZE INSERT INTO numbered (n) VALUES (65)
SET STATEMENT max_statement_time = 9 FOR INSERT INTO numbered (n) VALUES (67)
DESCRIBE log
SAVEPOINT a
RELEASE SAVEPOINT nothing
ROLLBACK TO nothing
BEGIN
COMMIT
START TRANSACTION
SET @a = 1
SET @@last_insert_id = 9
SET NAMES utf8mb4
DO 1
DO LAST_INSERT_ID(9)
CALL adds()
CREATE TABLE made (n INT)
CREATE TABLE copied (id INT AUTO_INCREMENT PRIMARY KEY) SELECT 1 AS n
ALTER TABLE log COMMENT 'x'
TRUNCATE TABLE log
DROP TABLE IF EXISTS nothing
CREATE TEMPORARY TABLE passing (n INT)
LOCK TABLES log READ
UNLOCK TABLES
PREPARE p FROM 'SELECT 1'
FLUSH STATUS
ANALYZE TABLE log
SELECT SETVAL(numbers, 50)
HANDLER log OPEN
OPTIMIZE TABLE log
CHECK TABLE log
REPAIR TABLE log
CHECKSUM TABLE log
CREATE INDEX made ON scrap (n)
DROP INDEX IF EXISTS made ON scrap
ALTER TABLE scrap ADD INDEX IF NOT EXISTS made (n)
CREATE OR REPLACE VIEW seen AS SELECT LAST_INSERT_ID()
CREATE OR REPLACE PROCEDURE nothing() SELECT 1
CREATE OR REPLACE SEQUENCE spare
DROP SEQUENCE IF EXISTS spare
RENAME TABLE log TO log
VALUES (1), (2)
VALUES (LAST_INSERT_ID(9))
TABLE log
KILL QUERY 999999999
XA RECOVER
USE mysql
SHOW GRANTS
SHOW STATUS LIKE 'Uptime'
SHOW DATABASES
HELP 'select'
EXECUTE IMMEDIATE 'INSERT INTO numbered (n) VALUES (69)'
DEALLOCATE PREPARE nothing
SIGNAL SQLSTATE '01000'
IF 1 THEN INSERT INTO numbered (n) VALUES (68); END IF
UPDATE log SET n = (SELECT 5) WHERE n = 1
UPDATE scrap SET selected = 1
UPDATE numbered SET analyzed = 1 WHERE n = 1
UPDATE numbered SET n = 5 WHERE n IN (SELECT 1)
DELETE FROM log WHERE n IN (SELECT seq FROM seq_1_to_2)
DELETE FROM log WHERE n = 1 RETURNING n
INSERT INTO log VALUES ((SELECT 44))
INSERT INTO numbered (n) SELECT 70 FROM log WHERE n = 99
INSERT INTO numbered (n) SELECT 70 FROM log WHERE n = 99 RETURNING id
INSERT IGNORE INTO numbered (n) VALUES (1) RETURNING id
INSERT INTO numbered (n) VALUES (71) ON DUPLICATE KEY UPDATE n = 72
INSERT INTO numbered (n) VALUES (1) ON DUPLICATE KEY UPDATE n = 72
INSERT INTO numbered (n) VALUES (1) ON DUPLICATE KEY UPDATE n = 72 RETURNING id
INSERT INTO numbered (n) VALUES (1); SELECT 1
WITH c AS (SELECT 1) SELECT * FROM log FOR UPDATE
SELECT TRIM(LEADING CHAR(32) FROM 'x')
SELECT TRIM(LEADING CHAR(32) FROM (SELECT MAX(n) FROM log))
SELECT n FROM log WHERE n = LAST_INSERT_ID(2)
BEGIN NOT ATOMIC INSERT INTO numbered (n) VALUES (68); END
""".strip().splitlines()
#: What a session is asked for, and how it is made to have another borrower's answer to that.
ANSWERS = {
    INSERT_ID: ("SELECT @@last_insert_id", "SELECT LAST_INSERT_ID(777)"),
    FOUND_ROWS: ("SELECT FOUND_ROWS()", "SELECT seq FROM seq_1_to_33"),
    MESSAGES: ("SHOW WARNINGS", "SELECT CAST('another''s' AS INT)"),
    LAST_STATEMENT: ("SELECT ROW_COUNT()", "INSERT INTO scrap SELECT seq FROM seq_1_to_33"),
}
#: Taken to set all, as they may run anything. Where they did not, another borrower's answer is told.
UNKNOWN = ("CALL", "BEGIN NOT ATOMIC", "IF", "EXECUTE")
#: More is refused than would have to be.
UNASKED = ("EXPLAIN", "DESCRIBE")


@pytest.fixture
def session(make_site: MakeSite, mariadb: MariaDB) -> Iterator[Any]:
    """A session of the driver's own, to a database with tables."""
    name = connections[make_site("mysql")].settings_dict["NAME"]
    with MySQLdb.connect(unix_socket=str(mariadb.socket), user="root", database=name) as connection:
        connection.autocommit(True)
        connection.query("SET sql_mode = ''")
        yield connection


def fetch(session: Any, sql: str) -> Any:
    """The rows, or the code of the server's error."""
    try:
        with session.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    except MySQLdb.Error as error:
        return error.args[0]


def what_it_sets(session: Any, sql: str) -> int:
    """As the guarded connections have it: from the text, and from the answer."""
    failed = False
    try:
        session.query(sql)
    except MySQLdb.Error:
        failed = True
    number = 0 if session.field_count() else session.insert_id()
    rows = session.affected_rows()
    if failed:
        return LAST_STATEMENT | MESSAGES
    session.store_result()
    warnings = session.warning_count()
    while session.next_result() != -1:
        session.store_result()
    effects = read(sql)
    sets = effects & SETS
    if effects & MAY_SET_INSERT_ID and number and not (effects & UPSERTS and rows != 1):
        sets |= INSERT_ID
    if warnings:
        sets |= MESSAGES
    return sets


@pytest.mark.parametrize("sql", SETTERS)
def test_what_a_statement_is_taken_to_set_is_set(session: Any, sql: str) -> None:
    """Or the next question would be answered with another borrower's."""
    for bit, (asks, leaves) in ANSWERS.items():
        for statement in "UNLOCK TABLES", "ROLLBACK", "DROP TABLE IF EXISTS made, copied, passing":
            fetch(session, statement)
        for table in "log (n)", "numbered (n)":
            fetch(session, f"TRUNCATE TABLE {table.split()[0]}")
            fetch(session, f"INSERT INTO {table} VALUES (1), (2), (3)")
        fetch(session, leaves)
        others = fetch(session, asks)
        fetch(session, leaves)
        sets = what_it_sets(session, sql)
        own = fetch(session, asks)
        if sets & bit and not sql.startswith(UNKNOWN):
            assert own != others, "another borrower's"
        if own != others and not sql.startswith(UNASKED):
            assert sets & bit, "would be refused"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO log VALUES (77)",
        "INSERT IGNORE INTO log VALUES (1)",
        "INSERT IGNORE INTO numbered (id, n) SELECT 5, 5 FROM log WHERE n = 99",
        "UPDATE log SET n = 99 WHERE n = 1",
    ],
)
@pytest.mark.parametrize("engine", ["mysql", "mysql_pymysql"])
def test_a_write_that_generates_no_id_does_not_bring_up_another_borrowers(
    make_site: MakeSite, engine: str, sql: str
) -> None:
    alias = make_site(engine)
    leave(alias, KINDS["LAST_INSERT_ID()"])
    run(alias, sql)
    with pytest.raises(InterfaceError, match=REFUSED):
        run(alias, "SELECT LAST_INSERT_ID()")


class Unset(NamedTuple):
    """What another borrower does, what this one does, and a question that this does not answer."""

    others: str
    own: str
    asks: str
    engines: tuple[str, ...] = ("mysql", "mysql_pymysql")


UPSERT = "ON DUPLICATE KEY UPDATE n = {}"
LAST_ID, LAST_ROWID, LAST_NUMBER_DRAWN = (
    "SELECT LAST_INSERT_ID()",
    "SELECT last_insert_rowid()",
    "SELECT LASTVAL(numbers)",
)
INSERT_1 = "INSERT INTO numbered (n) VALUES (1)"
INSERT_COUNTED = "INSERT INTO counted (n) VALUES (1)"
UNSET = {
    "upsert that updates": Unset(INSERT_1, f"{INSERT_1} {UPSERT.format(9)}", LAST_ID),
    "upsert that changes nothing": Unset(INSERT_1, f"{INSERT_1} {UPSERT.format(1)}", LAST_ID),
    "upsert in a string": Unset(INSERT_1, f"{INSERT_1} {UPSERT.format(9)}; SELECT 1", LAST_ID),
    "column named analyzed": Unset(INSERT, "UPDATE scrap SET analyzed = 1", LAST_ID),
    "column named returning": Unset(INSERT, "UPDATE scrap SET n = 1, `returning` = 1", LAST_ID),
    "DELETE RETURNING": Unset(INSERT, "DELETE FROM log RETURNING n", LAST_ID),
    "INSERT IGNORE RETURNING": Unset(
        INSERT_1, "INSERT IGNORE INTO numbered (n) VALUES (1) RETURNING id", LAST_ID
    ),
    "INSERT SELECT RETURNING": Unset(
        INSERT, "INSERT INTO numbered (n) SELECT 5 FROM log LIMIT 0 RETURNING id", LAST_ID
    ),
    "several statements": Unset(INSERT, "UPDATE scrap SET n = 1; SELECT 1", LAST_ID),
    "ANALYZE TABLE": Unset(INSERT, "ANALYZE TABLE log", LAST_ID),
    "FLUSH": Unset(INSERT, "FLUSH STATUS", LAST_ID),
    "VALUES": Unset(INSERT, "VALUES (1)", LAST_ID),
    "CREATE INDEX": Unset(INSERT, "CREATE INDEX i ON scrap (n)", LAST_ID),
    "CREATE VIEW": Unset(INSERT, "CREATE VIEW v AS SELECT 1", LAST_ID),
    "EXECUTE": Unset(INSERT, "EXECUTE IMMEDIATE 'SELECT 1'", LAST_ID),
    "block": Unset(INSERT, "BEGIN NOT ATOMIC SELECT 1; END", LAST_ID),
    "variable by a pattern": Unset(INSERT, "SELECT 1", "SHOW VARIABLES LIKE 'last_insert%'"),
    "variable by another pattern": Unset(INSERT, "SELECT 1", 'SHOW VARIABLES LIKE "identit_"'),
    "variable by a third pattern": Unset(INSERT, "SELECT 1", "SHOW VARIABLES LIKE 'last\\_ins%'"),
    "information_schema": Unset(
        INSERT,
        "SELECT 1",
        "SELECT * FROM information_schema.session_variables WHERE variable_name = 'last_insert_id'",
    ),
    "LASTVAL() after UPDATE": Unset(INSERT_COUNTED, "UPDATE scrap SET n = 1", LAST_NUMBER_DRAWN),
    "LASTVAL() after SETVAL()": Unset(INSERT_COUNTED, "SELECT SETVAL(numbers, 50)", LAST_NUMBER_DRAWN),
    "PREVIOUS VALUE after DELETE": Unset(
        INSERT_COUNTED, "DELETE FROM scrap", "SELECT PREVIOUS VALUE FOR numbers"
    ),
    "column named selected": Unset(SELECT, "UPDATE scrap SET selected = 1", "SELECT FOUND_ROWS()"),
    "SELECT as a value": Unset(SELECT, "UPDATE scrap SET n = (SELECT 1)", "SELECT FOUND_ROWS()"),
    "FROM in a call": Unset(WARN, "SELECT TRIM(LEADING CHAR(32) FROM 'x')", "SHOW WARNINGS"),
    "CREATE PROCEDURE": Unset(WARN, "CREATE PROCEDURE spare() SELECT 1", "SHOW WARNINGS"),
    "SQLite's upsert": Unset(
        "INSERT INTO numbered (id, n) VALUES (50, 5)",
        "INSERT INTO numbered (id, n) VALUES (50, 5) ON CONFLICT (id) DO UPDATE SET n = 6",
        LAST_ROWID,
        SQLITE,
    ),
    "WITH SELECT": Unset(INSERT, "WITH x AS (SELECT 1) SELECT * FROM x", LAST_ROWID, SQLITE),
    "WITH UPDATE": Unset(INSERT, "WITH x AS (SELECT 1) UPDATE numbered SET n = 1", LAST_ROWID, SQLITE),
    "WITH INSERT of nothing": Unset(
        INSERT, "WITH x AS (SELECT 1) INSERT INTO numbered (n) SELECT 1 FROM x WHERE 0", LAST_ROWID, SQLITE
    ),
    "OR IGNORE RETURNING": Unset(
        "INSERT INTO numbered (id) VALUES (50)",
        "INSERT OR IGNORE INTO numbered (id) VALUES (50) RETURNING id",
        LAST_ROWID,
        SQLITE,
    ),
    "changes() after WITH SELECT": Unset(
        INSERT, "WITH x AS (SELECT 1) SELECT * FROM x", "SELECT changes()", SQLITE
    ),
}


@pytest.mark.parametrize(
    ("unset", "engine"),
    [
        pytest.param(unset, engine, id=f"{name}-{engine}")
        for name, unset in UNSET.items()
        for engine in unset.engines
    ],
)
def test_a_statement_that_sets_no_answer_does_not_bring_up_another_borrowers(
    make_site: MakeSite, mariadb: MariaDB, unset: Unset, engine: str
) -> None:
    alias = make_site(engine)
    if engine != "sqlite3":
        database = connections[alias].settings_dict["NAME"]
        for column in "selected", "analyzed", "`returning`":
            mariadb.execute(f"ALTER TABLE {database}.scrap ADD {column} INT")
    run(alias, unset.others)
    connections[alias].close()
    with connections[alias].cursor() as cursor:
        try:
            cursor.execute(unset.own)
        except DatabaseError:  # PyMySQL sends one statement at a time
            assert (engine, ";" in unset.own) == ("mysql_pymysql", True)
            return
        if cursor.description:
            cursor.fetchall()
        while engine != "sqlite3" and cursor.nextset():
            cursor.fetchall()
        with pytest.raises(InterfaceError, match=REFUSED):
            cursor.execute(unset.asks)


@pytest.mark.parametrize("engine", ["mysql", "mysql_pymysql"])
def test_an_upsert_that_inserts_is_answered(make_site: MakeSite, engine: str) -> None:
    alias = make_site(engine)
    for upsert in (
        f"{INSERT_1} {UPSERT.format(1)}",
        f"{INSERT_1} {UPSERT.format('8, id = LAST_INSERT_ID(id)')}",
    ):
        leave(alias, KINDS["LAST_INSERT_ID()"])
        with connections[alias].cursor() as cursor:
            cursor.execute(upsert)
            number = cursor.lastrowid
            cursor.execute(LAST_ID)
            assert cursor.fetchone()[0] == number


def test_a_script_that_inserts_nothing_does_not_bring_up_another_borrowers(make_site: MakeSite) -> None:
    alias = make_site("sqlite3")
    for script in "SELECT 1;", "UPDATE log SET n = n;":
        leave(alias, KINDS["last_insert_rowid()"])
        connections[alias].ensure_connection()
        connections[alias].connection.executescript(script)
        with pytest.raises(InterfaceError, match=REFUSED):
            run(alias, LAST_ROWID)
        connections[alias].connection.executescript(f"{INSERT};")
        assert last_id(run(alias, LAST_ROWID))
        connections[alias].close()


def test_a_table_with_a_functions_name_is_no_question(make_site: MakeSite) -> None:
    alias = make_site("mysql")
    for statement in (
        "CREATE TABLE IF NOT EXISTS lastval (v INT)",
        "INSERT INTO lastval (v) VALUES (1)",
        "INSERT INTO `lastval` (v) VALUES (1)",
        "REPLACE lastval (v) VALUES (1)",
    ):
        run(alias, statement)
    assert run(alias, "SELECT COUNT(*) FROM lastval") == ((3,),)


def test_an_insert_that_inserts_nothing_does_not_bring_up_another_borrowers(make_site: MakeSite) -> None:
    alias = make_site("sqlite3")
    leave(alias, KINDS["last_insert_rowid()"])
    run(alias, "INSERT INTO numbered (n) SELECT 1 WHERE 0")
    with pytest.raises(InterfaceError, match=REFUSED):
        run(alias, "SELECT last_insert_rowid()")
    run(alias, "INSERT INTO numbered (n) VALUES (8) RETURNING id")
    assert last_id(run(alias, "SELECT last_insert_rowid()"))


def test_a_statement_without_a_table_does_not_bring_up_another_borrowers_messages(
    make_site: MakeSite,
) -> None:
    alias = make_site("mysql")
    leave(alias, KINDS["SHOW WARNINGS"])
    for statement in "SELECT 1", "SET @a = 1", "DO 1", "SAVEPOINT x":
        run(alias, statement)
        with pytest.raises(InterfaceError, match=REFUSED):
            run(alias, "SHOW WARNINGS")
    run(alias, SELECT)
    assert run(alias, "SHOW WARNINGS") == ()


# --- what holds for one session only ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "sql"),
    [
        ("mysql", "SELECT CONNECTION_ID()"),
        ("mysql", "SELECT @@pseudo_thread_id"),
        ("mysql", "SHOW STATUS LIKE 'Com_select'"),
        ("mysql", "SELECT * FROM information_schema.session_status"),
        ("mysql_pymysql", "SELECT CONNECTION_ID()"),
        ("sqlite3", "SELECT total_changes()"),
    ],
)
def test_a_thread_that_asks_for_its_session_keeps_it(
    make_site: MakeSite, engine: str, sql: str, thread: Any
) -> None:
    alias = make_site(engine)
    resets = pool_of(alias).resets
    thread(run, alias, sql)
    assert out(alias) == 1
    thread(run, alias, "SELECT 1")
    assert out(alias) == 1
    thread(lambda: connections[alias].close())
    assert out(alias) == 0
    # It left nothing there.
    assert pool_of(alias).resets == resets
    thread(run, alias, "SELECT 1")
    assert out(alias) == 0


def test_a_thread_is_told_the_same_id_each_time(make_site: MakeSite) -> None:
    alias = make_site("mysql", POOL={**ONE, "pool_size": 2})
    both = threading.Barrier(2)

    def ask(_: int) -> Any:
        # A thread that is done with its job would take the other one as well, and the third job a new thread.
        both.wait(PATIENCE)
        return run(alias, "SELECT CONNECTION_ID()")

    with ThreadPoolExecutor(2) as executor:
        ids = list(executor.map(ask, range(2)))
        assert executor.submit(run, alias, "SELECT CONNECTION_ID()").result(PATIENCE) in ids


# --- other ways to ask --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["mysql", "mysql_pymysql"])
def test_the_drivers_own_connection_is_refused_too(make_site: MakeSite, engine: str) -> None:
    alias = make_site(engine)
    leave(alias, KINDS["SHOW WARNINGS"])
    connections[alias].ensure_connection()
    driver = connections[alias].connection
    for ask in (
        driver.show_warnings,
        lambda: driver.query("SELECT LAST_INSERT_ID()"),
        lambda: driver.query(b"SELECT FOUND_ROWS()"),
        lambda: driver.cursor().execute("SELECT ROW_COUNT() + %s", (1,)),
        lambda: driver.cursor().executemany("INSERT INTO log VALUES (LAST_INSERT_ID() + %s)", [(1,), (2,)]),
    ):
        with pytest.raises(driver.InterfaceError, match=REFUSED):
            ask()
    # What the client knows is no question to the server.
    assert not driver.insert_id()
    assert driver.affected_rows() is not None
    assert run(alias, WARN)
    assert "mine" in str(driver.show_warnings())
    connections[alias].close()
    assert (pool_of(alias).closed, pool_of(alias).opened) == (0, 1)


def test_an_answer_that_is_read_later_counts(make_site: MakeSite) -> None:
    """``send_query()`` and ``read_query_result()``, as cooperative programs use them."""
    alias = make_site("mysql")
    leave(alias, KINDS["LAST_INSERT_ID()"])
    connections[alias].ensure_connection()
    driver = connections[alias].connection
    driver.send_query(INSERT)
    driver.read_query_result()
    assert run(alias, "SELECT LAST_INSERT_ID()")[0][0] == 2
    connections[alias].close()
    connections[alias].ensure_connection()
    with pytest.raises(MySQLdb.InterfaceError, match=REFUSED):
        driver.send_query("SELECT LAST_INSERT_ID()")


@pytest.mark.parametrize("engine", ["mysql", "sqlite3"])
def test_a_session_that_is_not_kept_for_others_answers_as_with_stock_django(
    make_site: MakeSite, engine: str
) -> None:
    alias = make_site(engine, POOL=False)
    function = "last_insert_rowid()" if engine == "sqlite3" else "LAST_INSERT_ID()"
    assert run(alias, f"SELECT {function}")[0][0] == 0


def test_what_sets_up_a_new_session_may_ask(make_site: MakeSite) -> None:
    asked = []

    def receiver(connection: Any, **_: Any) -> None:
        asked.append(run(connection.alias, "SELECT LAST_INSERT_ID(), ROW_COUNT(), CONNECTION_ID()"))

    connection_created.connect(receiver)
    try:
        alias = make_site("mysql")
        with pytest.raises(InterfaceError, match=REFUSED):
            run(alias, "SELECT ROW_COUNT()")
    finally:
        connection_created.disconnect(receiver)
    assert len(asked) == 1
