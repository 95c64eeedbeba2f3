"""``POOL["application_name"]`` on PostgreSQL: each session has the name of the process that opened it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from poollife import pool_stats
from servers import PgBouncer, PostgreSQL
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do

pytestmark = pytest.mark.slow

ENGINE = "poollife.backends.postgresql"
NAME = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
TEMPLATE = "shop's \\ {alias} {pid} {host}"


def make(make_alias: MakeAlias, server: Any, template: str | None = TEMPLATE, **entry: Any) -> str:
    pool = {"pool_size": 1, "max_overflow": 0, "timeout": 5, "application_name": template}
    return make_alias(ENGINE, server=server, POOL={**pool, **entry.pop("POOL", {})}, **entry)


def name_of(alias: str) -> Any:
    """Return the name of the session that the next borrower gets."""
    found = ask(alias, NAME)
    connections[alias].close()
    return found


def expected(alias: str) -> str:
    # The server cuts names after 63 bytes.
    return f"shop's \\ {alias} {os.getpid()} {socket.gethostname()}"[:63]


def test_a_session_has_the_name_of_its_alias_process_and_host(
    make_alias: MakeAlias, postgresql: PostgreSQL
) -> None:
    alias = make(make_alias, postgresql)
    assert name_of(alias) == expected(alias)


def test_a_session_has_no_name_by_default(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    assert name_of(make(make_alias, postgresql, None)) == ""


def test_a_reset_brings_the_name_back(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make(make_alias, postgresql)
    do(alias, "SET application_name = 'a borrower'")
    assert name_of(alias) == "a borrower"
    assert name_of(alias) == expected(alias)
    stats = pool_stats()[alias]
    assert (stats["opened"], stats["resets"]) == (1, 1)


def test_the_users_own_name_stays(
    make_alias: MakeAlias, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = make(make_alias, postgresql, OPTIONS={"application_name": "mine"})
    assert name_of(alias) == "mine"
    monkeypatch.setenv("PGAPPNAME", "the operator's")
    assert name_of(make(make_alias, postgresql)) == "the operator's"


def test_a_child_opens_sessions_with_its_own_pid(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make(make_alias, postgresql)
    name_of(alias)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, str(name_of(alias) == expected(alias)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert answer.read() == "True"
    assert name_of(alias) == expected(alias)


def test_the_name_is_restored_after_a_reset_behind_pgbouncer(
    make_alias: MakeAlias, session_pgbouncer: PgBouncer
) -> None:
    alias = make(make_alias, session_pgbouncer, "shop's \\ {pid}")
    name = f"shop's \\ {os.getpid()}"
    assert name_of(alias) == name
    do(alias, "SET application_name = 'a borrower'")
    connections[alias].close()
    assert name_of(alias) == name
    resets = pool_stats()[alias]["resets"]
    assert name_of(alias) == name
    assert pool_stats()[alias]["resets"] == resets  # it is a clean session again


def test_each_transaction_has_the_name_behind_a_transaction_pooler(
    make_alias: MakeAlias, transaction_pgbouncer: PgBouncer
) -> None:
    pool = {"behind": "transaction_pooler"}
    more = {"DISABLE_SERVER_SIDE_CURSORS": True}
    one = make(make_alias, transaction_pgbouncer, "one {pid}", POOL=pool, **more)
    two = make(make_alias, transaction_pgbouncer, "two {pid}", POOL=pool, **more)
    for _ in range(3):
        assert [name_of(one), name_of(two)] == [f"one {os.getpid()}", f"two {os.getpid()}"]


@pytest.mark.parametrize("value", [True, 1, "{site}", "{", "{pid.real}", "{0}", b"shop"])
def test_another_value_is_refused(make_alias: Callable[..., str], postgresql: PostgreSQL, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="'application_name' takes a text such as"):
        name_of(make(make_alias, postgresql, value))


def test_mysql_refuses_it(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"application_name": "shop"})
    with pytest.raises(ImproperlyConfigured, match="only PostgreSQL has names of sessions"):
        connections[alias].ensure_connection()
