"""The database of the demo, as the runner sees it: a private server, or a SQLite file."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from servers.mariadb import MariaDB
from servers.postgresql import PostgreSQL as PostgreSQLServer

#: How to install a server and its driver, by the kind of database.
HOW_TO_GET = {
    "mysql": """\
On Debian or Ubuntu, to see it on a real server:
  apt install mariadb-server libmariadb-dev pkg-config gcc python3-dev
  make demo
The demo starts a server of its own in a temporary folder. It neither needs nor touches a system service.
""",
    "postgresql": """\
On Debian or Ubuntu, to see it on PostgreSQL:
  apt install postgresql
  make demo DB=postgresql
The demo starts a server of its own in a temporary folder. It neither needs nor touches a system service.
""",
}

WITHOUT_SERVER = """\
What SQLite leaves out: there is no server, so there are no sessions that a child process could share or
break, and no socket on which answers could be mixed up. The rows about forks are about file handles instead:
a child that closes one it has inherited can ruin the database file.
"""


class Database(Protocol):
    """A database of the demo, and the questions that the runner asks it directly, not through the site."""

    kind: str
    name: str

    def settings(self) -> dict[str, object]:
        """Return the entry for DATABASES."""

    def connections(self) -> int | None:
        """Return how many connections were opened, without those of this question; None without a counter."""

    def is_alive(self, session: int) -> bool:
        """Return whether the server still has this session."""

    def texts(self) -> set[str]:
        """Return all texts that were committed: comments and titles."""

    def damage(self) -> str:
        """Return the damage that the database finds in itself; an empty text if there is none."""


class MySQL:
    """A private MariaDB server."""

    kind = "mysql"
    name = "a private MariaDB server"

    def __init__(self, server: MariaDB) -> None:
        """Create the database of the demo on a server that runs."""
        self._server = server
        self._asked = 0
        server.create_database("tickets")

    def settings(self) -> dict[str, object]:
        """Return the entry for DATABASES."""
        return {"ENGINE": "poollife.backends.mysql", **self._server.database("tickets")}

    def connections(self) -> int | None:
        """Return how many connections were opened.

        The question may itself open connections. It is asked twice to see how many, and these are subtracted.
        """
        first = self._server.status("Connections")
        second = self._server.status("Connections")
        self._asked += 2 * (second - first)
        return second - self._asked

    def is_alive(self, session: int) -> bool:
        """Return whether the server's process list has this session."""
        sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s"
        return bool(self._server.execute(sql, session)[0][0])

    def texts(self) -> set[str]:
        """Read all committed texts with the server's own client."""
        sql = "SELECT text FROM tickets.tickets_comment UNION SELECT title FROM tickets.tickets_ticket"
        return {str(text) for (text,) in self._server.execute(sql)}

    def damage(self) -> str:
        """Return an empty text: children of the site's processes can't damage a server."""
        return ""


class PostgreSQL:
    """A private PostgreSQL server."""

    kind = "postgresql"
    name = "a private PostgreSQL server"
    #: Have the server log each session that it opens. Its statistics count them too, but some seconds later.
    options = ("--log_connections=on",)

    def __init__(self, server: PostgreSQLServer) -> None:
        """Create the database of the demo on a server that runs.

        :param server: a server that was started with ``options``.
        """
        self._server = server
        server.create_database("tickets")

    def settings(self) -> dict[str, object]:
        """Return the entry for DATABASES."""
        return {"ENGINE": "poollife.backends.postgresql", **self._server.database("tickets")}

    def connections(self) -> int | None:
        """Return how many sessions of the site the server's log has. This sends nothing to the server."""
        line = f"connection authorized: user={self._server.user} database=tickets"
        return (self._server.folder / "server.log").read_text(errors="replace").count(line)

    def is_alive(self, session: int) -> bool:
        """Return whether the server's list of sessions has this session."""
        return session in {each.id for each in self._server.sessions()}

    def texts(self) -> set[str]:
        """Read all committed texts as the server's administrator."""
        sql = "SELECT text FROM tickets_comment UNION SELECT title FROM tickets_ticket"
        return {str(text) for (text,) in self._server.execute(sql, database="tickets")}

    def damage(self) -> str:
        """Return an empty text: children of the site's processes can't damage a server."""
        return ""


class SQLite:
    """A file in a temporary folder."""

    kind = "sqlite"
    name = "SQLite"

    def __init__(self, path: Path) -> None:
        """Note the path of the file, which the migrations create."""
        self._path = path

    def settings(self) -> dict[str, object]:
        """Return the entry for DATABASES of a busy site: WAL, and writers that wait for each other."""
        options = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
        return {"ENGINE": "poollife.backends.sqlite3", "NAME": str(self._path), "OPTIONS": options}

    def connections(self) -> int | None:
        """Return None: SQLite does not count connections."""
        return None

    def is_alive(self, session: int) -> bool:
        """Return True: no process can check another's file handle. The master checks its own at the end."""
        return True

    def texts(self) -> set[str]:
        """Read all committed texts with a connection of the runner's own."""
        sql = "SELECT text FROM tickets_comment UNION SELECT title FROM tickets_ticket"
        return {str(text) for (text,) in self._execute(sql)}

    def damage(self) -> str:
        """Have SQLite check the whole file, and return its findings; an empty text if there are none."""
        found = "; ".join(str(line) for (line,) in self._execute("PRAGMA integrity_check"))
        return "" if found == "ok" else found

    def _execute(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._path, timeout=20)) as handle:
            return handle.execute(sql).fetchall()


def missing_for(kind: str) -> str:
    """Return what is missing for a kind of database on this machine; an empty text if it can run.

    :param kind: "mysql", "postgresql" or "sqlite".
    """
    return {"mysql": _missing_for_mysql, "postgresql": _missing_for_postgresql}.get(kind, str)()


def _missing_for_mysql() -> str:
    if MariaDB.find() is None:
        return "no MariaDB server program was found"
    try:
        importlib.import_module("MySQLdb")
    except ImportError as error:
        return f"the Python package mysqlclient is not there, or does not load ({error})"
    return ""


def _missing_for_postgresql() -> str:
    if PostgreSQLServer.find() is None:
        return "no PostgreSQL server program was found"
    errors = [_import_error(name) for name in ("psycopg", "psycopg2")]
    if all(errors):
        return f"the Python package psycopg is not there, or does not load ({errors[0]})"
    return ""


def _import_error(name: str) -> ImportError | None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return error
    return None


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """Yield the database, and stop its server at the end of the block.

    :param kind: "mysql", "postgresql" or "sqlite".
    :param folder: the folder of SQLite's file.
    """
    if kind == "sqlite":
        yield SQLite(folder / "tickets.sqlite3")
    elif kind == "postgresql":
        with PostgreSQLServer(options=PostgreSQL.options) as postgresql:
            yield PostgreSQL(postgresql)
    else:
        with MariaDB() as mariadb:
            yield MySQL(mariadb)
