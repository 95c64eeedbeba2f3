"""The statements that a new session gets, beside those of stock Django.

Stock Django opens a session for each thread, and sends these for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.postgres import signals
from django.db import connections
from django.db.backends.signals import connection_created

from poollife import auto_close_db
from tests.conftest import MakeAlias
from tests.kit.backends import POSTGRESQL, do
from tests.support.counting import pool_of
from tests.support.tap import Tap

MYSQL_SESSION = ["SET NAMES", "SET SESSION"]
#: Engine, server, and the beginnings of the statements: of the first session of a pool, of each further one,
#: and of each session of stock Django. The login is left out.
OPENINGS = {
    "mysqlclient": (
        "mysql",
        "mariadb",
        ["SET NAMES", "SELECT VERSION(),", "SET SESSION", "SELECT @@wait_timeout"],
        MYSQL_SESSION,
        ["SET NAMES", "SET autocommit=0", "SET autocommit=1", "SELECT VERSION(),", "SET SESSION"],
    ),
    "PyMySQL": (
        "mysql_pymysql",
        "mariadb",
        ["SET NAMES", "SELECT VERSION(),", "SET SESSION", "SELECT @@wait_timeout"],
        MYSQL_SESSION,
        None,  # Django has no such ENGINE
    ),
    POSTGRESQL: ("postgresql", "postgresql", ["SELECT pg_backend_pid()", "SELECT setting"], [], []),
}


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def opening(tap: Tap, alias: str) -> list[str]:
    """Return the beginnings of what a thread sends that needs a session of its own."""

    def work() -> None:
        with auto_close_db():
            do(alias, "SELECT 'the statement'")
        connections[alias].close()

    with tap.listening() as heard:
        in_a_thread(work)
    begins = [" ".join(text.split()[:2]) for text in heard if text != "connect"]
    assert begins.pop() == "SELECT 'the"
    return begins


def openings(tap: Tap, alias: str) -> list[list[str]]:
    """Return those of the first session of a pool, and of a further one while that is in use."""
    found = [opening(tap, alias)]
    with auto_close_db():
        connections[alias].ensure_connection()
        found.append(opening(tap, alias))
    return found


@pytest.mark.parametrize("driver", OPENINGS)
def test_new_session_gets_few_statements(
    driver: str, make_alias: MakeAlias, request: pytest.FixtureRequest
) -> None:
    engine, fixture, first, further, stock = OPENINGS[driver]
    server: Any = request.getfixturevalue(fixture)
    tap = Tap(server)
    with tap.proxy:
        options = {**server.database("any").get("OPTIONS", {})}
        if driver == "PyMySQL":
            options["ssl_disabled"] = True
        entry = {"server": server, "PORT": str(tap.proxy.port), "OPTIONS": options}
        pooled = make_alias(f"poollife.backends.{engine}", **entry)
        assert openings(tap, pooled) == [first, further]
        pool_of(pooled).drain("the test is over")
        if stock is not None:
            alias = make_alias(f"django.db.backends.{engine}", **entry)
            assert openings(tap, alias) == [stock, stock]
            connections[alias].close()


@pytest.fixture
def postgresql_tap(postgresql: Any) -> Any:
    tap = Tap(postgresql)
    with tap.proxy:
        yield tap


def test_types_of_contrib_postgres_are_looked_up_once(
    make_alias: MakeAlias, postgresql: Any, postgresql_tap: Tap
) -> None:
    """Django keeps them for each alias of a process."""
    connection_created.connect(signals.register_type_handlers)
    try:
        alias = make_alias(
            "poollife.backends.postgresql", server=postgresql, PORT=str(postgresql_tap.proxy.port)
        )
        first, further = openings(postgresql_tap, alias)
        pool_of(alias).drain("the test is over")
    finally:
        connection_created.disconnect(signals.register_type_handlers)
    assert (len(first), further) == (2 + 2, [])


def test_role_costs_a_statement_and_leaves_the_session_free(
    make_alias: MakeAlias, postgresql: Any, postgresql_tap: Tap
) -> None:
    """Django sends it by a cursor of the driver's own. A bare thread returns its session all the same."""
    options = {**postgresql.database("any")["OPTIONS"], "assume_role": postgresql.user}
    alias = make_alias(
        "poollife.backends.postgresql",
        server=postgresql,
        PORT=str(postgresql_tap.proxy.port),
        OPTIONS=options,
    )
    assert openings(postgresql_tap, alias)[1] == ["SET ROLE"]
    out = []

    def work() -> None:
        do(alias, "SELECT 1")
        out.append(pool_of(alias).out)

    pool_of(alias).drain("a new session")
    in_a_thread(work)
    assert out == [0]
    pool_of(alias).drain("the test is over")
