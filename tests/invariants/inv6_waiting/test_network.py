"""Invariant 6 on a network that has gone silent: neither statement nor ping waits for ever."""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import MySQLdb
import pytest
from django.db import connections

from poollife.drivers import network
from poollife.pools.liveness import LONGEST_PING, SHORTEST_PING, ping_limit
from poollife.pools.tickets import Ticket, current
from poollife.process.atfork import at_fork
from servers import MariaDB, Proxy
from tests.conftest import MakeAlias
from tests.support import needs
from tests.support.programs.databases import ask
from tests.support.programs.running import run
from tests.support.programs.sockets import descriptors
from tests.support.programs.strikes import Strike, Struck

MYSQLCLIENT, PYMYSQL = "poollife.backends.mysql", "poollife.backends.mysql_pymysql"
PLAIN: dict[str, Any] = {"ssl_disabled": True}

# --- a real one --------------------------------------------------------------------------------------------

#: What Linux alone has: network namespaces, and all of these options.
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


#: For each program its ENGINE, OPTIONS, way to the server, and whether gevent patches it.
NETWORKS: dict[str, tuple[str, dict[str, Any], str, bool]] = {
    "mysqlclient": (MYSQLCLIENT, {}, "tcp", False),
    "mysqlclient, TLS": (MYSQLCLIENT, {}, "tls", False),
    "mysqlclient, gevent": (MYSQLCLIENT, {}, "tcp", True),
    "PyMySQL": (PYMYSQL, PLAIN, "tcp", False),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """What the programs report. They run side by side, each in a network of its own: all they do is wait."""
    program = partial(run, "deaf_network", within=needs.namespace("-n"))
    folder = str(tmp_path_factory.mktemp("networks"))
    with ThreadPoolExecutor(len(NETWORKS)) as executor:
        yield {
            name: executor.submit(program, engine, options, via, folder, greened)
            for name, (engine, options, via, greened) in NETWORKS.items()
        }


@pytest.mark.slow
@pytest.mark.network
@linux
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_swallows_all(reports: dict[str, Future[dict[str, Any]]], name: str) -> None:
    """Statements end, and sessions are replaced, with ``network_timeout``; without it both just wait.

    That an error comes soon is told by those that wait still when it has come.
    """
    # libmariadb has it from OpenSSL.
    lost = 2026 if "TLS" in name else 2013
    # Of the session that the driver tries to open.
    unreachable = 2003 if name == "PyMySQL" else 2002
    report = reports[name].result()
    assert report == {
        "long": 6,
        "statements": {
            "ran": lost,
            "sent": lost,
            "others wait": True,
            "first afterwards": 9,
            "others": [7, 8],
        },
        "idle sessions": {
            "noticed": [True, False],
            "meanwhile": [unreachable, unreachable],
            "afterwards": True,
            "replaced": [True, False],
        },
        "own pings": {"error": unreachable, "idle": 0, "afterwards": True, "replaced": True},
        "out": [0, 0, 0],
    }


# --- what the kernel is told -------------------------------------------------------------------------------

OPTIONS = {
    "TCP_USER_TIMEOUT": socket.IPPROTO_TCP,
    "TCP_KEEPIDLE": socket.IPPROTO_TCP,
    "TCP_KEEPINTVL": socket.IPPROTO_TCP,
    "TCP_KEEPCNT": socket.IPPROTO_TCP,
    "SO_KEEPALIVE": socket.SOL_SOCKET,
}
#: With the default of 20 seconds.
DEFAULT = {
    "TCP_USER_TIMEOUT": 20_000,
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 5,
    "SO_KEEPALIVE": 1,
}


def told(fd: int) -> dict[str, int]:
    """What the kernel was told of a TCP connection."""
    with socket.socket(fileno=os.dup(fd)) as copy:
        return {name: copy.getsockopt(level, getattr(socket, name)) for name, level in OPTIONS.items()}


def descriptor(alias: str) -> int:
    connections[alias].ensure_connection()
    fd: int = connections[alias].connection.guard.fd
    return fd


@linux
@pytest.mark.parametrize("via", ["tcp", "tls"])
@pytest.mark.parametrize("pool", [{}, False, {"pool_size": 1}], ids=repr)
def test_by_default(make_alias: MakeAlias, via: Any, pool: Any) -> None:
    assert told(descriptor(make_alias(via=via, POOL=pool))) == DEFAULT


@linux
def test_with_pymysql(make_alias: MakeAlias) -> None:
    assert told(descriptor(make_alias(PYMYSQL, OPTIONS=PLAIN))) == DEFAULT


@linux
@pytest.mark.parametrize(
    "pool", [{"network_timeout": None}, {"network_timeout": None, "poolclass": "sqlalchemy.NullPool"}]
)
def test_left_to_the_system(make_alias: MakeAlias, mariadb: MariaDB, pool: dict[str, Any]) -> None:
    """As the driver leaves it."""
    plain = MySQLdb.connect(
        host=mariadb.host, port=mariadb.port, user=mariadb.user, password=mariadb.password
    )
    fd = descriptor(make_alias(POOL={"network_timeout": None, **pool}))
    assert told(fd) == told(plain.fileno()) != DEFAULT
    assert told(fd)["TCP_USER_TIMEOUT"] == 0
    plain.close()


@pytest.mark.parametrize("engine", [MYSQLCLIENT, PYMYSQL])
def test_a_unix_socket_is_left_alone(make_alias: MakeAlias, engine: str) -> None:
    fd = descriptor(make_alias(engine, via="socket"))
    with socket.socket(fileno=os.dup(fd)) as copy, socket.socket(socket.AF_UNIX) as another:
        assert copy.family == socket.AF_UNIX
        network.set_tcp_timeouts(another.fileno(), 20)
        # Of the driver's own nothing can be told: libmariadb sets this on each.
        assert another.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@linux
@pytest.mark.parametrize(
    ("seconds", "milliseconds", "idle", "interval", "count"),
    [
        (20, 20_000, 10, 2, 5),
        (30, 30_000, 15, 3, 5),
        (60, 60_000, 30, 6, 5),
        (7.5, 7_500, 3, 1, 5),
        (2, 2_000, 1, 1, 1),
        # The kernel has no less than one second for each.
        (0.0004, 1, 1, 1, 1),
        (32767, 32_767_000, 16383, 3276, 6),
    ],
)
def test_how_it_is_told(seconds: float, milliseconds: int, idle: int, interval: int, count: int) -> None:
    """Probes fill the second half of that time; and the kernel takes each of these values."""
    with socket.socket() as any_socket:
        network.set_tcp_timeouts(any_socket.fileno(), seconds)
        assert told(any_socket.fileno()) == {
            "TCP_USER_TIMEOUT": milliseconds,
            "TCP_KEEPIDLE": idle,
            "TCP_KEEPINTVL": interval,
            "TCP_KEEPCNT": count,
            "SO_KEEPALIVE": 1,
        }
    assert idle + interval * count >= seconds


def test_a_system_without_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has is used."""
    for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE"):
        monkeypatch.delattr(_socket, name)
    monkeypatch.setattr(_socket, "TCP_KEEPALIVE", 4711, raising=False)
    known = [option for _, option, _ in network.options(20)]
    assert known == [4711, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.SO_KEEPALIVE]


def test_no_fork_comes_in_between(make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hand its child a duplicate that nobody knows of: so it waits for this, too."""
    seen: list[bool] = []

    def tell(fd: int | None, seconds: float | None) -> None:
        seen.append(threading.get_ident() in at_fork.gate._handshakes)
        network.set_tcp_timeouts(fd, seconds)

    monkeypatch.setattr("poollife.backends.opening.set_tcp_timeouts", tell)
    descriptor(make_alias())
    assert seen == [True]


def strike_at(number: int, fd: int) -> str | None:
    """Where something from outside struck; None: there are not so many points."""
    strike = Strike(number)
    try:
        strike.start()
        network.set_tcp_timeouts(fd, 20)
    except Struck:
        pass
    finally:
        strike.stop()
    return strike.where


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
def test_struck_at_each_point_no_descriptor_is_lost() -> None:
    """Neither the driver's own nor the duplicate."""
    with socket.socket() as drivers, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # where it is the finalizer that closes it
        fd, before, points = drivers.fileno(), descriptors(), 0
        inode = os.fstat(fd).st_ino
        while where := strike_at(points + 1, fd):
            points += 1
            assert (descriptors(), os.fstat(fd).st_ino) == (before, inode), where
    assert points > 10


# --- our own pings ------------------------------------------------------------------------------------------


def test_how_long_a_ping_may_take() -> None:
    """As long as its borrower waits anyway, within bounds."""
    now = 1000.0
    previous = current.ticket
    left_there = Ticket(deadline=now + 0.1)
    left_there.active = False
    try:
        for nothing in (None, left_there):
            current.ticket = nothing
            assert ping_limit(now) == LONGEST_PING
        for left, limit in [(10, LONGEST_PING), (3, 3), (0.1, SHORTEST_PING), (-1, SHORTEST_PING)]:
            current.ticket = Ticket(deadline=now + left)
            assert ping_limit(now) == limit
    finally:
        current.ticket = previous


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("read_timeout", "seconds"), [({}, 0.5), ({"read_timeout": 1}, 3600.0), ({"read_timeout": 3600}, 0.5)]
)
@pytest.mark.parametrize("engine", [MYSQLCLIENT, PYMYSQL])
def test_a_ping_without_an_answer_ends(
    make_alias: MakeAlias, proxy: Proxy, engine: str, read_timeout: dict[str, Any], seconds: float
) -> None:
    """The kernel at the other end of this network is alive. The lower of both limits is what counts."""
    plain = PLAIN if engine == PYMYSQL else {}
    alias = make_alias(engine, PORT=str(proxy.port), OPTIONS={**plain, **read_timeout})
    connections[alias].ensure_connection()
    driver = connections[alias].connection
    assert driver.answers(seconds)
    with proxy.deaf():
        assert not driver.answers(seconds)
    # What comes now is an answer to nobody's question.
    assert driver.reason_to_close()


@pytest.mark.parametrize("engine", [MYSQLCLIENT, PYMYSQL])
def test_after_a_ping_a_statement_may_take_its_time(make_alias: MakeAlias, engine: str) -> None:
    """No limit is left behind."""
    alias = make_alias(engine, OPTIONS=PLAIN if engine == PYMYSQL else {})
    connections[alias].ensure_connection()
    assert connections[alias].connection.answers(0.5)
    assert ask("SELECT 1 + SLEEP(1)", using=alias) == 1
