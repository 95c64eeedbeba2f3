"""The kinds of database servers, as far as the parts of ``make bench`` differ from one to the other.

Drivers are imported where they are needed: a process measures with one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import wiretap
from servers import Certificates, MariaDB, PacketProxy, PostgreSQL


class PacketTap(PacketProxy):
    """A proxy in front of a PostgreSQL server, with the interface of ``Wiretap``."""

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield a list that has an item for each round trip of the block after its end.

        A login is one ``connect``, however many messages it has.

        :raises RuntimeError: a client has encrypted its connection.
        """
        heard: list[str] = []
        with self.counting() as count:
            yield heard
        heard += [wiretap.CONNECT] * count.kinds["Startup"] + count.texts
        # A statement that was prepared before has no text.
        heard += ["prepared statement"] * (count.total - len(count.texts))


@dataclass(frozen=True)
class Dialect:
    """A kind of database server."""

    #: The last part of the ENGINE of Django's backend, and of poollife's.
    name: str
    #: Starts a server; None: without TLS, because packets are counted.
    server: Callable[[Certificates | None], Any]
    #: The name of the database before the name of a table, where a statement needs it.
    at: str
    #: Runs a statement of the administrator: server, database, statement.
    run: Callable[[Any, str, str], object]
    tap: type[wiretap.Wiretap] | type[PacketTap]
    #: Opens a session by the driver alone: the entry of ``DATABASES``.
    connect: Callable[[dict[str, Any]], Any]
    #: Runs a statement by the driver alone, and reads its rows: the driver connection, the statement.
    query: Callable[[Any, str], object]
    #: A SELECT that takes so many seconds.
    sleep: str
    #: A table whose keys the server draws: the type of the key.
    serial: str
    #: The last key that was drawn in this session.
    last_id: str
    #: The server's number of the session.
    session: str
    #: Reads the first of 100,000 rows, and returns what has the others: the driver connection.
    read_half: Callable[[Any], Any]
    #: The attribute of the driver's errors that has the server's number of the error.
    error_number: str
    #: Parts that this kind of server does not have.
    without: frozenset[str] = frozenset()

    def execute(self, server: Any, database: str, *statements: str) -> None:
        """Run statements of the administrator, in which ``{at}`` stands before the names of tables.

        :param statements: the statements; ``{name}`` is the database, ``{user}`` the borrowers' account.
        """
        for each in statements:
            filled = each.format(at=self.at.format(name=database), name=database, user=server.user)
            self.run(server, database, filled)


def connect_mysql(entry: dict[str, Any]) -> Any:
    import MySQLdb

    return MySQLdb.connect(
        host=entry["HOST"],
        port=int(entry["PORT"]),
        user=entry["USER"],
        password=entry["PASSWORD"],
        database=entry["NAME"],
    )


def query_mysql(connection: Any, sql: str) -> None:
    connection.query(sql)
    connection.store_result()


def read_half_mysql(connection: Any) -> Any:
    try:
        from MySQLdb.cursors import SSCursor

        cursor = connection.cursor(SSCursor)
    except (ImportError, TypeError):
        cursor = connection.cursor(buffered=False)
    cursor.execute("SELECT seq FROM seq_1_to_100000")
    cursor.fetchone()
    return cursor


def connect_postgresql(entry: dict[str, Any]) -> Any:
    import psycopg

    return psycopg.connect(
        host=entry["HOST"],
        port=entry["PORT"],
        user=entry["USER"],
        password=entry["PASSWORD"],
        dbname=entry["NAME"],
        autocommit=True,
        **entry["OPTIONS"],
    )


def read_half_postgresql(connection: Any) -> Any:
    rows = connection.cursor().stream("SELECT generate_series(1, 100000)")
    next(rows)
    return rows


MYSQL = Dialect(
    "mysql",
    lambda certificates: MariaDB(certificates=certificates, options=[] if certificates else ["--skip-ssl"]),
    "{name}.",
    lambda server, database, sql: server.execute(sql),
    wiretap.Wiretap,
    connect_mysql,
    query_mysql,
    "SELECT SLEEP({})",
    "BIGINT AUTO_INCREMENT",
    "SELECT LAST_INSERT_ID()",
    "SELECT CONNECTION_ID()",
    read_half_mysql,
    "errno",
)
POSTGRESQL = Dialect(
    "postgresql",
    # Some of the state that a session may have needs a superuser.
    lambda certificates: PostgreSQL(certificates=certificates, superuser=True),
    "",
    lambda server, database, sql: server.execute(sql, database=database),
    PacketTap,
    connect_postgresql,
    lambda connection, sql: connection.execute(sql).fetchall(),
    "SELECT pg_sleep({})",
    "BIGINT GENERATED BY DEFAULT AS IDENTITY",
    "SELECT lastval()",
    "SELECT pg_backend_pid()",
    read_half_postgresql,
    "sqlstate",
    # It counts the calls of one driver's connect().
    without=frozenset({"outage"}),
)
DIALECTS = {each.name: each for each in (MYSQL, POSTGRESQL)}
