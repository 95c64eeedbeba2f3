"""A pair of databases for each driver: Django's own way of beginning transactions, and ``lazy_begin``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pymysql.constants import CLIENT

from tests.conftest import MakeAlias
from tests.kit.backends import POSTGRESQL
from tests.support.counting import pool_of

#: The table that the programs change.
ROWS = [(1, "one", 1), (2, "two", 2), (3, "three", 3)]
TABLE = {
    "mariadb": (
        "CREATE TABLE things (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE NOT NULL, "
        "number INT) ENGINE=InnoDB CHARACTER SET utf8mb4"
    ),
    "postgresql": (
        "CREATE TABLE things (id SERIAL PRIMARY KEY, name VARCHAR(20) UNIQUE NOT NULL, number INT); "
        "SELECT setval('things_id_seq', 1000)"
    ),
}


@dataclass(frozen=True)
class Way:
    """A driver, and an ENGINE by which the same driver begins its transactions as Django has it do."""

    name: str
    server: str
    engine: str
    stock: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


MYSQLCLIENT = Way("mysqlclient", "mariadb", "poollife.backends.mysql", "django.db.backends.mysql")
#: Django has no ENGINE for it.
PYMYSQL = Way(
    "PyMySQL",
    "mariadb",
    "poollife.backends.mysql_pymysql",
    "poollife.backends.mysql_pymysql",
    {"client_flag": CLIENT.MULTI_STATEMENTS, "ssl_disabled": True},
)
PSYCOPG = Way("psycopg", "postgresql", "poollife.backends.postgresql", "django.db.backends.postgresql")
PSYCOPG2 = replace(PSYCOPG, name="psycopg2")
#: The drivers that this process can test: Django takes psycopg, or psycopg2 where psycopg is missing.
WAYS = [MYSQLCLIENT, PYMYSQL, PSYCOPG2 if POSTGRESQL == "psycopg2" else PSYCOPG]


class Pair:
    """Two aliases on databases with the same table."""

    def __init__(
        self, way: Way, server: Any, make_alias: MakeAlias, more_options: Any = None, **entry: Any
    ) -> None:
        self.way, self.server = way, server
        self._options = {**way.options, **(more_options or {})}
        self._make_alias = make_alias
        self.stock = self._make(way.stock, lazy_begin=False, **entry)
        self.lazy = self._make(way.engine, lazy_begin=True, **entry)
        self.both = (self.stock, self.lazy)

    def _make(self, engine: str, lazy_begin: bool, **entry: Any) -> str:
        if engine.startswith("poollife"):
            entry["POOL"] = {"pool_size": 2, "max_overflow": 0, "timeout": 5, "lazy_begin": lazy_begin}
        options = {**self.server.database("any").get("OPTIONS", {}), **self._options}
        alias = self._make_alias(engine, server=self.server, OPTIONS=options, **entry)
        with connections[alias].cursor() as cursor:
            cursor.execute(TABLE[self.way.server])
        return alias

    def reset(self) -> None:
        """Have the table's rows again."""
        for alias in self.both:
            with connections[alias].cursor() as cursor:
                cursor.execute("DELETE FROM things")
                cursor.executemany("INSERT INTO things (id, name, number) VALUES (%s, %s, %s)", ROWS)

    def state(self, alias: str) -> Any:
        """Return the state of the transaction, as the client knows it. Sends nothing."""
        wrapper = connections[alias]
        driver = wrapper.connection
        if driver is None or wrapper.closed_in_transaction:
            return "closed"
        if self.way.server == "mariadb":
            return bool(driver.get_autocommit())
        # Django's own SAVEPOINT has begun the transaction, where that of lazy_begin waits for a statement.
        waits = bool(getattr(driver, "savepoints", ()))
        return int(driver.info.transaction_status) or 2 * waits, driver.autocommit


@pytest.fixture(params=WAYS, ids=str)
def pair(request: pytest.FixtureRequest, make_alias: MakeAlias) -> Iterator[Pair]:
    """The pair of each driver."""
    way: Way = request.param
    made = Pair(way, request.getfixturevalue(way.server), make_alias)
    yield made
    for alias in made.both:
        connections[alias].close()
    assert pool_of(made.lazy).out == 0


def statements(alias: str) -> CaptureQueriesContext:
    """Return a block that notes the statements of its programs as Django logs them."""
    return CaptureQueriesContext(connections[alias])
