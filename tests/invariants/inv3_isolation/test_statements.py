"""Invariant 3, statements: none that is read as leaving nothing leaves anything in its session.

The oracle is the server: its own account of the session, before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import MySQLdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import NoSuchExample

from poollife.drivers.effects import LEAVES, LONGEST_REMEMBERED, MOST_REMEMBERED, Memory
from poollife.drivers.mysql.statements import (
    EFFECTS,
    FUNCTIONS,
    KEYWORDS,
    TYPES,
    read,
)
from poollife.drivers.sqlite import statements as sqlite_statements
from servers import MariaDB

DATABASE = "statements"
#: What a statement of the fuzz may leave is left by one of these. None can be called ``plain``.
TABLES = """
CREATE TABLE t (a INT);
CREATE TABLE `it's` (`a"b` INT);
INSERT INTO t VALUES (1), (2), (3);
CREATE SEQUENCE seq;
CREATE FUNCTION sets() RETURNS INT BEGIN SET @leak = 1; RETURN 1; END
"""
CLEAN_IN_MYSQL = [
    "SELECT 1",
    "select 1;",
    "\n\t(SELECT 1) UNION (SELECT 2)",
    "WITH one AS (SELECT 1) SELECT * FROM one",
    "INSERT INTO `a` (`b`, `c`) VALUES (1, 'x'), (2, 'it''s') RETURNING `a`.`id`",
    "INSERT INTO `t` () VALUES ()",
    "INSERT IGNORE INTO shop.t (a) SELECT a FROM u ON DUPLICATE KEY UPDATE a = VALUES(a)",
    "REPLACE INTO t SET a = 1",
    "UPDATE `t` SET `a` = (`t`.`a` + 1) WHERE NOT (`t`.`id` = 1 AND `t`.`b` IS NULL)",
    "DELETE FROM t WHERE a->'$.b' IN (SELECT a FROM u)",
    "SELECT * FROM t FOR UPDATE SKIP LOCKED",
    "SELECT SLEEP(0), COUNT(*), COALESCE(SUM(`t`.`a`), 0.5), t.* FROM t LIMIT 21",
    "SELECT CAST(a AS datetime(6)), CAST(a AS signed integer), MATCH (a) AGAINST ('x') FROM t",
    "SELECT ROW_NUMBER() OVER (PARTITION BY a) FROM t USE INDEX (i)",
    "SELECT 'me@example.com', \"me@example.com\", `me@example.com`, '; SET', 'a\\n\\\\'",
    "SELECT 1 /* me@example.com; SET */",
    "/* report */ SELECT 1 /*traceparent='00-1-1-01'*/",
    "SELECT 1 /*a*/ /*b*/",
    "SELECT 1 /*a*//*b*/;",
    "/*a*//*b*/ SELECT /*c*/ /*d*/ a /*e*/ , /*f*//*g*/ (1) FROM t /*h*/",
    "/*mine*/ SELECT 1 /*M*/",
    "SELECT 1 -- comment\n",
    "SELECT 1 # comment\n",
    "SELECT 1 -- it's; SET @a = 1",
    "SELECT 1 # it's; SET @a = 1",
    "SELECT 1 --",
    "-- a report\nSELECT a, -- the first\n\tb # the second\nFROM t -- /*\n",
    "# a report\n-- of /* */\n/* -- */\n(SELECT 1)",
    "SELECT a / /* x */ (2)",
    "SELECT GROUP_CONCAT(DISTINCT a ORDER BY a SEPARATOR ', ') FROM t",
    "EXPLAIN ANALYZE SELECT 1",
    "ANALYZE SELECT a FROM t",
    "ANALYZE FORMAT=JSON SELECT a FROM t",
    "SELECT 'gr\u00f6\u00dfe' FROM `gr\u00f6\u00dfe`",
    "SELECT VERSION(), @@sql_mode, @@session.time_zone, LAST_INSERT_ID(), FOUND_ROWS()",
    "SELECT 7 % 2, a %2 FROM t WHERE a LIKE '%s'",
    "SAVEPOINT `s1_x1`",
    "RELEASE SAVEPOINT `s1_x1`",
    "ROLLBACK TO SAVEPOINT `s1_x1`",
    "SHOW INDEX FROM `t`",
    "SHOW WARNINGS",
    "EXPLAIN SELECT 1",
]
CLEAN_TEMPLATES = [
    "INSERT INTO `a` (`b`) VALUES (%s, %s), (%s, %s)",
    "SELECT * FROM t WHERE a IN %s AND b LIKE %s LIMIT %s OFFSET %s",
    "SELECT * FROM t WHERE a = %(name)s AND b = %(other)s",
    "SELECT * FROM t WHERE a LIKE '%%x%%' AND b %% 2 = %s",
    "INSERT INTO t (a) VALUES (_binary %s)",
    "SELECT GROUP_CONCAT(a SEPARATOR %s) FROM t",
    "SELECT a FROM t WHERE a = %s /*key='a%%3Ab'*/ /*b*/",
    "/*key='a%%3Ab'*/ SELECT a FROM t WHERE a = %s -- 100 %%\n",
    r"SELECT 1 WHERE a LIKE BINARY CONCAT('%%', REPLACE(REPLACE(a, '\\', '\\\\'), '%%', '\%%'), '%%')",
]
DIRTY_IN_MYSQL = [
    "",
    ";",
    "SET autocommit = 0",
    "USE mysql",
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "LOCK TABLES t READ",
    "CREATE TEMPORARY TABLE x (a INT)",
    "CREATE TABLE x (a INT)",
    "PREPARE p FROM 'SELECT 1'",
    "EXECUTE IMMEDIATE 'SELECT 1'",
    "CALL p()",
    "DO 1",
    "HANDLER t OPEN",
    "XA START 'x'",
    "FLUSH TABLES WITH READ LOCK",
    "LOAD DATA INFILE 'x' INTO TABLE t",
    "SELECTED",
    "RELEASE",
    "SELECT 1; SELECT 2",
    "SELECT 1;;",
    "SELECT 1; /* */",
    "SELECT @a",
    "SELECT @a := 1",
    "SELECT 1 INTO @a",
    "UPDATE t SET a = (@a := 1)",
    "SELECT @@cache.key_buffer_size",
    "SELECT @@cache/**/.key_buffer_size",
    "SELECT SQL_CALC_FOUND_ROWS 1",
    "SELECT sql_calc_found_rows 1",
    "SELECT NEXT VALUE FOR seq",
    "SELECT seq.nextval",
    "SELECT seq.`nextval`",
    'SELECT seq."NextVal"',
    "SELECT SETVAL(seq, 5)",
    "SELECT LAST_INSERT_ID(5)",
    "SELECT LAST_INSERT_ID (5)",
    "SELECT GET_LOCK('a', 1)",
    "SELECT gEt_LoCk ('a', 1)",
    "SELECT GET_LOCK/**/('a', 1)",
    "SELECT GET_LOCK /* x */ ('a', 1)",
    "SELECT RELEASE_LOCK('a')",
    "SELECT `sets`()",
    "SELECT `sets` /**/ ()",
    'SELECT "sets"()',
    "SELECT sets()",
    "SELECT EXTRACT(DAY FROM sets())",
    "SELECT COUNT (1)",
    "SELECT statements.concat()",
    "SELECT statements . concat()",
    "SELECT statements./**/concat()",
    "SELECT `statements`.concat()",
    "SELECT statements.in (1)",
    "SELECT $sets()",
    "SELECT \u017fum(1)",
    "SELECT gr\u00f6\u00dfe FROM t",
    "SELECT sets -- x\n()",
    "SELECT sets # x\n()",
    "SELECT sets /* x */ /* y */ ()",
    "SELECT sets /* x */ -- y\n # z\n\t()",
    "SELECT sets /**//**/()",
    "SELECT statements. -- x\nsets()",
    "SELECT 1 --x\n, sets()",
    "SELECT 1 --\r, sets()",
    "SELECT 1 -- \0, sets()",
    "SELECT 1 # \0, sets()",
    "SELECT 1 -- x\n, sets()",
    "SELECT 1 -- x\r\n, sets()",
    "SELECT '-- ', sets() -- '",
    "SELECT '/*', sets(), '*/'",
    "SELECT '\\'/*', sets() */",
    "SELECT 1 -- x\n; SELECT 2",
    "SELECT 1 -- /*\n, sets() -- */",
    "SELECT 1 # /*\n, sets() # */",
    "SELECT 1 --/*\n, sets() /* */",
    "SELECT 1; -- x",
    "SELECT 1; # x",
    "SELECT 1; /* x */ /* y */",
    "SELECT 1 /*! , sets() */ /* x */",
    "/* x */ /*! SET @a = 1 */ SELECT 1",
    "/*! SET @a = 1; */ SELECT 1",
    "SELECT /*+ SET_VAR(sort_buffer_size = 1) */ 1",
    "SELECT 1 /*+ x */",
    "/*+ x */ SELECT 1",
    "SELECT 1 /*m! , sets() */",
    "ANALYZE TABLE t",
    "ANALYZE FORMAT=JSON sets()",
    "EXPLAIN ANALYZE SELECT sets()",
    "SELECT SEPARATOR.sets()",
    "/*! SET @a = 1 */",
    "SELECT 1 /*!, sets() */",
    "SELECT 1 /*M!, sets() */",
    "SELECT 1 /*!50000, sets() */",
    "SELECT 1 /*",
    "SELECT /*/ 1",
    "SELECT '",
    "SELECT `",
    "SELECT 'a\\'', sets(), '",
    "SELECT 'a\\', sets(), '",
    'SELECT "a\\", sets(), "',
    "/*a*/ SELECT /*x*/ (sets()) /*b*/",
    "SELECT {fn sets()}",
    "SELECT [sets]",
    "SELECT 1 \0",
    "SELECT '\0'",
    "SELECT PROCEDURE ANALYSE()",
    b"SELECT '\xff'",
    bytearray(b"SET @a = 1"),
    None,
    1,
]
DIRTY_TEMPLATES = [
    "SET @a = %s",
    "SELECT '%s'",
    "SELECT ' %% %s'",
    'SELECT "%s"',
    "SELECT `%s`",
    "SELECT 1 /* %s */",
    "/* %s */ SELECT 1",
    "SELECT 1 /* a */ /* %(a)s */",
    "SELECT 1 -- %s\n",
    "SELECT 1 # %s\n",
    "SELECT f -- x\n%s",
    "SELECT f /* x */ /* y */ %s",
    "SELECT GROUP_CONCAT %s",
    "SELECT f%s",
    "SELECT f %s",
    "SELECT `f` %s",
    "SELECT IN%s",
    "SELECT %sCOUNT(1)",
    "SELECT %s(1)",
    "SELECT %s.f(1)",
    "SELECT %s%s",
    "SELECT 1%s",
    "SELECT %d",
    "SELECT %.3s",
    "SELECT %r",
    "SELECT %(a b)s",
    "SELECT @%s",
    "SELECT GET_LOCK(%s, 1)",
    "SELECT %s; SELECT %s",
]


def leaves_nothing(sql: object, is_template: bool = False) -> bool:
    """As a cursor looks it up, which takes comments off first."""
    effects = read(sql, is_template)
    try:
        return not EFFECTS[is_template][sql] & LEAVES
    except TypeError:  # not hashable
        return not effects & LEAVES


@pytest.mark.parametrize("sql", CLEAN_IN_MYSQL)
def test_a_statement_that_leaves_nothing(sql: str) -> None:
    assert leaves_nothing(sql)
    assert not sql.isascii() or leaves_nothing(sql.encode())


@pytest.mark.parametrize("sql", CLEAN_TEMPLATES)
def test_a_template_that_leaves_nothing(sql: str) -> None:
    assert leaves_nothing(sql, is_template=True)


@pytest.mark.parametrize("sql", DIRTY_IN_MYSQL, ids=repr)
def test_a_statement_that_may_leave_something(sql: object) -> None:
    assert not leaves_nothing(sql)


@pytest.mark.parametrize("sql", DIRTY_TEMPLATES)
def test_a_template_that_may_leave_something(sql: str) -> None:
    assert not leaves_nothing(sql, is_template=True)


def test_a_long_statement_is_read_too() -> None:
    rows = ", ".join(["(%s, %s)"] * LONGEST_REMEMBERED)
    assert leaves_nothing(f"INSERT INTO t (a, b) VALUES {rows}", is_template=True)
    assert not leaves_nothing(f"INSERT INTO t (a, b) VALUES {rows}, (sets(), 1)", is_template=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "opening",
    [
        "/*",
        "/* ",
        "'\\'",
        "INTO ",
        "a ",
        "%s,",
        "(",
        "`a``",
        "'a\"",
        "AS ",
        "/**/",
        "/**/ ",
        "#\n",
        "-- \n",
        "-- #",
    ],
)
def test_no_text_takes_for_ever(opening: str) -> None:
    """Each of these was read to its end from each of its characters once: half an hour for this text."""
    assert not leaves_nothing("SELECT { " + opening * 100_000)
    assert not leaves_nothing("SELECT " + opening * 100_000 + "\n{", is_template=True)


def test_a_comment_that_differs_each_time_costs_neither_a_reading_nor_a_place() -> None:
    texts: list[object] = []

    def note(sql: object) -> int:
        texts.append(sql)
        return read(sql)

    memory = Memory(note)
    for number in range(100):
        assert not memory[f"/*{number}*/ SELECT a FROM t /*traceparent='{number}'*/ /*b*/;"] & LEAVES
    assert (texts, list(memory)) == (["SELECT a FROM t"], ["SELECT a FROM t"])
    # What is not understood without its comments is read with them.
    for sql in "SELECT @a /*b*/", "SELECT '/* a */", "SELECT 1; /* a */", "SELECT 1 /*! , sets() */":
        assert memory[sql] & LEAVES
        assert texts[-1] == sql
    assert not memory["SELECT '*/' /* it's /* here */"] & LEAVES


def test_the_memory_keeps_what_was_read_of_late() -> None:
    reads = Counter[object]()

    def note(sql: object) -> int:
        reads[sql] += 1
        return read(sql)

    memory = Memory(note)
    for number in range(3 * MOST_REMEMBERED):
        memory["SELECT a FROM t"]
        memory[f"SELECT {number}"]
        assert len(memory) <= MOST_REMEMBERED // 2
    assert reads["SELECT a FROM t"] == 1
    memory["SELECT a FROM t WHERE a IN (" + "1," * LONGEST_REMEMBERED + "1)"]
    assert max(len(str(sql)) for sql in memory) < 100


@pytest.mark.parametrize(
    ("sql", "clean"),
    [
        ("SELECT 1", True),
        ("EXPLAIN QUERY PLAN SELECT 1", True),
        ("explain select 1", True),
        ("EXPLAIN PRAGMA foreign_keys = OFF", False),
        ("EXPLAIN QUERY PLAN PRAGMA foreign_keys = OFF", False),
        ("EXPLAIN SELECTED", False),
        ("-- report\n /* of */ select load_extension('x')", True),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", True),
        ("BEGIN IMMEDIATE", True),
        ("PRAGMA foreign_keys = OFF", False),
        ("ATTACH 'x' AS x", False),
        ("CREATE TEMP TABLE x (a)", False),
        ("/* SELECT */ PRAGMA foreign_keys = OFF", False),
        ("-- SELECT", False),
        ("SELECTED", False),
        (b"SELECT 1", False),
    ],
)
def test_statements_of_sqlite(sql: object, clean: bool) -> None:
    assert bool(sqlite_statements.read(sql) & LEAVES) is not clean


# --- against the server -----------------------------------------------------------------------------------

#: Everything that the server tells about a session, without changing it. Not compared is what every statement
#: changes: the time, counters, and what belongs to the last statement.
ACCOUNT = """
SELECT MD5(GROUP_CONCAT(variable_name, '=', variable_value ORDER BY variable_name)), LAST_INSERT_ID(),
    (SELECT GROUP_CONCAT(variable_name, variable_value ORDER BY variable_name)
     FROM information_schema.user_variables),
    DATABASE(), CURRENT_ROLE(), CURRENT_USER(), IS_USED_LOCK('fuzz'), LASTVAL(seq)
FROM information_schema.session_variables
WHERE variable_name NOT IN ('TIMESTAMP', 'ERROR_COUNT', 'WARNING_COUNT', 'RAND_SEED1', 'RAND_SEED2')
"""
SQL_MODES = [
    "",
    "ANSI_QUOTES",
    "NO_BACKSLASH_ESCAPES",
    "ANSI_QUOTES,NO_BACKSLASH_ESCAPES",
    "IGNORE_SPACE",
    "ORACLE",
]


class Session:
    """A session of the driver's own, to see what statements leave in it."""

    def __init__(self, server: MariaDB, sql_mode: str = "") -> None:
        self.params = {"user": server.user, "passwd": server.password, "db": DATABASE}
        self.sql_mode = sql_mode
        self.connection = MySQLdb.connect(
            unix_socket=str(server.socket), charset="utf8mb4", autocommit=True, **self.params
        )
        self.renew()

    def renew(self) -> None:
        self.connection.change_user(*self.params.values())
        self.connection.set_character_set("utf8mb4")
        self.run("SET group_concat_max_len = 1000000")
        self.run(f"SET sql_mode = '{self.sql_mode}'")
        self.new = self.account()

    def run(self, sql: str, parameters: Any = None) -> Any:
        """All rows of the last result. An error of the server is one more way to end."""
        rows = None
        with self.connection.cursor() as cursor:
            try:
                cursor.execute(sql, parameters)
                rows = cursor.fetchall()
                while cursor.nextset():
                    pass
            except (MySQLdb.Error, TypeError, ValueError, KeyError):
                pass
        return rows

    def account(self) -> Any:
        rows = self.run(ACCOUNT)
        assert rows
        return rows

    def is_changed_by(self, sql: str, parameters: Any = None) -> bool:
        """Run it in a session that is as new."""
        self.run(sql, parameters)
        changed: bool = self.account() != self.new
        if changed:
            self.renew()
        return changed


@pytest.fixture(scope="module")
def server(mariadb: MariaDB) -> Iterator[MariaDB]:
    mariadb.create_database(DATABASE)
    with MySQLdb.connect(unix_socket=str(mariadb.socket), user="root", database=DATABASE) as connection:
        connection.autocommit(True)
        for statement in TABLES.strip().splitlines():
            connection.query(statement.removesuffix(";"))
    yield mariadb
    mariadb.execute(f"DROP DATABASE {DATABASE}")


@pytest.fixture(scope="module")
def sessions(server: MariaDB) -> Iterator[dict[str, Session]]:
    """One for each sql_mode."""
    sessions = {mode: Session(server, mode) for mode in SQL_MODES}
    yield sessions
    for session in sessions.values():
        session.connection.close()


@pytest.mark.slow
def test_no_stored_function_hides_behind_a_name_that_is_known(server: MariaDB) -> None:
    """Each known function exists in the server; neither it nor any word can be replaced by somebody's own."""
    session = Session(server)
    assert [name for name in FUNCTIONS.split() if is_missing(session, name)] == []
    for name in sorted({*FUNCTIONS.split(), *KEYWORDS.split(), *TYPES.split(), "LAST_INSERT_ID"}):
        session.run(f"CREATE FUNCTION `{name}`() RETURNS INT BEGIN SET @leak = 1; RETURN 1; END")
        assert is_called(session, f"{DATABASE}.`{name}`()")
        for call in f"{name}()", f"{name} ()", f"1 {name}()", f"1 {name} ()", f"1 AS {name}()":
            assert not (is_called(session, call) and leaves_nothing(f"SELECT {call}")), call
        session.run(f"DROP FUNCTION `{name}`")
    session.connection.close()


def is_missing(session: Session, function: str) -> bool:
    """Whether the server knows no function of that name."""
    for arguments in "", "1", "1, 1", "1, 1, 1":
        try:
            session.connection.query(f"SELECT {function}({arguments})")
            session.connection.store_result()
        except MySQLdb.Error as error:
            if error.args[0] == 1305:
                return True
    return False


def is_called(session: Session, call: str) -> bool:
    """Whether this runs the stored function."""
    session.run("SET @leak = NULL")
    session.run(f"SELECT {call}")
    return bool(session.run("SELECT @leak") == ((1,),))


# --- the fuzz -----------------------------------------------------------------------------------------------

#: What leaves something, if it is run.
LEAVING = [
    "@leak := 1",
    "(@leak:=1)",
    "sets()",
    "SETS ()",
    "`sets`()",
    '"sets"()',
    "statements.sets()",
    "sets/**//**/()",
    "sets -- x\n()",
    "sets #x\n /* y */ ()",
    "GET_LOCK('fuzz', 0)",
    "get_lock/**/('fuzz',0)",
    'Get_Lock ("fuzz", 0)',
    "LAST_INSERT_ID(77)",
    "last_insert_id\n(77)",
    "NEXT VALUE FOR seq",
    "NEXTVAL(seq)",
    "SETVAL(seq, 5)",
    "seq.nextval",
    "seq.`nextval`",
    'seq."nextval"',
]
#: Where one thing ends and the next begins: here a reader and the server may disagree.
MARKS = [
    "'", "''", '"', '""', "`", "``", "\\", "\\'", '\\"', "\\\\", "/*", "*/", "/*!", "/*M!", "/*!50000 ",
    "/*/", "--", "#", "-- ", ";", ",", "(", ")", "+", "-", "*", "/", "%", ".", "1", "a", "N", "_utf8mb4",
    "x", "@", "@@", ":=", "{", "}", "$", " ", "\t", "\n", "\x00", "\u00e9", "\u2003", "\xa0",
]  # fmt: skip

soups = st.lists(st.sampled_from([*MARKS, *LEAVING]), max_size=5).map("".join)


def quoted(inner: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [
            "'{}'", '"{}"', "`{}`", "/*{}*/ 1", "1 /*{}*/", "/*!{}*/", "'{}", "/*M!{}*/1", "1 /*a*/ /*{}*/",
            "/*{}*//*b*/1", "1 -- {}\n", "1 #{}\n+ 1", "-- {}\n /*a*/ 1", "/*{}*/ -- b\n1", "1 --{}",
        ]
    ).map(lambda form: form.replace("{}", inner))  # fmt: skip


leaving = st.sampled_from(LEAVING)
harmless = st.sampled_from(
    ["1", "a", "'x'", "COUNT(*)", "t.a", "CONCAT('a', 1)", "`a`", "NULL", "@@sql_mode", "7 % 2"]
)
strings = soups.flatmap(quoted)
items = st.one_of(harmless, strings, leaving, soups)
FORMS = [
    "SELECT {} FROM t",
    "SELECT {}",
    "select\n{}",
    "(SELECT {})",
    "/**/SELECT {}",
    "/*a*/ /*{}*/ SELECT 1",
    "-- {}\nSELECT 1",
    "#{}\n(SELECT 1)",
    "SELECT 1 /*{}*/",
    "SELECT 1 /*a*/ -- {}",
    "SELECT a FROM t -- x\n{}",
    "SELECT a /*x*/ /*y*/ {}",
    "ANALYZE SELECT {}",
    "SELECT GROUP_CONCAT(a SEPARATOR {}) FROM t",
    "WITH x AS (SELECT {}) SELECT * FROM x",
    "SELECT 1 FROM t WHERE {}",
    "SELECT 1 FROM t LIMIT 1{}",
    "SELECT a FROM t ORDER BY {}",
    "SELECT 1 INTO {}",
    "SELECT a INTO @leak FROM t WHERE {}",
    "INSERT INTO t (a) VALUES ({})",
    "INSERT INTO t SELECT {}",
    "UPDATE t SET a = {}",
    "DELETE FROM t WHERE {}",
    "REPLACE INTO t (a) VALUES ({})",
    "SHOW TABLES WHERE {}",
    "EXPLAIN SELECT {}",
    "SELECT 1{}",
    "{}",
    "SELECT 1; SET @leak = {}",
    "SELECT 1 UNION SELECT {}",
    "SELECT * FROM `it's` WHERE `a\"b` = {}",
]
statements = st.builds(
    lambda form, parts, separator: form.replace("{}", separator.join(parts), 1),
    st.sampled_from(FORMS),
    st.lists(items, min_size=1, max_size=4),
    st.sampled_from([", ", ",", " ", "", " + "]),
)
modes = st.sampled_from(SQL_MODES)
FUZZ = settings(
    max_examples=600,
    deadline=None,  # the machine may be busy
    derandomize=True,  # what CI finds has to be found again
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@FUZZ
@given(sql=statements, mode=modes)
def test_what_is_taken_to_leave_nothing_leaves_nothing(
    sessions: dict[str, Session], sql: str, mode: str
) -> None:
    if leaves_nothing(sql):
        assert not sessions[mode].is_changed_by(sql)


#: Parameters of every type that becomes a literal, and some that look like code.
parameters = st.one_of(
    soups, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.binary(max_size=4),
    st.booleans(), st.decimals(allow_nan=False, allow_infinity=False), st.datetimes(),
    st.lists(soups, min_size=1, max_size=2).map(tuple),
)  # fmt: skip
holes = st.sampled_from(
    [
        "%s", "'%s'", "%s%s", "sets%s", "GET_LOCK %s", "(%s, 0)", "-%s", "%%", "%(a)s", "/*%s*/", "IN %s",
        "/*%%*/", "-- %s\n", "# %%\n", "sets -- a\n%s", "sets /*a*/ /*b*/ %s", "SEPARATOR %s",
    ]
)  # fmt: skip


@pytest.mark.slow
@FUZZ
@given(
    form=st.sampled_from(FORMS),
    parts=st.lists(st.one_of(holes, holes, harmless, strings), min_size=1, max_size=4),
    separator=st.sampled_from([", ", " ", ""]),
    values=st.lists(parameters, min_size=4, max_size=4),
    mode=modes,
)
def test_no_parameter_makes_a_statement_leave_something(
    sessions: dict[str, Session], form: str, parts: list[str], separator: str, values: list[Any], mode: str
) -> None:
    sql = form.replace("{}", separator.join(parts), 1)
    given_ = {"a": values[0]} if "%(a)s" in sql else tuple(values[: sql.replace("%%", "").count("%s")])
    if leaves_nothing(sql, is_template=True):
        assert not sessions[mode].is_changed_by(sql, given_)


NAIVE = {
    "the first word": lambda sql: (
        sql.lstrip("( \n").upper().startswith(("SELECT", "INSERT", "UPDATE", "WITH"))
    ),
    "no setter in sight": lambda sql: (
        not any(word in sql.upper() for word in ("@", "SETS(", "LOCK(", ";", "VAL"))
    ),
}


@pytest.mark.parametrize("naive", NAIVE)
def test_the_fuzz_finds_what_a_naive_reader_lets_through(sessions: dict[str, Session], naive: str) -> None:
    from hypothesis import find

    believes = NAIVE[naive]
    session = sessions[""]
    try:
        find(
            statements,
            lambda sql: believes(sql) and session.is_changed_by(sql),
            settings=settings(FUZZ, phases=[Phase.generate], max_examples=3000),
        )
    except NoSuchExample:
        pytest.fail("it has found nothing")
