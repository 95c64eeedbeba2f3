"""Invariant 3, statements of Oracle: none that is read as leaving nothing leaves anything in its session.

There is no Oracle server here: the table holds what Oracle's "SQL Language Reference" says.
"""

from __future__ import annotations

import pytest

from poollife.drivers.effects import LAST_NUMBER, LEAVES, PINS, READS
from poollife.drivers.oracle.statements import EFFECTS, read, told_by

CLEAN = [
    "SELECT 1",
    "SELECT 1 FROM DUAL",
    "select 1 from dual;",
    "SELECT /*+ FULL(t) */ \"T\".\"A\", t.b, :arg0, 'it''s', N'x', 1.5e-3f FROM \"T\" t -- the end\n",
    "SELECT 'ü; ALTER SESSION SET x = 1' FROM \"größe\"",
    "SELECT 1 FROM DUAL WHERE DUMMY LIKE TRANSLATE(:a USING NCHAR_CS) ESCAPE TRANSLATE('\\' USING NCHAR_CS)",
    'INSERT INTO "T" ("A", "B") VALUES (:arg0, :arg1) RETURNING "T"."ID" INTO :arg2',
    'INSERT INTO "T" ("A") SELECT * FROM (SELECT TO_NUMBER(:a) col_0, TO_NCLOB(:b) col_1 FROM DUAL UNION ALL'
    " SELECT TO_NUMBER(:c), CAST(:d as INTERVAL DAY(9) TO SECOND(6)) FROM DUAL)",
    'UPDATE "T" SET "N" = ("T"."N" + :arg0) WHERE "T"."ID" IN (:arg1, :arg2) AND NOT (a <> 1 OR b != 2)',
    "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a(+))",
    "MERGE INTO t USING (SELECT 1 a FROM dual) s ON (t.a = s.a) WHEN MATCHED THEN UPDATE SET t.b = 1"
    " WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
    "WITH c (x, y) AS (SELECT 1, 2 FROM dual) SELECT * FROM c",
    "SELECT a FROM t ORDER BY a OFFSET 1 ROWS FETCH NEXT 3 ROWS ONLY",
    "SELECT a FROM t FOR UPDATE OF t.a SKIP LOCKED",
    "SELECT COUNT(*) OVER (PARTITION BY (a) ORDER BY (b)), LISTAGG(a, ',') WITHIN GROUP (ORDER BY a) FROM t",
    "SELECT EXTRACT(YEAR FROM CAST((FROM_TZ(a, '0:00') AT TIME ZONE 'Europe/Paris') AS TIMESTAMP)) FROM t",
    "SELECT DBMS_LOB.SUBSTR(a), JSON_VALUE(a, '$.b' RETURNING NUMBER) FROM t WHERE REGEXP_LIKE(a, 'b')",
    "SELECT COUNT(*) FROM v$session WHERE sid = SYS_CONTEXT('USERENV', 'SID')",
    "SELECT LEVEL FROM DUAL CONNECT BY LEVEL <= 1000",
    'SAVEPOINT "s1_x1"',
    'ROLLBACK TO SAVEPOINT "s1_x1"',
    "COMMIT",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "LOCK TABLE t IN EXCLUSIVE MODE NOWAIT",
]
DIRTY = [
    "ALTER SESSION SET NLS_DATE_FORMAT = 'DD.MM.YYYY'",
    "SET ROLE NONE",
    "BEGIN p; END;",
    "DECLARE a INT; BEGIN NULL; END;",
    "CALL p()",
    "CREATE TABLE t (a INT)",
    "TRUNCATE TABLE t",
    "EXPLAIN PLAN FOR SELECT 1 FROM dual",
    "SELECT f(1) FROM dual",
    "SELECT pkg.substr(a) FROM t",
    "SELECT pkg . substr (a) FROM t",
    "SELECT pkg./**/substr(a) FROM t",
    "SELECT s.pkg.substr(a) FROM t",
    'SELECT "f"(1) FROM dual',
    "SELECT f/* */(1) FROM dual",
    "SELECT f -- \n (1) FROM dual",
    "SELECT 1 -- \r f(1)\n FROM dual",
    "SELECT 1 /* /* */ , f(1) /* */ FROM dual",
    "SELECT q'[']', f(1) FROM dual",
    "SELECT nq'{'}', f(1) FROM dual",
    "SELECT 'a'' , f(1) FROM dual",
    "SELECT a FROM t@link",
    "SELECT a FROM TABLE(f(1))",
    "SELECT ü FROM t",
    "SELECT 1 FROM dual; BEGIN p; END;",
    "WITH FUNCTION f RETURN NUMBER IS BEGIN RETURN 1; END; SELECT f FROM dual",
    "INSERT INTO t (a) VALUES (f(1))",
    "UPDATE t SET a = s.f(1)",
    "SELECT 1\0",
    "",
]


@pytest.mark.parametrize("statement", CLEAN)
def test_statement_that_leaves_nothing_is_clean(statement: str) -> None:
    assert not read(statement) & LEAVES


@pytest.mark.parametrize("statement", DIRTY)
def test_statement_that_may_leave_something_is_dirty(statement: str) -> None:
    assert read(statement) & LEAVES


@pytest.mark.parametrize("text", ["f(", "/* ", '"', "'", "q'[", "-- \r"])
def test_long_text_is_read_once(text: str) -> None:
    """A reader that went back would take minutes for this one."""
    assert read("SELECT " + text * 50_001) & LEAVES


def test_number_of_a_sequence_is_read_by_the_borrower_that_drew_it() -> None:
    assert read('INSERT INTO "T" ("A") VALUES (:a)') == LAST_NUMBER
    assert read('SELECT "T_SQ".nextval FROM DUAL') == LAST_NUMBER
    assert read('SELECT "T_SQ".currval FROM DUAL') == LAST_NUMBER << READS
    assert read("SELECT s.nextval, s.currval FROM DUAL") == LAST_NUMBER
    assert read("SELECT 's.currval' FROM DUAL") == 0
    assert told_by('SELECT "T_SQ".currval FROM DUAL', LAST_NUMBER << READS) == '"T_SQ".currval'


def test_number_of_the_session_is_of_use_as_long_as_it_is_kept() -> None:
    assert read("SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL") == PINS
    assert read("SELECT SYS_CONTEXT('USERENV', 'LANG') FROM DUAL") == 0


def test_text_that_differs_in_comments_around_it_is_remembered_once() -> None:
    assert EFFECTS["/* trace 1 */ SELECT 41 FROM DUAL"] == 0
    assert "/* trace 1 */ SELECT 41 FROM DUAL" not in EFFECTS
    assert "SELECT 41 FROM DUAL" in EFFECTS
