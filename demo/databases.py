"""The database of the demo, as the runner sees it: a private MariaDB server, or a SQLite file."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from servers.mariadb import MariaDB

HOW_TO_GET_MYSQL = """\
On Debian or Ubuntu, to see it on a real server:
  apt install mariadb-server libmariadb-dev pkg-config gcc python3-dev
  make demo
The demo starts a server of its own in a temporary folder. It neither needs nor touches a system service.
"""

WITHOUT_SERVER = """\
What SQLite leaves out: there is no server, so there are no sessions that a child process could share or
break, and no socket on which answers could be mixed up. The rows about forks are about file handles instead:
a child that closes one it has inherited can ruin the database file.
"""


class Database(Protocol):
    """What the runner wants to know about a database, asked past the site."""

    kind: str
    name: str

    def settings(self) -> dict[str, object]:
        """The entry for DATABASES."""

    def connections(self) -> int | None:
        """How many connections were ever opened, this question's own left out. None if nobody counts."""

    def is_alive(self, session: int) -> bool:
        """Does the server still have this session?"""

    def texts(self) -> set[str]:
        """All that was ever written and committed: comments and titles."""

    def damage(self) -> str:
        """What the database says against its own integrity; nothing, as a rule."""


class MySQL:
    """A private MariaDB server."""

    kind = "mysql"
    name = "a private MariaDB server"

    def __init__(self, server: MariaDB) -> None:
        """Take a server that runs, and give it a database."""
        self._server = server
        self._asked = 0
        server.create_database("tickets")

    def settings(self) -> dict[str, object]:
        """The ENGINE is poollife's, the rest is the server's."""
        return {"ENGINE": "poollife.backends.mysql", **self._server.database("tickets")}

    def connections(self) -> int | None:
        """Asking may cost connections, too: ask twice to see how many, and take all of them off."""
        first = self._server.status("Connections")
        second = self._server.status("Connections")
        self._asked += 2 * (second - first)
        return second - self._asked

    def is_alive(self, session: int) -> bool:
        """Look into the list of the server's sessions."""
        sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s"
        return bool(self._server.execute(sql, session)[0][0])

    def texts(self) -> set[str]:
        """Read them with the server's own client."""
        sql = "SELECT text FROM tickets.tickets_comment UNION SELECT title FROM tickets.tickets_ticket"
        return {str(text) for (text,) in self._server.execute(sql)}

    def damage(self) -> str:
        """A server of its own cannot be damaged by our children."""
        return ""


class SQLite:
    """A file in a temporary folder."""

    kind = "sqlite"
    name = "SQLite"

    def __init__(self, path: Path) -> None:
        """Name the file; migrating creates it."""
        self._path = path

    def settings(self) -> dict[str, object]:
        """WAL, and writers that queue up instead of failing: as one sets up a busy SQLite site."""
        options = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
        return {"ENGINE": "poollife.backends.sqlite3", "NAME": str(self._path), "OPTIONS": options}

    def connections(self) -> int | None:
        """Nobody counts them."""
        return None

    def is_alive(self, session: int) -> bool:
        """A file handle of another process cannot be looked at; the master says it itself at the end."""
        return True

    def texts(self) -> set[str]:
        """Read them with a handle of our own."""
        sql = "SELECT text FROM tickets_comment UNION SELECT title FROM tickets_ticket"
        return {str(text) for (text,) in self._execute(sql)}

    def damage(self) -> str:
        """SQLite reads the whole file and says what is wrong with it."""
        found = "; ".join(str(line) for (line,) in self._execute("PRAGMA integrity_check"))
        return "" if found == "ok" else found

    def _execute(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._path, timeout=20)) as handle:
            return handle.execute(sql).fetchall()


def why_not_mysql() -> str:
    """What is missing for MySQL on this machine; nothing if it can run."""
    if MariaDB.find() is None:
        return "no MariaDB server program was found"
    try:
        importlib.import_module("MySQLdb")
    except ImportError as error:
        return f"the Python package mysqlclient is not there, or does not load ({error})"
    return ""


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """The database, for as long as the demo runs."""
    if kind == "sqlite":
        yield SQLite(folder / "tickets.sqlite3")
        return
    with MariaDB() as server:
        yield MySQL(server)
