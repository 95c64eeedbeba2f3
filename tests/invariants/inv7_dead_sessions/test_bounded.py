"""Invariant 7: what the pool itself sends ends, although a proxy keeps the session and nothing answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from poollife.backends.mysql import common as mysql_backend
from poollife.backends.postgresql import base as postgresql_backend
from poollife.drivers.mysql import connection as mysql
from servers import MariaDB, PrivateServer, Proxy
from tests.conftest import MakeAlias
from tests.support.counting import pool_of

ENGINES = ["poollife.backends.mysql", "poollife.backends.mysql_pymysql"]


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        yield proxy


@pytest.mark.parametrize("engine", ENGINES, ids=["mysqlclient", "PyMySQL"])
@pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy_begin"])
def test_rollback_at_the_return_ends_without_read_timeout(
    engine: str, lazy: bool, make_alias: MakeAlias, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CLEANING_LIMIT", 0.2)
    options = {"client_flag": 1 << 16} if lazy and "pymysql" in engine else {}  # MULTI_STATEMENTS
    alias = make_alias(engine, PORT=str(proxy.port), POOL={"lazy_begin": lazy}, OPTIONS=options)
    connection = connections[alias]
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    with proxy.stalled():
        connection.close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 1)


def test_reset_ends_without_read_timeout(
    make_alias: MakeAlias, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CLEANING_LIMIT", 0.2)
    alias = make_alias(PORT=str(proxy.port))
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute("SET @mine = 1")
    with proxy.stalled():
        connection.close()
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 1)


def test_read_timeout_of_the_site_is_the_limit(make_alias: MakeAlias, proxy: Proxy) -> None:
    """No thread is started that would watch."""
    alias = make_alias(PORT=str(proxy.port), OPTIONS={"read_timeout": 1})
    connection = connections[alias]
    with transaction.atomic(alias):
        pass
    connection.set_autocommit(False)
    assert connection.connection.own_limit == 1
    with proxy.stalled():
        connection.close()
    assert pool_of(alias).closed == 1


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_opening_of_a_session_ends_without_connect_timeout(
    kind: str, make_alias: MakeAlias, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host takes the connection and never says a word: all other checkouts wait for this attempt."""
    server: PrivateServer = request.getfixturevalue(kind)
    module, engine = (mysql_backend, "mysql") if kind == "mariadb" else (postgresql_backend, "postgresql")
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 2)  # libpq takes 1 for 2
    with Proxy(server.host, server.port) as proxy:
        entry: dict[str, Any] = {"PORT": str(proxy.port), "POOL": {"outage_wait": 0}}
        alias = make_alias(f"poollife.backends.{engine}", server=server, **entry)
        with proxy.deaf(), pytest.raises(OperationalError):
            connections[alias].ensure_connection()
        connections[alias].close()
