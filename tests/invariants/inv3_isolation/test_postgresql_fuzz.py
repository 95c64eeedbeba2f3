"""Invariant 3, statements of PostgreSQL: none that is read as leaving nothing leaves anything in its session.

The oracle is the server: its own account of the session, before and after.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import NoSuchExample

from poollife.drivers.postgresql.functions import KEYWORDS
from tests.invariants.inv3_isolation.test_postgresql_statements import CLEAN, leaves_nothing
from tests.support.postgresql_server import running_server
from tools.postgresql_functions import missing

#: What a statement of the fuzz may leave is left by one of these.
OBJECTS = r"""
CREATE TABLE t (a int, b text);
CREATE TABLE "it's" ("a""b" int);
INSERT INTO t VALUES (1, 'x'), (2, 'y');
CREATE SEQUENCE s;
CREATE FUNCTION sets() RETURNS int AS $$BEGIN PERFORM set_config('leak.a', '1', false); RETURN 1; END$$
    LANGUAGE plpgsql;
CREATE FUNCTION sets(anyelement) RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE FUNCTION "Sets"(int) RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE FUNCTION over() RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE FUNCTION over(anyelement) RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE FUNCTION conflict(anyelement) RETURNS boolean AS 'SELECT sets() = 1' LANGUAGE sql;
CREATE FUNCTION filter(anyelement) RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE FUNCTION "insert"(anyelement) RETURNS int AS 'SELECT sets()' LANGUAGE sql;
CREATE OPERATOR <<< (FUNCTION = sets, RIGHTARG = anyelement);
CREATE DOMAIN d AS int CHECK (sets(VALUE) = 1);
"""
#: Everything that the server tells about a session, without changing it. After SET LOCAL of a setting that
#: the server does not know, its value is an empty text, not NULL; no reset changes that.
ACCOUNT = """
SELECT (SELECT md5(string_agg(name || '=' || setting, ',' ORDER BY name)) FROM pg_settings
        WHERE name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')),
    nullif(current_setting('leak.a', true), ''), current_user, session_user,
    (SELECT string_agg(name, ',') FROM pg_prepared_statements),
    (SELECT string_agg(name, ',') FROM pg_cursors),
    (SELECT string_agg(c, ',') FROM pg_listening_channels() c),
    (SELECT string_agg(relname, ',') FROM pg_class WHERE relpersistence = 't'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""


class Session:
    """A session of the driver's own, to see what statements leave in it."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.driver = pytest.importorskip("psycopg")
        self.errors = (self.driver.Error, TypeError, ValueError, KeyError, UnicodeError)
        self.parameters = {**parameters, "options": "-c statement_timeout=2s"}
        self.renew()

    def renew(self) -> None:
        self.connection = self.driver.connect(
            **self.parameters, autocommit=True, cursor_factory=self.driver.ClientCursor
        )
        self.new = self.account()

    def run(self, sql: str, parameters: Any = None) -> None:
        """Run a text. An error of the server is one more way to end. A transaction ends as at a return."""
        try:
            with self.connection.cursor() as cursor:
                if sql.startswith("COPY "):
                    with cursor.copy(sql, parameters) as copy:
                        if " TO " in sql:
                            list(copy)
                else:
                    cursor.execute(sql, parameters)
        except self.errors:
            pass
        status = self.connection.info.transaction_status
        if status in (status.INTRANS, status.INERROR):
            self.connection.execute("ROLLBACK")
        elif status != status.IDLE:
            self.connection.close()
            self.renew()

    def account(self) -> Any:
        return self.connection.execute(ACCOUNT).fetchone()

    def is_changed_by(self, sql: str, parameters: Any = None) -> bool:
        """Run a text in a session that is as new."""
        self.run(sql, parameters)
        changed: bool = self.account() != self.new
        if changed:
            self.connection.close()
            self.renew()
        return changed


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    """A server with functions that leave something."""
    with running_server() as server:
        psql(server.parameters, OBJECTS)
        yield server.parameters


def psql(parameters: dict[str, Any], sql: str) -> None:
    command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, conninfo(parameters)]
    subprocess.run(command, check=True)


def conninfo(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())


@pytest.fixture(scope="module")
def session(server: dict[str, Any]) -> Iterator[Session]:
    session = Session(server)
    yield session
    session.connection.close()


def test_each_known_function_leaves_nothing_by_the_catalog(
    server: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing(conninfo(server)) == set()


def test_no_keyword_before_a_parenthesis_calls_a_function(session: Session) -> None:
    """OVERLAY and SUBSTRING call any function of their name, as each name of a built-in function does."""
    for name in {*KEYWORDS.split()} - {"OVERLAY", "SUBSTRING"}:
        session.connection.execute(
            f"CREATE FUNCTION public.\"{name.lower()}\"(int) RETURNS int AS 'SELECT sets()' LANGUAGE sql"
        )
        try:
            for call in f"{name}(1)", f"{name} (1)", f"1 {name}(1)", f"a FROM t WHERE {name}(1) = 1":
                assert not (leaves_nothing(f"SELECT {call}") and session.is_changed_by(f"SELECT {call}"))
        finally:
            session.connection.execute(f'DROP FUNCTION public."{name.lower()}"')


@pytest.mark.parametrize("sql", CLEAN)
def test_a_clean_statement_leaves_the_session_as_it_was(session: Session, sql: str) -> None:
    assert not session.is_changed_by(sql)


#: What leaves something, if it is run.
LEAVING = [
    "sets()", "SETS (1)", '"sets"()', '"Sets"(1)', "public.sets()", "public . sets ()", "sets/**/()",
    "sets--x\n()", "sets--x\r()", 'U&"sets"()', 'U&"\\0073ets"()', "over()", "over(1)", "conflict(1)",
    "filter(1)", "insert(1)", "set_config('leak.a', '2', false)",
    "pg_catalog.set_config('leak.a','2',false)", "<<< 1", "'1'::d", "d '1'", "CAST('1' AS d)",
    "pg_advisory_lock(1)", "INTO TEMP leak", "INTO pg_temp.leak", "1 insert INTO TEMP leak",
    "; SET leak.a = 3", "(SELECT sets())", "sets(1) AS a", "ON conflict(1)", "DISTINCT ON (1) over()",
]  # fmt: skip
#: Where one thing ends and the next begins: here a reader and the server may disagree.
MARKS = [
    "'", "''", '"', '""', "\\", "\\'", "\\\\", "/*", "*/", "/*/", "--", "-- ", ";", ",", "(", ")", "+", "-",
    "*", "/", "%", ".", "1", "a", "E", "E'", "U&'", 'U&"', "B'", "N'", "$", "$$", "$a$", "$A$", "$1", "x",
    "@", "::", ":", ":=", "<", ">", "=", "!", "~", "#", "&", "|", "?", "[", "]", "{", "}", " ", "\t", "\n",
    "\r", "\v", "\u00e9", "\u2003", "\xa0", "AS", "IN", "AS ", "OVER ", "FILTER ", "JOIN ", "1e5", "1.",
    "INTO ", "USING ",
]  # fmt: skip
soups = st.lists(st.sampled_from([*MARKS, *LEAVING]), max_size=5).map("".join)


def quoted(inner: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [
            "'{}'",
            '"{}"',
            "E'{}'",
            "U&'{}'",
            "$${}$$",
            "$a${}$a$",
            "/*{}*/ 1",
            "1 /*{}*/",
            "'{}",
            "E'{}",
            "1 -- {}\n",
            "-- {}\r /*a*/ 1",
            "/*{}*/ -- b\n1",
            "1 --{}",
            "/*/*{}*/*/",
            "'a'\n'{}'",
            "E'a'\n'{}'",
        ]
    ).map(lambda form: form.replace("{}", inner))


leaving = st.sampled_from(LEAVING)
harmless = st.sampled_from(
    [
        "1",
        "a",
        "'x'",
        "count(*)",
        "t.a",
        "concat('a', 1)",
        '"a"',
        "NULL",
        "a=-1",
        "7 % 2",
        "b ILIKE 'x'",
        "a::text",
    ]
)
items = st.one_of(harmless, soups.flatmap(quoted), leaving, soups)
FORMS = [
    "SELECT {} FROM t", "SELECT {}", "select\n{}", "(SELECT {})", "/**/SELECT {}", "/*a*/ /*{}*/ SELECT 1",
    "-- {}\nSELECT 1", "SELECT 1 /*{}*/", "SELECT 1 /*a*/ -- {}", "SELECT a FROM t -- x\n{}",
    "EXPLAIN ANALYZE SELECT {}", "EXPLAIN (ANALYZE) SELECT {}", "WITH x AS (SELECT {}) SELECT * FROM x",
    "WITH x(a) AS (SELECT {}) TABLE x", "SELECT 1 FROM t WHERE {}", "SELECT 1 FROM t LIMIT 1{}",
    "SELECT a FROM t ORDER BY {}", "SELECT 1 AS {}", "INSERT INTO t (a) VALUES ({})",
    "INSERT INTO t (a) SELECT {}", "UPDATE t SET a = {}", "DELETE FROM t WHERE {}",
    "INSERT INTO t VALUES (1) ON CONFLICT {} DO NOTHING", "SELECT * FROM t JOIN t u {}",
    "SELECT DISTINCT {} FROM t", "SELECT DISTINCT ON (a) {} FROM t", "SELECT 1{}", "{}",
    "SELECT 1; SET leak.a = {}", "SELECT 1 UNION SELECT {}", "SELECT * FROM \"it's\" WHERE \"a\"\"b\" = {}",
    "VALUES ({})", "SELECT count(*) {} FROM t", "SELECT CAST({} AS int)",
    "SELECT * FROM generate_series(1, 2) {}", "SET LOCAL leak.a = {}", "DECLARE c CURSOR FOR SELECT {}",
    "BEGIN {}", "COPY (SELECT {}) TO STDOUT", "SELECT sum(a) OVER {} FROM t",
    "SELECT CASE WHEN true THEN {} END",
]  # fmt: skip
statements = st.builds(
    lambda form, parts, separator: form.replace("{}", separator.join(parts), 1),
    st.sampled_from(FORMS),
    st.lists(items, min_size=1, max_size=4),
    st.sampled_from([", ", ",", " ", "", " + "]),
)
FUZZ = settings(
    max_examples=1500,
    deadline=None,  # the machine may be busy
    derandomize=True,  # what CI finds has to be found again
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@FUZZ
@given(sql=statements)
def test_a_random_statement_that_is_clean_leaves_nothing(session: Session, sql: str) -> None:
    if leaves_nothing(sql):
        assert not session.is_changed_by(sql)


#: Parameters of every type that becomes a literal, and some that look like code.
values = st.one_of(
    soups,
    st.integers(),
    st.floats(allow_nan=False),
    st.none(),
    st.binary(max_size=4),
    st.booleans(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(),
    st.lists(soups, max_size=2),
)
holes = st.sampled_from(
    [
        "%s", "'%s'", "%s%s", "sets%s", "sets %s", "(%s, 0)", "-%s", "%%", "%(a)s", "/*%s*/", "IN %s",
        "E%s", "$$%s$$", "/*%%*/", "-- %s\n", "-- %%\n", "sets -- a\n%s", "sets /*a*/ %s", "E'a'%s",
        "%s\n'b\\'", "E'a'\n%s", "a=%s", "%s::d",
    ]
)  # fmt: skip


@pytest.mark.slow
@FUZZ
@given(
    form=st.sampled_from(FORMS),
    parts=st.lists(st.one_of(holes, holes, harmless, soups.flatmap(quoted)), min_size=1, max_size=4),
    separator=st.sampled_from([", ", " ", ""]),
    given_values=st.lists(values, min_size=4, max_size=4),
)
def test_no_parameter_makes_a_clean_template_leave_state(
    session: Session, form: str, parts: list[str], separator: str, given_values: list[Any]
) -> None:
    sql = form.replace("{}", separator.join(parts), 1)
    count = sql.replace("%%", "").count("%s")
    given_ = {"a": given_values[0]} if "%(a)s" in sql else tuple(given_values[:count])
    if leaves_nothing(sql, is_template=True):
        assert not session.is_changed_by(sql, given_)


NAIVE = {
    "the first word": lambda sql: (
        sql.lstrip("( \n").upper().startswith(("SELECT", "INSERT", "UPDATE", "WITH"))
    ),
    "no setter in sight": lambda sql: not any(word in sql.upper() for word in ("SET", "LOCK", ";", "INTO")),
}


@pytest.mark.parametrize("naive", NAIVE)
def test_the_fuzz_finds_what_a_naive_reader_lets_through(session: Session, naive: str) -> None:
    from hypothesis import find

    believes = NAIVE[naive]
    try:
        find(
            statements,
            lambda sql: believes(sql) and session.is_changed_by(sql),
            settings=settings(FUZZ, phases=[Phase.generate], max_examples=3000),
        )
    except NoSuchExample:
        pytest.fail("it has found nothing")
