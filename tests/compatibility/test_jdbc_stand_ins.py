"""The ENGINEs on JDBC whose servers and drivers are not here: stubs in Java stand in for the drivers.

They show what poollife and Django send, and that the answers have the right types. They say nothing about
Oracle, OceanBase or their drivers.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db.utils import ConnectionHandler

from poollife.drivers.effects import LAST_NUMBER, LEAVES, READS
from servers import MariaDB
from tests.conftest import NewDatabase
from tests.support import ROOT, needs
from tests.support.programs import running
from tools import system_packages

pytestmark = pytest.mark.slow

STUBS = ROOT / "tests/support/java"

Run = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stubs, compiled."""
    needs.java_compiler()
    needs.h2()
    folder = tmp_path_factory.mktemp("stubs")
    jars = f"{system_packages.H2_JAR}:{system_packages.MARIADB_JAR}"
    sources = map(str, sorted(STUBS.rglob("*.java")))
    subprocess.run(["javac", "-cp", jars, "-d", str(folder), *sources], check=True)
    return folder


@pytest.fixture
def run(stubs: Path) -> Run:
    """A function that runs a case of the program, with the stubs in CLASSPATH."""
    java = needs.java()
    paths = f"{java['CLASSPATH']}:{system_packages.H2_JAR}:{stubs}"

    def run(case: str, entry: dict[str, Any]) -> dict[str, Any]:
        variables = [f"{name}={value}" for name, value in {**java, "CLASSPATH": paths}.items()]
        return running.run("jdbc_stand_ins", {"default": entry}, case, within=["env", *variables])

    return run


def test_django_s_oracle_backend_works_on_a_stub_of_oracle_s_driver(run: Run) -> None:
    """The stub leads to H2 in Oracle mode. URL, driver class and ALTER SESSION are as for Oracle."""
    report = run("oracle", {"ENGINE": "poollife.backends.jdbc.oracle", "NAME": "shop", "HOST": "db"})
    url, *sent = report.pop("renewed")
    assert url == "jdbc:oracle:thin:@//db:1521/shop"
    assert [each[:30] for each in sent] == [
        "ALTER SESSION SET NLS_TERRITOR",
        "ALTER SESSION SET NLS_DATE_FOR",
    ]
    (query,) = report.pop("queries")
    assert "FETCH FIRST 1 ROWS ONLY" in query
    assert len(report.pop("version")) == 2
    assert report == {
        "keys": [1, 2],
        "changed": [],
        "sum": 49,
        "like": ["a"],
        "slice": ["a"],
        "rolled back": 2,
        # A count, no new session, one statement.
        "warm": [2, None, 0, 1],
        "commit": "django.db.utils",
    }


def test_oceanbase_in_oracle_mode_has_oracle_s_dialect_and_its_own_driver() -> None:
    needs.java()
    from poollife.backends.jdbc.oracle.base import DatabaseWrapper
    from poollife.drivers.jdbc.dialects import ORACLE

    entry = {
        "ENGINE": "poollife.backends.jdbc.oracle",
        "JDBC_DRIVER": "com.oceanbase.jdbc.Driver",
        "JDBC_URL": "jdbc:oceanbase://{HOST}:{PORT}/{NAME}",
        "NAME": "shop",
        "HOST": "db",
        "PORT": "2881",
    }
    wrapper = DatabaseWrapper(ConnectionHandler({"default": entry}).settings["default"], "default")
    params = wrapper.get_connection_params()
    assert params["driver"] == "com.oceanbase.jdbc.Driver"
    assert params["url"] == "jdbc:oceanbase://db:2881/shop"
    assert params["dialect"] is ORACLE


def test_raw_sql_works_on_a_stub_of_oceanbase_s_driver(
    run: Run, mariadb: MariaDB, new_database: NewDatabase
) -> None:
    """The stub is MariaDB's driver. MariaDB's server speaks the protocol of OceanBase's MySQL mode."""
    name = new_database(mariadb)
    report = run("oceanbase", {**mariadb.database(name), "ENGINE": "poollife.backends.jdbc.oceanbase"})
    assert report == {
        "url": f"jdbc:oceanbase://{mariadb.host}:{mariadb.port}/{name}",
        "rows": [1, [[1, "100 %"]]],
        "error": "IntegrityError",
        "left": [None, 1],
        "other error": "ProgrammingError",
    }


@pytest.mark.parametrize(
    ("statement", "effects"),
    [
        ("SELECT A FROM T WHERE B = %s AND C = %(c)s", 0),
        ("INSERT INTO T (A) VALUES (%s);", LAST_NUMBER),
        ("SELECT q'[it's %s]' FROM DUAL", LEAVES | LAST_NUMBER),
        ('SELECT "T_SQ".CURRVAL FROM DUAL', LAST_NUMBER << READS),
        ("SELECT f(%s) FROM DUAL", LEAVES | LAST_NUMBER),
        ("ALTER SESSION SET NLS_SORT = BINARY", LEAVES | LAST_NUMBER),
        ("BEGIN p(%s); END;\n/", LEAVES | LAST_NUMBER),
    ],
)
def test_statement_behind_oracle_s_url_is_read_as_oracle_s(statement: str, effects: int) -> None:
    needs.java()
    from poollife.drivers.jdbc.dialects import dialect_of

    assert dialect_of("jdbc:oracle:thin:@//db:1521/shop").effects[True][statement] == effects


def test_nothing_is_a_parameter_in_oracle_s_quoted_strings() -> None:
    needs.java()
    from poollife.drivers.jdbc.parameters import ORACLE, Template

    sql = "SELECT q'[%s ']', nQ'{%s'}', q'!it's %s!', 'it''s %s', %s FROM DUAL"
    assert Template(sql, ORACLE).text == sql[: -len("%s FROM DUAL")] + "? FROM DUAL"


@pytest.mark.parametrize(
    ("code", "sqlstate", "name"),
    [
        (16000, "72000", "READ_ONLY"),
        (12516, "66000", "FULL"),
        (1017, "72000", "REFUSED"),
        (3113, "03113", "OVER"),
        (17002, "08006", "OVER"),
        (942, "42000", "NONE"),
    ],
)
def test_error_behind_oracle_s_url_means_what_its_number_says(code: int, sqlstate: str, name: str) -> None:
    needs.java()
    from poollife.drivers import verdicts
    from poollife.drivers.jdbc.dbapi import Error
    from poollife.drivers.jdbc.dialects import dialect_of

    error = Error("an error")
    error.code, error.sqlstate = code, sqlstate
    expected = getattr(verdicts, name, None) or verdicts.Verdict[name]
    assert dialect_of("jdbc:oracle:thin:@//db:1521/shop").verdict_on(error) == expected
