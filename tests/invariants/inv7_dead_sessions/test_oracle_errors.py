"""Invariant 7, errors of Oracle that say "not this session" or "not this server": each has its meaning.

The stand-in sends the server's errors; the driver, and what it makes of them, is real.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections

from poollife import close_pool
from poollife.drivers.verdicts import OVER, Verdict
from servers import OracleStandIn
from tests.compatibility.test_oracledb import ENGINE, Struck, struck
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.support.counting import pool_of

oracledb: Any = pytest.importorskip("oracledb")


@pytest.fixture
def alias(oracle: OracleStandIn, make_alias: MakeAlias) -> str:
    return make_alias(ENGINE, server=oracle, POOL={"pool_size": 2, "timeout": 5, "outage_wait": 0})


# --- in a session -------------------------------------------------------------------------------------------

IN_A_SESSION = {
    "killed": (28, True, False),
    "not logged on": (1012, True, False),
    "shutting down": (1089, True, False),
    "idle for too long": (2396, True, False),
    "process gone": (3113, True, False),
    "instance not available": (1034, True, False),
    "read-only": (16000, False, True),
    "out of room": (1653, False, False),
    "deadlock": (60, False, False),
}


@pytest.mark.parametrize(("code", "lost", "read_only"), IN_A_SESSION.values(), ids=IN_A_SESSION)
def test_meaning_of_an_error_in_a_session(
    oracle: OracleStandIn, alias: str, code: int, lost: bool, read_only: bool
) -> None:
    connection: Any = connections[alias]
    connection.ensure_connection()
    session = connection.lease.driver
    do(alias, "SELECT 1 FROM DUAL")
    oracle.fail(ask(alias, "SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL"), code, "of a test")
    with pytest.raises(oracledb.Error):
        session.cursor().execute("SELECT 1 FROM DUAL")
    assert (session.lost, session.failure is not None, session.failed_over) == (lost, lost, read_only)
    closed = pool_of(alias).closed
    connection.close()
    assert pool_of(alias).closed == closed + (lost or read_only)
    assert ask(alias, "SELECT 40 + 2") == 42


# --- at the opening -----------------------------------------------------------------------------------------


@contextmanager
def port_that_nothing_answers() -> Iterator[int]:
    """A listener that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def opening(oracle: OracleStandIn, **given: Any) -> Exception:
    """Return the error of opening a session."""
    from poollife.drivers.oracle.driver import driver

    place = {"host": oracle.host, "port": oracle.port, "sid": "openings", **given}
    user = {"user": place.pop("user", oracle.user), "password": place.pop("password", oracle.password)}
    with pytest.raises(oracledb.Error) as found:
        driver.open(lambda: oracledb.connect(dsn=oracledb.makedsn(**place), **user), set(), {})
    error: Exception = found.value
    return error


OPENINGS: dict[str, tuple[dict[str, Any], Verdict]] = {
    "no server": ({"port": 1}, Verdict.UNREACHABLE),
    "no such host": ({"host": "no-such-host.invalid"}, Verdict.UNREACHABLE),
    "no such database": ({"sid": "absent"}, Verdict.UNREACHABLE),
    "wrong password": ({"password": "wrong"}, Verdict.REFUSED),
    "no such user": ({"user": "absent"}, Verdict.REFUSED),
}


@pytest.mark.parametrize(("given", "verdict"), OPENINGS.values(), ids=OPENINGS)
def test_meaning_of_an_error_at_the_opening(
    oracle: OracleStandIn, given: dict[str, Any], verdict: Verdict
) -> None:
    from poollife.drivers.oracle.driver import driver

    oracle.create_database("openings")
    assert driver.verdict(opening(oracle, **given)) == verdict


def test_server_that_is_full_is_not_down(oracle: OracleStandIn) -> None:
    from poollife.drivers.oracle.driver import driver

    oracle.create_database("openings")
    oracle.set_limit(0)
    try:
        error = opening(oracle)
    finally:
        oracle.set_limit(None)
    assert driver.is_full(error)
    assert not driver.unreachable(error)


def test_error_in_the_middle_of_a_logon_leaves_the_state_of_the_server_open() -> None:
    from poollife.drivers.oracle.driver import driver

    error = oracledb.DatabaseError(type("Info", (), {"full_code": "DPY-4011", "code": 0})())
    assert driver.verdict(error) == OVER


def test_listener_that_accepts_and_never_answers_ends_the_checkout(
    oracle: OracleStandIn, make_alias: MakeAlias
) -> None:
    with port_that_nothing_answers() as port:
        alias = make_alias(
            ENGINE,
            server=oracle,
            PORT=str(port),
            OPTIONS={"tcp_connect_timeout": 0.3},
            POOL={"timeout": 60, "outage_wait": 0},
        )
        with pytest.raises(DatabaseError):
            do(alias, "SELECT 1 FROM DUAL")
        assert pool_of(alias).out == 0


def test_time_limit_that_ends_connect_reaches_the_task(oracle: OracleStandIn, make_alias: MakeAlias) -> None:
    """The driver takes it for a failure of the network."""
    with port_that_nothing_answers() as port:
        alias = make_alias(ENGINE, server=oracle, PORT=str(port), POOL={"timeout": 60})
        with pytest.raises(Struck), struck(0.3):
            do(alias, "SELECT 1 FROM DUAL")
        assert pool_of(alias).out == 0


# --- a server that hangs ------------------------------------------------------------------------------------


@contextmanager
def hanging(server: OracleStandIn) -> Iterator[None]:
    """Have the server do nothing."""
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)  # until it has stopped
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def single() -> Iterator[OracleStandIn]:
    """A server that other tests do not use."""
    with OracleStandIn() as server:
        server.create_database("single")
        yield server


def test_session_of_a_server_that_hangs_does_not_answer(
    single: OracleStandIn, make_alias: MakeAlias, thread: Callable[..., Any]
) -> None:
    alias = make_alias(ENGINE, server=single, NAME="single")
    connection: Any = connections[alias]
    connection.ensure_connection()
    session = connection.lease.driver
    assert session.answers(5)
    with hanging(single):
        assert not session.answers(0.2)


def test_pool_is_closed_although_its_server_hangs(single: OracleStandIn, make_alias: MakeAlias) -> None:
    """The logoff of a session has a limit."""
    alias = make_alias(ENGINE, server=single, NAME="single")
    do(alias, "SELECT 1 FROM DUAL")
    connections[alias].close()
    pool = pool_of(alias)
    with hanging(single):
        close_pool(alias)
        assert pool.opened - pool.closed == 0


def test_session_that_was_lost_is_closed_without_a_logoff(
    single: OracleStandIn, make_alias: MakeAlias
) -> None:
    alias = make_alias(ENGINE, server=single, NAME="single")
    connection: Any = connections[alias]
    connection.ensure_connection()
    connection.lease.driver.failure = "of a test"
    with hanging(single), suppress(OperationalError):
        connection.close()
    assert [call.kind for call in single.calls()][-1] != "logoff"
