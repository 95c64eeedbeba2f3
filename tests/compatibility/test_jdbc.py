"""The behaviour that only ``poollife.backends.jdbc`` has. ``tests/kit/`` tests the invariants."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from poollife.drivers.effects import LEAVES
from servers import MariaDB, PostgreSQL
from servers.ports import free_port
from tests.conftest import NewDatabase
from tests.support import ROOT, needs
from tests.support.programs import running
from tests.support.web_server import eventually
from tools import system_packages

pytestmark = pytest.mark.slow

DRIVERS = {"mariadb": "org.mariadb.jdbc.Driver", "postgresql": "org.postgresql.Driver"}

Run = Callable[..., dict[str, Any]]


def entry(server: MariaDB | PostgreSQL, name: str, **more: Any) -> dict[str, Any]:
    """Return the settings of a database, for a program."""
    kind = "mariadb" if isinstance(server, MariaDB) else "postgresql"
    return {
        **server.database(name),
        "ENGINE": "poollife.backends.jdbc",
        "JDBC_DRIVER": DRIVERS[kind],
        "JDBC_URL": f"jdbc:{kind}://{{HOST}}:{{PORT}}/{{NAME}}",
        "POOL": {"pool_size": 3, "max_overflow": 0},
        **more,
    }


@pytest.fixture
def run(mariadb: MariaDB, postgresql: PostgreSQL, new_database: NewDatabase) -> Run:
    """A function that runs a case of the program, in a process that begins without a JVM."""
    java = needs.java()
    databases = {
        "default": {},
        "mariadb": entry(mariadb, new_database(mariadb)),
        "postgresql": entry(postgresql, new_database(postgresql)),
    }

    def run(case: str, others: dict[str, Any] | None = None, **environment: str) -> dict[str, Any]:
        variables = [f"{name}={value}" for name, value in {**java, **environment}.items()]
        return running.run("jdbc_cases", others or databases, case, within=["env", *variables])

    return run


def test_jvm_starts_at_the_first_checkout(run: Run) -> None:
    report = run("start")
    assert (report["before"], report["answer"], report["vendor"]) == (False, [42], "jdbc")


# --- values, parameters, errors -------------------------------------------------------------------------


def test_values_come_back_with_the_type_that_they_went_with(run: Run) -> None:
    report = run("values")
    assert report["changed"] == []
    assert report["others"] == ("([1, 2], '{\"a\": 1}', UUID('00000000-0000-0000-0000-000000000007'))")


def test_parameters_are_none_in_literals_names_and_comments(run: Run) -> None:
    """The predecessor puts parameters into literals, and leaves doubled percent signs as they are."""
    report = run("parameters")
    common = [
        ["Altair"],
        ["Altair", "Altair"],
        ["a", "%s", "%(name)s", "100%", 3],
        ["%s", 3, "100%%"],
        ["it's %s ?", "a"],
        ["a", "b"],
    ]
    assert report["mariadb"] == [*common, ["it's %s", "a"], ["%s", "a"]]
    assert report["postgresql"] == [*common, ["it's %s", " %s ", " %s $$ ", "a"], [1, "a\\", "a"], [True]]


def test_parts_of_django_around_raw_sql_work_and_the_others_are_refused(run: Run) -> None:
    report = run("django_s_own")
    refused = ["This ENGINE of JDBC makes no SQL: it runs your own"] * 4
    shell = "JDBC has no shell: use the client program of this database"
    for alias in ("mariadb", "postgresql"):
        assert report[alias] == [[[7, "Altair"]], True, *refused, shell]
    assert report["called"] == [[[4]], True, [[8]]]
    assert "no test database can be made, because JDBC_URL names the real one" in report["test database"]


def test_errors_have_the_class_of_their_sqlstate(run: Run) -> None:
    report = run("errors")
    del report["pid"]
    assert report == {
        "integrity": ["IntegrityError"] * 2,
        "not null": ["IntegrityError"] * 2,
        "syntax": ["ProgrammingError"] * 2,
        "no table": ["ProgrammingError"] * 2,
        "no parameter": ["ProgrammingError"] * 2,
        "too few": ["ProgrammingError"] * 2,
        "no type": ["ProgrammingError"] * 2,
    }


def test_wrong_settings_are_told_with_what_was_looked_for(run: Run, mariadb: MariaDB) -> None:
    right = entry(mariadb, "")
    closed = {"HOST": "127.0.0.1", "PORT": str(free_port())}
    report = run(
        "refused",
        {
            "default": {},
            "driver": {**right, "JDBC_DRIVER": "org.example.Driver"},
            "kind": {**right, "JDBC_DRIVER": "java.lang.String"},
            "url": {**right, "JDBC_URL": "jdbc:example://user:secret@db"},
            "missing": {key: value for key, value in right.items() if key != "JDBC_URL"},
            "password": {**right, "PASSWORD": "wrong"},
            "away": {**right, **closed, "POOL": {"outage_wait": 0}},
        },
        CLASSPATH=f"{needs.java()['CLASSPATH']}:/missing/driver.jar",
    )
    assert "'org.example.Driver'" in report["driver"]
    assert "mariadb-java-client.jar" in report["driver"]
    assert "/missing/driver.jar (not there)" in report["driver"]
    assert "no java.sql.Driver" in report["kind"]
    assert "'jdbc:example:'" in report["url"]
    assert "secret" not in report["url"]
    assert "needs JDBC_URL" in report["missing"]
    assert report["password"].startswith("OperationalError: ")
    assert "Access denied" in report["password"]
    assert report["away"].startswith("OperationalError: ")
    assert closed["PORT"] in report["away"]


def test_empty_classpath_is_told(run: Run, mariadb: MariaDB) -> None:
    report = run("refused", {"default": {}, "driver": entry(mariadb, "")}, CLASSPATH="")
    assert "CLASSPATH was empty" in report["driver"]


@pytest.mark.parametrize(("home", "told"), [("/nonexistent", "is no folder"), (str(ROOT), "no JVM in it")])
def test_wrong_java_home_is_told(run: Run, mariadb: MariaDB, home: str, told: str) -> None:
    """JPype takes another JVM, without a word."""
    report = run("refused", {"default": {}, "driver": entry(mariadb, "")}, JAVA_HOME=home)
    assert f"JAVA_HOME is {home!r}" in report["driver"]
    assert told in report["driver"]
    assert "There is a JVM in /" in report["driver"]


def test_pool_is_renewed_only_by_a_server_that_became_read_only(run: Run) -> None:
    """A write in the borrower's own READ ONLY transaction has the same error."""
    with PostgreSQL(superuser=True) as server:
        server.create_database("shop")
        admin = {**server.database("shop"), "ENGINE": "poollife.backends.postgresql"}
        databases = {"default": {}, "admin": admin, "postgresql": entry(server, "shop")}
        report = run("read_only", databases)
    first, after_its_own, after_the_servers = report["sessions"]
    assert report["errors"] == ["25006", "25006"]
    assert first == after_its_own != after_the_servers


def test_session_whose_java_connection_was_handed_out_is_not_lent_again(run: Run) -> None:
    report = run("handed_out")
    assert (report["usable"], report["closed"], report["same"]) == (True, True, False)


def test_fork_in_a_handshake_looks_for_each_host_of_the_url() -> None:
    needs.java()
    from poollife.drivers.jdbc.connection import driver

    url = "jdbc:mariadb:replication://127.0.0.1:1,[::1]:2,db/shop?user=x"
    assert driver.remote_addresses({"url": url}) == {("127.0.0.1", 1), ("::1", 2), (None, 3306)}


def test_session_ends_with_its_process_in_order(run: Run) -> None:
    """A pool that was there before JPype would otherwise end after the JVM."""
    with MariaDB() as server:
        server.create_database("ends")
        mysql = {**server.database("ends"), "ENGINE": "poollife.backends.mysql"}
        report = run("ends", {"default": mysql, "mariadb": entry(server, "ends")})
        eventually("all sessions end", lambda: not server.sessions())
        assert server.aborted() == 0
    assert report["has number"]


def test_database_in_the_process_of_the_jvm_works_without_a_socket(run: Run) -> None:
    """H2, whose SQL poollife does not know."""
    needs.h2()
    h2 = {
        "ENGINE": "poollife.backends.jdbc",
        "JDBC_DRIVER": "org.h2.Driver",
        "JDBC_URL": "jdbc:h2:mem:kit;DB_CLOSE_DELAY=-1",
    }
    report = run("embedded", {"default": {}, "h2": h2}, CLASSPATH=str(system_packages.H2_JAR))
    assert report["found"] == [1, [[1, "100 %"]], 1]
    assert (report["fd"], report["kept"], report["left"]) == (None, True, None)


CLEAN = [
    "SELECT a, COUNT(*) FROM t WHERE b = 'it''s' AND c IN (1, 2) GROUP BY a",
    "SELECT MAX(a) FROM t WHERE b = %s",
    "INSERT INTO t (a) VALUES (%(a)s)",
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET a = a + 1 WHERE b = 2",
    "DELETE FROM t",
    "SELECT a FROM t WHERE b LIKE '100 %%'",
    'SAVEPOINT "s1"',
]
DIRTY = [
    "SET a = 1",
    "BEGIN",
    "SELECT f(1)",
    "SELECT f (1)",
    'SELECT "f"(1)',
    "SELECT 1 INTO t2",
    "SELECT @a := 1",
    "SELECT 1; SET a = 1",
    "SELECT NEXT VALUE FOR s",
    "SELECT s.NEXTVAL FROM t",
    "INSERT INTO #t (a) VALUES (1)",
    "SELECT {fn f()}",
    "SELECT 1 -- ; f()",
    "SELECT '\\', f(1), '",
    "WITH x AS (SELECT 1) SELECT * FROM x",
]


@pytest.mark.parametrize(
    ("statement", "is_clean"), [*((each, 1) for each in CLEAN), *((each, 0) for each in DIRTY)]
)
def test_statement_of_an_unknown_database_is_clean_only_if_all_of_it_is_known(
    statement: str, is_clean: int
) -> None:
    needs.java()
    from poollife.drivers.jdbc.dialects import dialect_of

    effects = dialect_of("jdbc:example://db").effects
    assert [bool(effects[is_template][statement]) for is_template in (False, True)] == [not is_clean] * 2


@pytest.mark.parametrize(
    ("url", "statement"),
    [
        ("jdbc:postgresql://db", "BEGIN"),
        ("jdbc:postgresql://db", "/* x */ COMMIT"),
        ("jdbc:aws-wrapper:postgresql://db", "rollback work"),
        ("jdbc:mysql://db", "BEGIN"),
    ],
)
def test_transaction_that_a_text_begins_or_ends_makes_the_session_dirty(url: str, statement: str) -> None:
    """JDBC does not tell whether one is open."""
    needs.java()
    from poollife.drivers.jdbc.dialects import dialect_of

    assert dialect_of(url).effects[False][statement] & LEAVES


# --- threads and forks ----------------------------------------------------------------------------------


def test_threads_that_ended_leave_no_threads_of_java(run: Run) -> None:
    report = run("threads")
    assert report["left"] == []
    assert report["alive"] > 0
    assert report["answers"] == 303
    assert report["peak"] <= 3


def test_child_of_a_process_with_a_jvm_is_refused_and_ends(run: Run) -> None:
    report = run("forks")
    for child in report["before"].values():  # no JVM was running: each has one of its own
        assert (child["status"], "session" in child) == (0, True), child
    for child in report["after"].values():
        assert child["status"] == 0, child
        assert child["refused"].startswith("ForkedJVM: ")
        assert f"from process {report['pid']}," in child["refused"]
        assert "Three ways out" in child["refused"]
        assert child["callbacks"] == []  # they hang in System.gc() only now and then
    assert isinstance(report["spawned"], int)
    assert report["same"]


def test_child_of_a_bare_fork_ends_without_the_jvm(run: Run) -> None:
    report = run("bare_forks_without_a_query")
    assert [child["status"] for child in report["children"]] == [0, 0, 0]
    assert report["same"]


def test_jpype_adds_two_functions_to_gc_callbacks() -> None:
    """``forget_java()`` knows them by their module, which is no public name."""
    program = (
        "import gc, jpype, jpype.config; jpype.startJVM('-Xrs', interrupt=False);"
        "print([each.__module__ for each in gc.callbacks], jpype.config.onexit)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **needs.java()}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("['_jpype', '_jpype'] True\n", "")
