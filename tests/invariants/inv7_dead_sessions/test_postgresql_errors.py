"""Invariant 7, errors of PostgreSQL that say "not this session" or "not this server": each has its meaning.

What both drivers raise is measured here with a real server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from poollife.drivers.postgresql.errors import MEANINGS, sqlstate_of, verdict_on, verdict_on_opening
from poollife.drivers.verdicts import OVER, Verdict
from tests.support.postgresql_server import running_server

psycopg = pytest.importorskip("psycopg")
psycopg2 = pytest.importorskip("psycopg2")
DRIVERS = {"psycopg": psycopg, "psycopg2": psycopg2}
#: A role and a limit for each error of an opening.
ROLES = (
    "CREATE ROLE checked LOGIN PASSWORD 'right'",
    "CREATE ROLE limited LOGIN CONNECTION LIMIT 0",
    "CREATE ROLE nologin",
    "CREATE ROLE rejected LOGIN",
    "CREATE ROLE ordinary LOGIN",
    "CREATE DATABASE small CONNECTION LIMIT 0",
    "CREATE DATABASE private",
    "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
)
HBA = """
host all checked all scram-sha-256
host all rejected all reject
host all limited,nologin,ordinary,absent all trust
"""


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    """The arguments of ``connect()`` to a server with these roles."""
    with running_server("max_connections=8") as server:
        with psycopg.connect(**server.parameters, autocommit=True) as connection:
            for statement in ROLES:
                connection.execute(statement)
        server.allow(HBA)
        time.sleep(0.3)
        yield server.parameters


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Any:
    return DRIVERS[request.param]


def test_failed_statement_of_a_pipeline_leaves_the_session() -> None:
    """``executemany()`` of psycopg 3 may raise it after the error of the server."""
    assert verdict_on(psycopg.errors.PipelineAborted("pipeline aborted")) == Verdict.NONE


def test_the_table_names_errors_as_psycopg_does() -> None:
    names = {code: psycopg.errors.lookup(code).__name__.lower() for code in MEANINGS}
    assert names == {code: meaning.name.replace("_", "") for code, meaning in MEANINGS.items()}


# --- at the opening -----------------------------------------------------------------------------------------

OPENINGS: dict[str, tuple[dict[str, Any], Verdict]] = {
    "no server": ({"port": 1}, Verdict.UNREACHABLE),
    "no socket": ({"host": "/tmp/no-such-folder"}, Verdict.UNREACHABLE),
    "no such host": ({"host": "no-such-host.invalid"}, Verdict.UNREACHABLE),
    "two hosts, none there": ({"host": "127.0.0.1,127.0.0.1", "port": "1,2"}, Verdict.UNREACHABLE),
    "wrong password": ({"user": "checked", "password": "wrong"}, Verdict.REFUSED),
    "no password": ({"user": "checked", "password": None}, Verdict.REFUSED),
    "rejected by pg_hba.conf": ({"user": "rejected"}, Verdict.REFUSED),
    "not in pg_hba.conf": ({"user": "unlisted"}, Verdict.REFUSED),
    "no such role": ({"user": "absent"}, Verdict.REFUSED),
    "role without login": ({"user": "nologin"}, Verdict.REFUSED),
    "limit of the role": ({"user": "limited"}, Verdict.FULL),
    "limit of the database": ({"user": "ordinary", "dbname": "small"}, Verdict.FULL),
    "no such database": ({"dbname": "absent"}, Verdict.NONE),
    "no privilege": ({"user": "ordinary", "dbname": "private"}, Verdict.NONE),
    "unknown setting": ({"options": "-c absent=1"}, Verdict.NONE),
}


def error_of(driver: Any, parameters: dict[str, Any]) -> Exception:
    with pytest.raises(driver.OperationalError) as caught:
        driver.connect(**parameters, connect_timeout=5)
    error: Exception = caught.value
    return error


@pytest.mark.parametrize("kind", OPENINGS)
def test_verdict_on_an_opening_that_fails(server: dict[str, Any], driver: Any, kind: str) -> None:
    parameters, verdict = OPENINGS[kind]
    error = error_of(driver, {**server, **parameters})
    assert sqlstate_of(error) is None
    assert verdict_on_opening(error) is verdict


def test_verdict_on_a_server_that_is_full(server: dict[str, Any], driver: Any) -> None:
    for user in "ordinary", "poollife":
        held = []
        with suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(**{**server, "user": user}))
        try:
            assert verdict_on_opening(error_of(driver, {**server, "user": user})) is Verdict.FULL
        finally:
            for each in held:
                each.close()
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("FATAL:  the database system is starting up", Verdict.UNREACHABLE),
        ("FATAL:  the database system is shutting down", Verdict.UNREACHABLE),
        ("FATAL:  the database system is not yet accepting connections", Verdict.UNREACHABLE),
        ("FATAL:  the database system is in recovery mode", Verdict.UNREACHABLE),
        ("connection timeout expired", Verdict.UNREACHABLE),
        ('FATAL:  LDAP authentication failed for user "x"', Verdict.REFUSED),
        ("server closed the connection unexpectedly", Verdict.CUT_OFF),
        ("Verbindungsaufbau abgelehnt", Verdict.CUT_OFF),
        ("", Verdict.CUT_OFF),
    ],
)
def test_verdict_on_the_text_of_an_opening(driver: Any, text: str, verdict: Verdict) -> None:
    assert verdict_on_opening(driver.OperationalError(text)) is verdict


# --- in a session -------------------------------------------------------------------------------------------


def run(connection: Any, sql: str) -> BaseException:
    """Return the error of a statement."""
    cursor = connection.cursor()
    try:
        for each in sql.split(";"):
            cursor.execute(each)
    except Exception as error:
        return error
    raise AssertionError("no error")


STATEMENTS = {
    "57014": "SET statement_timeout = 50; SELECT pg_sleep(5)",
    "25006": "SET default_transaction_read_only = on; CREATE TABLE x (a int)",
    "42P01": "SELECT * FROM absent",
    "22012": "SELECT 1 / 0",
    "57P01": "SELECT pg_terminate_backend(pg_backend_pid())",
}


@pytest.mark.parametrize("code", STATEMENTS)
def test_verdict_on_an_error_in_a_session(server: dict[str, Any], driver: Any, code: str) -> None:
    connection = driver.connect(**server)
    connection.autocommit = True
    error = run(connection, STATEMENTS[code])
    # psycopg2 gives no SQLSTATE to the error of a session that has ended.
    assert sqlstate_of(error) in (code, None if code == "57P01" else code)
    lost = verdict_on(error) & Verdict.LOST
    assert bool(lost) is (code == "57P01")
    assert bool(verdict_on(error) & Verdict.READ_ONLY) is (code == "25006")
    if not lost:
        connection.cursor().execute("SELECT 1")
    connection.close()


IDLE_LIMITS = {
    "57P05": "SET idle_session_timeout = 50",
    "25P03": "SET idle_in_transaction_session_timeout = 50",
}


@pytest.mark.parametrize("code", IDLE_LIMITS)
def test_a_session_that_was_idle_for_too_long_is_lost(server: dict[str, Any], driver: Any, code: str) -> None:
    connection = driver.connect(**server)
    connection.autocommit = True
    connection.cursor().execute(IDLE_LIMITS[code])
    if code == "25P03":
        connection.cursor().execute("BEGIN")
    time.sleep(0.4)
    error = run(connection, "SELECT 1")
    assert sqlstate_of(error) in (code, None)
    assert Verdict.LOST in verdict_on(error)
    connection.close()


def test_a_lock_timeout_leaves_its_session(server: dict[str, Any], driver: Any) -> None:
    with psycopg.connect(**server) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        connection = driver.connect(**server)
        error = run(connection, "SET lock_timeout = 50; SELECT pg_advisory_xact_lock(1)")
        assert sqlstate_of(error) == "55P03"
        assert verdict_on(error) is Verdict.NONE
        connection.close()


@pytest.mark.parametrize("via", ["tcp", "socket"])
def test_a_server_that_stops_at_once_loses_its_sessions(driver: Any, via: str) -> None:
    """psycopg2 calls such a session open and idle, and its error has no SQLSTATE."""
    with running_server() as server:
        host = {"host": str(server.socket_folder)} if via == "socket" else {}
        connection = driver.connect(**{**server.parameters, **host})
        connection.autocommit = True
        connection.cursor().execute("SELECT 1")
        server.stop_at_once()
        error = run(connection, "SELECT 1")
        assert sqlstate_of(error) is None
        assert Verdict.LOST in verdict_on(error)
        connection.close()


@pytest.mark.parametrize(
    ("kind", "code", "verdict"),
    [
        ("OperationalError", "57P03", Verdict.LOST | Verdict.UNREACHABLE),
        ("OperationalError", "08006", OVER),
        ("OperationalError", "08P01", OVER),
        ("OperationalError", "53300", Verdict.FULL),
        ("OperationalError", "53200", Verdict.NONE),
        ("OperationalError", None, Verdict.LOST),
        ("DatabaseError", None, Verdict.LOST),
        ("InternalError", None, Verdict.LOST),
        ("ProgrammingError", None, Verdict.NONE),
        ("DataError", None, Verdict.NONE),
        ("IntegrityError", "23505", Verdict.NONE),
    ],
)
def test_verdict_on_an_error_by_class_and_code(kind: str, code: str | None, verdict: Verdict) -> None:
    error = getattr(psycopg, kind)("text")
    error.sqlstate = code
    assert verdict_on(error) == verdict
