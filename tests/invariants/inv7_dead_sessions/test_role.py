"""Invariant 7: ``POOL["role"]``, and hosts in a list. A demoted primary lives on, and answers reads."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from django.db import OperationalError, connections

from benchmarks.wiretap import Wiretap
from poollife import pool_available
from poollife.drivers.mysql import mysqlclient
from poollife.drivers.mysql.mysqlclient import driver
from poollife.pools import liveness
from servers import MariaDB
from servers.ports import free_port
from tests.conftest import MakeAlias
from tests.support.cluster import Cluster
from tests.support.counting import pool_of
from tests.support.failover import WRITER, Failover, rows
from tests.support.visitors import POOL, THREADS, Visitors, are_gone, sessions
from tests.support.web_server import eventually

QUESTION = "SELECT @@global.read_only, @@global.innodb_read_only"
PRIMARY: dict[str, Any] = {**POOL, "role": "primary"}

engines = pytest.mark.parametrize(
    "engine", ["poollife.backends.mysql", "poollife.backends.mysql_pymysql"], ids=["mysqlclient", "PyMySQL"]
)


@pytest.fixture
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session is lent without a question for the role."""
    monkeypatch.setattr(liveness, "ROLE_INTERVAL", -1.0)


@engines
@pytest.mark.usefixtures("asked_each_time")
def test_readers_leave_a_primary_that_was_demoted(
    engine: str,
    make_alias: MakeAlias,
    failover: Failover,
    tap: Wiretap,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No statement fails, so nothing but the question shows the change."""
    alias = make_alias(engine, NAME=failover.name, PORT=str(tap.port), POOL=PRIMARY, **WRITER)
    visitors, pool = Visitors(alias, "SELECT COUNT(*) FROM log"), pool_of(alias)
    visitors.fill()
    failover.happen(tap)
    with caplog.at_level(logging.WARNING, "poollife"):
        visitors.come(40)
    assert visitors.failed == []
    are_gone(failover.primary, alias)
    assert sessions(failover.heir, alias)
    assert pool.opened <= 2 * THREADS
    assert len(caplog.records) == 1
    connections[alias].close()


@engines
@pytest.mark.usefixtures("asked_each_time")
def test_pool_whose_servers_all_have_the_wrong_role_serves_reads_and_is_renewed_with_pauses(
    engine: str,
    make_alias: MakeAlias,
    mariadb: MariaDB,
    failover: Failover,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if all of it were in one second.
    monkeypatch.setattr(liveness, "FIRST_RENEWAL_PAUSE", 1000.0)
    alias = make_alias(engine, NAME=failover.name, POOL={**POOL, "role": "replica"}, **WRITER)
    visitors, pool = Visitors(alias), pool_of(alias)
    pool.liveness._renewal_pause = 1000.0
    visitors.fill()
    with caplog.at_level(logging.WARNING, "poollife"):
        visitors.come(200)
    assert visitors.failed == []
    assert len(caplog.records) == 1
    assert pool.opened <= 2 * THREADS
    assert len(sessions(mariadb, alias)) == THREADS
    connections[alias].close()


def test_role_is_asked_for_after_a_while_and_in_the_packet_of_the_ping(
    make_alias: MakeAlias, failover: Failover, tap: Wiretap
) -> None:
    """A warm checkout sends nothing."""
    alias = make_alias(NAME=failover.name, PORT=str(tap.port), POOL=PRIMARY, **WRITER)
    connection = connections[alias]
    with tap.listening() as heard:
        connection.ensure_connection()
        connection.close()
    assert sum("read_only" in each for each in heard) == 1
    with tap.listening() as heard:
        for _ in range(10):
            connection.ensure_connection()
            session = connection.connection
            connection.close()
    assert heard == []
    session.role_seen = time.monotonic() - liveness.ROLE_INTERVAL - 1
    with tap.listening() as heard:
        for _ in range(10):
            connection.ensure_connection()
            connection.close()
    assert heard == [f"DO 1;{QUESTION}"]
    assert pool_of(alias).opened == 1


def test_question_for_the_role_takes_two_packets_where_statements_go_one_by_one(
    make_alias: MakeAlias, failover: Failover, tap: Wiretap
) -> None:
    """As proxies that read SQL need it."""
    entry = {"PORT": str(tap.port), "OPTIONS": {"multi_statements": False}, "POOL": PRIMARY, **WRITER}
    alias = make_alias(NAME=failover.name, **entry)
    connection = connections[alias]
    connection.ensure_connection()
    session = connection.connection
    connection.close()
    session.role_seen = time.monotonic() - liveness.ROLE_INTERVAL - 1
    with tap.listening() as heard:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SET @mine = 1")
        connection.close()
    assert heard[:3] == ["DO 1", QUESTION, "SET @mine = 1"]
    assert heard[3:7] == ["ROLLBACK", "SET ROLE NONE", "SELECT 1", "COM_CHANGE_USER"]
    assert not any(";" in each for each in heard)


@pytest.mark.usefixtures("asked_each_time")
@pytest.mark.parametrize("together", [True, False], ids=["one packet", "two packets"])
def test_session_whose_server_does_not_know_roles_is_kept(
    together: bool, make_alias: MakeAlias, failover: Failover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers with an error."""
    monkeypatch.setattr(mysqlclient, "ROLE", b"SELECT @@global.nothing")
    entry = {"OPTIONS": {"multi_statements": together}, "POOL": PRIMARY, **WRITER}
    alias = make_alias(NAME=failover.name, **entry)
    connection = connections[alias]
    for _ in range(3):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
    assert (pool_of(alias).opened, pool_of(alias).closed) == (1, 0)


def test_session_that_does_not_answer_the_question_is_replaced(
    make_alias: MakeAlias, mariadb: MariaDB, failover: Failover
) -> None:
    alias = make_alias(NAME=failover.name, POOL=PRIMARY, **WRITER)
    visitors = Visitors(alias)
    visitors.fill()
    for session in sessions(mariadb, alias):
        mariadb.kill(session)
    visitors.come(40)
    assert (visitors.failed, pool_of(alias).opened) == ([], 2 * THREADS)
    connections[alias].close()


def test_write_that_a_replica_refuses_renews_nothing(make_alias: MakeAlias, failover: Failover) -> None:
    """The mistake is the site's. Without a role the pool takes it for a failover."""
    failover.primary.execute("SET GLOBAL read_only = 1")
    for role, closed in (("replica", 0), (None, 1)):
        alias = make_alias(NAME=failover.name, POOL={**POOL, "role": role}, **WRITER)
        visitors = Visitors(alias, "INSERT INTO log VALUES (1)")
        visitors.come(1, threads=1)
        assert (len(visitors.failed), pool_of(alias).closed) == (1, closed)
        connections[alias].close()


# --- hosts in a list ------------------------------------------------------------------------------------


def hosts(*servers: MariaDB) -> dict[str, Any]:
    """Return the keys of an entry that lists servers."""
    return {"HOST": ",".join(f"{server.host}:{server.port}" for server in servers), "PORT": ""}


@engines
def test_list_of_hosts_leads_to_the_first_that_listens(
    engine: str, make_alias: MakeAlias, failover: Failover
) -> None:
    name, heir = failover.name, failover.heir
    where = f"127.0.0.1:{free_port()},{heir.host}:{heir.port},{failover.primary.host}"
    alias = make_alias(engine, NAME=name, HOST=where, PORT=str(failover.primary.port), **WRITER)
    Visitors(alias, "INSERT INTO log VALUES (1)").come(4)
    assert (rows(heir, name), rows(failover.primary, name)) == (4, 0)
    connections[alias].close()


@engines
@pytest.mark.usefixtures("asked_each_time")
def test_list_of_hosts_leads_to_the_one_with_the_role_before_and_after_a_failover(
    engine: str, make_alias: MakeAlias, failover: Failover, tap: Wiretap
) -> None:
    """The demoted primary stands first in the list, and lives on."""
    name = failover.name
    failover.heir.execute("SET GLOBAL read_only = 1")
    listed = hosts(failover.primary, failover.heir)
    alias = make_alias(engine, NAME=name, POOL=PRIMARY, **listed, **WRITER)
    visitors = Visitors(alias, "INSERT INTO log VALUES (1)")
    visitors.fill()
    visitors.come(4)
    failover.happen(tap)
    failover.heir.execute("SET GLOBAL read_only = 0")
    visitors.come(40)
    assert visitors.failed == []
    assert (rows(failover.primary, name), rows(failover.heir, name)) == (4, 40)
    are_gone(failover.primary, alias)
    connections[alias].close()


def test_list_without_a_server_of_the_role_leads_to_the_first(
    make_alias: MakeAlias, failover: Failover
) -> None:
    listed = hosts(failover.heir, failover.primary)
    alias = make_alias(NAME=failover.name, POOL={**POOL, "role": "replica"}, **listed, **WRITER)
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT @@port")
        assert cursor.fetchone() == (failover.heir.port,)
    assert sessions(failover.primary, alias) == set()
    connections[alias].close()


def test_list_without_a_server_of_the_role_leads_to_the_first_that_answers(
    make_alias: MakeAlias, failover: Failover
) -> None:
    """The first one accepts logins, and nothing else."""
    heir = failover.heir
    with Cluster(failover.primary.host, failover.primary.port) as lost:
        lost.leads_to_lost = True
        where = f"{lost.host}:{lost.port},{heir.host}:{heir.port}"
        pool = {**POOL, "role": "replica"}
        alias = make_alias(NAME=failover.name, HOST=where, PORT="", POOL=pool, **WRITER)
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT @@port")
            assert cursor.fetchone() == (heir.port,)
        connections[alias].close()


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_list_whose_primary_is_away_leads_writers_nowhere_and_readers_to_the_rest(
    role: str, make_alias: MakeAlias, failover: Failover
) -> None:
    """The writers wait, as in each outage, until a server is promoted."""
    heir = failover.heir
    heir.execute("SET GLOBAL read_only = 1")
    where = f"127.0.0.1:{free_port()},{heir.host}:{heir.port}"
    pool = {**POOL, "role": role, "outage_wait": 0}
    alias = make_alias(NAME=failover.name, HOST=where, PORT="", POOL=pool, **WRITER)
    visitors = Visitors(alias)
    visitors.come(1, threads=1)
    assert len(visitors.failed) == (role == "primary")
    heir.execute("SET GLOBAL read_only = 0")
    eventually("it is back", lambda: pool_available(alias))
    visitors.come(4)
    assert len(visitors.failed) == (role == "primary")
    assert sessions(heir, alias)
    connections[alias].close()


def test_sessions_of_a_list_are_closed_if_the_opening_is_interrupted(
    make_alias: MakeAlias, failover: Failover, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Struck(BaseException):
        """An asynchronous exception."""

    opened: list[Any] = []

    def has_role(session: Any, role: str, seconds: float) -> bool:
        opened.append(session)
        if len(opened) == 2:
            raise Struck
        return False

    monkeypatch.setattr(mysqlclient.GuardedConnection, "has_role", has_role)
    listed = hosts(failover.primary, failover.heir)
    alias = make_alias(NAME=failover.name, POOL=PRIMARY, **listed, **WRITER)
    with pytest.raises(Struck):
        connections[alias].ensure_connection()
    assert [session.open for session in opened] == [0, 0]


def test_error_of_a_server_in_a_list_is_not_passed_over(make_alias: MakeAlias, failover: Failover) -> None:
    """The server was reached, and the next one would refuse the user, too."""
    alias = make_alias(
        NAME=failover.name, USER="writer", PASSWORD="wrong", **hosts(failover.heir, failover.primary)
    )
    with pytest.raises(OperationalError, match="Access denied"):
        connections[alias].ensure_connection()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a,b", [("a", 3300), ("b", 3300)]),
        ("a:1, b:2", [("a", 1), ("b", 2)]),
        ("::1,[::2]:5", [("::1", 3300), ("::2", 5)]),
        ("a:1", [("a:1", 3300)]),
        ("a,b;init-command=SELECT 1", [("a,b;init-command=SELECT 1", 3300)]),
    ],
)
def test_places_of_a_list(host: str, expected: list[tuple[str, int]]) -> None:
    """A single host, and a connection string of libmariadb's, are the driver's to read."""
    found = driver.places({"host": host, "port": 3300, "user": "u"})
    assert [(place["host"], place["port"]) for place in found] == expected
    assert {place["user"] for place in found} == {"u"}


def test_fork_finds_a_handshake_with_each_host_of_a_list() -> None:
    """By these addresses."""
    assert driver.remote_addresses({"host": "127.0.0.1:1,db:2"}) == {("127.0.0.1", 1), (None, 2)}
