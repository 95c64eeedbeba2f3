"""Invariant 3, statements of PostgreSQL: none that is read as leaving nothing leaves anything in its session.

``test_postgresql_fuzz.py`` compares the reader with a server.
"""

from __future__ import annotations

import pytest

from poollife.drivers.effects import CHECKED, LAST_NUMBER, LEAVES, LONGEST_REMEMBERED, PINS, READS
from poollife.drivers.postgresql.effects import ADDS_TYPES, PREPARES, UNRESETTABLE, told_by
from poollife.drivers.postgresql.statements import EFFECTS, read

CLEAN = [
    "SELECT 1",
    "select 1;",
    "SELECT 1; -- the end\n /* of it */",
    "\n\t(SELECT 1) UNION ((SELECT 2))",
    "VALUES (1, 'a'), (2, 'it''s')",
    "TABLE t",
    'SELECT DISTINCT ON ("a") "t"."a", count(*) FROM "t" GROUP BY "t"."a" HAVING (count(*)) > 1',
    "WITH one AS (SELECT 1) SELECT * FROM one",
    "WITH RECURSIVE x(a, b) AS (SELECT 1, 2 UNION ALL SELECT a + 1, b FROM x) SELECT * FROM x AS y (c, d)",
    'WITH "x" ("a") AS NOT MATERIALIZED (VALUES (1)) INSERT INTO t (a) SELECT a FROM "x"',
    'INSERT INTO "t" ("a", "b") VALUES (1, \'x\') ON CONFLICT ("a") DO UPDATE SET "b" = EXCLUDED."b"',
    "INSERT INTO s.t AS u (a) VALUES (DEFAULT) ON CONFLICT DO NOTHING RETURNING u.a",
    "INSERT INTO t DEFAULT VALUES",
    'UPDATE "t" SET "a" = ("t"."a" + 1) WHERE NOT ("t"."id" = 1 AND "t"."b" IS NULL)',
    "DELETE FROM ONLY t USING u WHERE t.a -> '$.b' ->> 'c' = u.d::text",
    "MERGE INTO t USING u ON (t.a = u.a) WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1, 2)",
    "SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED",
    "SELECT nextval('s'), currval ('s'), lastval/**/()",
    "SELECT pg_catalog.lower(a) FROM t",
    "SELECT (t.a)::numeric(8, 2), b::int[], c::timestamp with time zone AT TIME ZONE 'UTC' FROM t",
    "SELECT CAST(a AS varchar(9)), (SELECT CAST(b AS integer) AS c) FROM t",
    "SELECT interval '1 day', date '2020-01-01', TIMESTAMP WITH TIME ZONE '2020-01-01', E'a\\'b\\\\'",
    "SELECT U&'\\0041', B'01', X'1F', N'a', $$it's; SET a = 1$$, 'a\\', '; SET a = 1'",
    "SELECT ARRAY[1, 2][1:2], a[1], ROW(1, 2), a @> ARRAY(SELECT 1), -1, a=-1, b>=-1, 2*-3, 1.5e-3, $1",
    "SELECT a #>> '{b}', a || b, a !~* 'x', a <-> b, a @@ b, a ? 'x', a &&b, a<@b, ~ 1, 7 % 2 FROM t",
    "SELECT 1 /* a; SET x */ -- f()\r + 2 -- 'it\n",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY (b)) , count(*) FILTER (WHERE a > 1) OVER () FROM t",
    "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING)",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t GROUP BY GROUPING SETS ((a), ())",
    "SELECT a FROM t GROUP BY ROLLUP (a, b)",
    "SELECT * FROM t JOIN (SELECT 1 AS a) AS u (b) ON (u.b = t.a) LEFT JOIN LATERAL (SELECT 2) v USING (c)",
    "SELECT * FROM unnest(ARRAY[1]) WITH ORDINALITY AS t(a, b), generate_series(1, 3) g",
    "SELECT * FROM t WHERE a LIKE 'x%' ESCAPE '\\' AND b ILIKE 'y' AND c NOT IN (1) AND d BETWEEN (1) AND $2",
    "SELECT extract(year FROM a), substring(b FROM 1 FOR 2), trim(BOTH ' ' FROM c), position('a' IN b)",
    "SELECT 'grö\u00dfe' FROM \"grö\u00dfe\", größe AS b",
    "SELECT CASE WHEN (a) THEN (1) ELSE (2) END",
    "SELECT * FROM pg_settings",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE VERBOSE SELECT 1",
    "EXPLAIN (ANALYZE, FORMAT JSON, BUFFERS off) UPDATE t SET a = 1",
    "SHOW search_path",
    "SAVEPOINT \"s1_x1\"",
    "RELEASE SAVEPOINT \"s1_x1\"",
    "ROLLBACK TO SAVEPOINT \"s1_x1\"",
    "ROLLBACK WORK TO s1",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS \"a\", s.b DEFERRED",
    "SET LOCAL statement_timeout = '5s'",
    "SET LOCAL TIME ZONE 'UTC'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "SELECT set_config('my.f', 'x', true)",
    "BEGIN", "begin transaction isolation level repeatable read read only;", "START TRANSACTION",
    "COMMIT", "END WORK", "ROLLBACK;", "ABORT AND NO CHAIN",
    "DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1",
    "FETCH 10 FROM c", "MOVE FORWARD ALL IN \"c\"", "CLOSE c",
    "COPY t (a, b) FROM STDIN WITH CSV DELIMITER ','",
    "COPY (SELECT lower(a) FROM t) TO STDOUT",
    'TRUNCATE "t", "u" RESTART IDENTITY CASCADE',
    "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE",
    "NOTIFY c, 'payload'",
]  # fmt: skip
CLEAN_TEMPLATES = [
    'INSERT INTO "a" ("b") VALUES (%s, %s), (%s::int[], %b)',
    "SELECT * FROM t WHERE a IN %s AND b LIKE %s LIMIT %s OFFSET %s",
    "SELECT * FROM t WHERE a = %(name)s::text AND b=-1 AND c = ANY(%(other)s)",
    "SELECT * FROM t WHERE a LIKE '%%x%%' AND b %% 2 = %s AND c %%> %t",
    "INSERT INTO t (a) VALUES %s",
    "SELECT a AT TIME ZONE %s, b ILIKE %s FROM t /*key='a%%3Ab'*/",
    "SELECT set_config('my.f', %s, true)",
]
DIRTY = [
    "",
    ";",
    "/* x */",
    "SET search_path = x",
    "SET SESSION x = 1",
    "SET ROLE x",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "RESET ALL",
    "DISCARD ALL",
    "LISTEN c",
    "UNLISTEN *",
    "DO $$BEGIN END$$",
    "CALL p()",
    "LOAD 'x'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN EXECUTE p",
    "DEALLOCATE p",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "BEGIN; SELECT 1",
    "CREATE TEMP TABLE x (a int)",
    "CREATE TABLE x (a int)",
    "CREATE EXTENSION hstore",
    "CREATE TYPE x AS ENUM ('a')",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1 cursor FOR UPDATE",
    "DECLARE c CURSOR FOR SELECT f()",
    "SELECT 1 INTO x",
    "SELECT 1 INTO TEMP x",
    "SELECT 1into x",
    "SELECT 1e5into x",
    "SELECT 1.into x",
    "SELECT 1 insert INTO TEMP x",
    "SELECT (1) insert INTO TEMPORARY TABLE x",
    "SELECT 1 insert INTO pg_temp.x",
    "EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1",
    "WITH x AS (SELECT 1) SELECT * INTO TEMP y FROM x",
    "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
    "UPDATE ONLY pg_catalog.\"pg_settings\" SET setting = 'x'",
    "WITH x AS (UPDATE/**/pg_settings SET setting = 'x') SELECT 1",
    "SET LOCAL seed = 0.5",
    'SET LOCAL "seed" TO 0.5',
    "SELECT set_config('seed', '0.5', true)",
    "SELECT set_config('my.f', 'x', false)",
    "SELECT set_config('my.f', 'x', true OR f())",
    "SELECT set_config(a, 'x', true)",
    "SELECT setseed(0.5)",
    "SELECT setval('s', 5)",
    "SELECT pg_advisory_lock(1)",
    "SELECT f()",
    "SELECT f/**/()",
    "SELECT f -- x\n()",
    "SELECT f -- x\r()",
    "SELECT f /* /* */ */ ()",
    'SELECT "f"()',
    'SELECT "lower"(a)',
    'SELECT s."f" ()',
    "SELECT s.f()",
    "SELECT s . f()",
    "SELECT s./**/f()",
    "SELECT s.lower(a)",
    "SELECT s.pg_catalog.f(a)",
    "SELECT my_catalog.f(1)",
    "SELECT (t).f(1)",
    "SELECT s.in(1)",
    'SELECT U&"f"()',
    'SELECT U&"\\0066"()',
    'UPDATE U&"pg\\005fsettings" SET setting = 1',
    "SELECT f(1), count(*)",
    "SELECT pg_catalog.set_config('a.b', 'c', false)",
    "SELECT query_to_xml('SELECT f()', true, true, '')",
    "SELECT table_to_xml('v', true, true, '')",
    "SELECT over(1)",
    "SELECT over()",
    "SELECT DISTINCT ON (a) over() FROM t",
    "SELECT DISTINCT/**/ON (a) over () FROM t",
    "SELECT over(a ORDER BY b)",
    "SELECT filter(1)",
    "SELECT conflict(1)",
    "SELECT * FROM t JOIN u ON conflict(a)",
    "SELECT * FROM t JOIN u ON conflict(a) WHERE true",
    "SELECT * FROM t JOIN u ON conflict(1 -- ) DO NOTHING\n)",
    "SELECT ASf(1)",
    "SELECT JOIN(1)",
    "SELECT CASE WHEN true THEN insert(1) END",
    "SELECT by(1)",
    "SELECT sets(1), rollup(1), cube(1)",
    "SELECT ilike(1)",
    "SELECT zone(1)",
    "SELECT * FROM f(1) AS (a int)",
    "SELECT * FROM f(a) AS (update int)",
    "SELECT 1 OPERATOR(public.=) 2",
    "SELECT 1 <<< 2",
    "SELECT 1 @- 2",
    "SELECT 'a'::public.d",
    "SELECT 'a'::d",
    "SELECT d 'a'",
    "SELECT d $$a$$",
    "SELECT CAST('a' AS d)",
    'SELECT CAST(")" AS d) FROM t',
    "SELECT CAST/**/('a' AS/**/d)",
    "SELECT 1; SELECT 2",
    "SELECT 1;;",
    "SELECT 1; SET a = 1 -- x",
    "SELECT '",
    'SELECT "',
    "SELECT 'a''",
    "SELECT 'it\\'s', f(), '",
    "SELECT E'it\\'', f(), '",
    "SELECT E'a'\n'b\\', f() , '",
    "SELECT E'a' -- x\n'b\\', f() , '",
    "SELECT $a$ x $A$, f(), $a$",
    "SELECT $a$x$a$",
    "SELECT $$ x",
    "SELECT $$ x $ $$, f()",
    "SELECT a$$, f(), $$",
    "SELECT 1 /*",
    "SELECT 1 /* /* */, f() */",
    "SELECT 1 /* /* */ */, f()",
    "/* /* */ SELECT 1 -- */ ; SET a = 1",
    "SELECT 1 -- /*\n, f() -- */",
    "SELECT 1 -- x\r, f()",
    "SELECT '--', f() -- '",
    "SELECT 1 */*x*/ f()",
    "SELECT 1 +-- x\n f()",
    "SELECT {f}",
    "SELECT `a`",
    "SELECT a\\b",
    "SELECT 1 \0",
    "SELECT '\0'",
    "SELECT \x01f()",
    "SELECT 0x1F",
    b"SELECT '\xff'",
    bytearray(b"SET a = 1"),
    None,
    1,
]
DIRTY_TEMPLATES = [
    "SET a = %s",
    "SELECT '%s'",
    "SELECT E'\\%s'",
    'SELECT "%s"',
    "SELECT $$%s$$",
    "SELECT 1 /* %s */",
    "SELECT 1 -- %s\n",
    "SELECT f%s",
    "SELECT f %s",
    "SELECT f /* x */ -- y\n %s",
    'SELECT "f" %s',
    "SELECT s.f %s",
    "SELECT IN%s",
    "SELECT E%s",
    "SELECT 'a'%s",
    "SELECT E'a'%s",
    "SELECT E'a'\n%s",
    "SELECT %s\n'b\\', f(), '",
    "SELECT %s -- x\n 'b\\', f(), '",
    "SELECT %s%s",
    "SELECT %s %s",
    "SELECT %sf(1)",
    "SELECT %s(1)",
    "SELECT %s.f(1)",
    "SELECT 1%s",
    "SELECT $1%s",
    "SELECT -%s",
    "SELECT %d",
    "SELECT %.3s",
    "SELECT %(a b)s",
    "SELECT set_config(%s, %s, true)",
    "SELECT set_config('a.b', %s, %s)",
    "SELECT %s; SELECT %s",
]


def leaves_nothing(sql: object, is_template: bool = False) -> bool:
    """As a cursor looks it up, which takes comments off first."""
    effects = read(sql, is_template)
    try:
        return not EFFECTS[is_template][sql] & LEAVES
    except TypeError:  # not hashable
        return not effects & LEAVES


@pytest.mark.parametrize("sql", CLEAN)
def test_a_statement_that_leaves_nothing_is_clean(sql: str) -> None:
    assert leaves_nothing(sql)
    assert not sql.isascii() or leaves_nothing(sql.encode())


@pytest.mark.parametrize("sql", CLEAN_TEMPLATES)
def test_a_template_that_leaves_nothing_is_clean(sql: str) -> None:
    assert leaves_nothing(sql, is_template=True)


@pytest.mark.parametrize("sql", DIRTY, ids=repr)
def test_a_statement_that_may_leave_state_is_dirty(sql: object) -> None:
    assert not leaves_nothing(sql)


@pytest.mark.parametrize("sql", DIRTY_TEMPLATES)
def test_a_template_that_may_leave_state_is_dirty(sql: str) -> None:
    assert not leaves_nothing(sql, is_template=True)


def test_a_statement_that_is_too_long_to_be_remembered_is_read() -> None:
    rows = ", ".join(["(%s, %s)"] * LONGEST_REMEMBERED)
    assert leaves_nothing(f"INSERT INTO t (a, b) VALUES {rows}", is_template=True)
    assert not leaves_nothing(f"INSERT INTO t (a, b) VALUES {rows}, (f(), 1)", is_template=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "opening",
    [
        "/*", "/* ", "E'\\'", "INTO ", "a ", "%s,", "(", '"a""', "'a\"", "AS ", "/**/", "-- \n", "$$", "$",
        "a(b,", "a (b) AS ", "ORDER BY ", "f(", "::", "+-", "CAST(", "INSERT INTO a.", "DISTINCT ON ", "E'' ",
        "AS NOT ", "COPY a.", ". ", "OVER()", "a.",
    ],
)  # fmt: skip
def test_reading_a_long_text_takes_a_short_time(opening: str) -> None:
    """With an expression that backtracks it would take half an hour."""
    assert not leaves_nothing("SELECT { " + opening * 100_000)
    assert not leaves_nothing("SELECT " + opening * 100_000 + "\n{", is_template=True)


# --- what else a text shows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "effects"),
    [
        ("SELECT 1", 0),
        ("SELECT 'lastval()' -- currval('s')", 0),
        ("SELECT lastval()", LAST_NUMBER << READS),
        ("SELECT pg_catalog.currval('s')", LAST_NUMBER << READS),
        ('SELECT "lastval" /**/ ()', (LAST_NUMBER << READS) | LAST_NUMBER | LEAVES),
        ("SELECT my_lastval(), lastval", LAST_NUMBER | LEAVES),
        ("SELECT nextval('s')", LAST_NUMBER),
        ("SELECT nextval('s'), currval('s')", LAST_NUMBER),
        ("SELECT currval('s'), nextval('s')", LAST_NUMBER | (LAST_NUMBER << READS)),
        ("INSERT INTO t (a) VALUES (1)", LAST_NUMBER),
        ("INSERT INTO t (a) VALUES (1) RETURNING lastval()", LAST_NUMBER),
        ("INSERT INTO t (a) VALUES (lastval())", LAST_NUMBER | (LAST_NUMBER << READS)),
        ("UPDATE t SET a = 1 RETURNING lastval()", LAST_NUMBER << READS),
        ("UPDATE t SET a = DEFAULT", LAST_NUMBER),
        ("WITH x AS (INSERT INTO t DEFAULT VALUES RETURNING a) SELECT a FROM x", LAST_NUMBER),
        ("COPY t (a) FROM STDIN", LAST_NUMBER),
        ("INSERT INTO t DEFAULT VALUES; SELECT lastval()", LAST_NUMBER | LEAVES),
        ("CREATE VIEW v AS SELECT lastval()", LAST_NUMBER | LEAVES),
        ("CREATE TABLE v AS SELECT lastval()", (LAST_NUMBER << READS) | LAST_NUMBER | LEAVES),
        ("SELECT pg_backend_pid()", PINS),
        ("SELECT setseed(0.5)", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("DO $$BEGIN PERFORM setseed(0.5); END$$", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("SET LOCAL seed = 0.5", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("LOAD 'auto_explain'", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("SELECT dblink_connect('x')", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("SELECT pg_replication_origin_session_setup('x')", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("DO LANGUAGE plpython3u $$x = 1$$", LAST_NUMBER | LEAVES | UNRESETTABLE),
        ("PREPARE p AS SELECT 1", LAST_NUMBER | LEAVES | PREPARES),
        ("EXECUTE p(1)", LAST_NUMBER | LEAVES | PREPARES),
        ("EXPLAIN ANALYZE EXECUTE p", LAST_NUMBER | LEAVES | PREPARES),
        ("SELECT 1; DEALLOCATE ALL", LAST_NUMBER | LEAVES | PREPARES),
        ("DO $$BEGIN EXECUTE 'PREPARE p AS SELECT 1'; END$$", LAST_NUMBER | LEAVES | PREPARES),
        ("DISCARD ALL", LAST_NUMBER | LEAVES | PREPARES),
        ("PREPARE TRANSACTION 'x'", LAST_NUMBER | LEAVES),
        ("/* x */ CREATE /* y */ EXTENSION IF NOT EXISTS hstore", LAST_NUMBER | LEAVES | ADDS_TYPES),
        ("CREATE TYPE a AS ENUM ('b')", LAST_NUMBER | LEAVES | ADDS_TYPES),
        ("SELECT 1; CREATE DOMAIN d AS int", LAST_NUMBER | LEAVES | ADDS_TYPES),
        ("DO $$BEGIN CREATE TYPE a AS (b int); END$$", LAST_NUMBER | LEAVES | ADDS_TYPES),
        ("CREATE TABLE t (a int)", LAST_NUMBER | LEAVES),
    ],
)
def test_effects_of_a_statement(sql: str, effects: int) -> None:
    assert EFFECTS[False][sql] == effects


def test_the_bits_of_the_dialect_are_no_others() -> None:
    assert not CHECKED & (UNRESETTABLE | PREPARES | ADDS_TYPES)


def test_an_error_names_the_function_that_reads() -> None:
    assert told_by("SELECT 'lastval()', CurrVal ('s')", LAST_NUMBER << READS) == "currval()"
    assert told_by("SELECT 1", LAST_NUMBER << READS) == "This statement"
