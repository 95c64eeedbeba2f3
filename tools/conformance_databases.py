"""The databases of the conformance runs: their places, and the backends to compare there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from servers import MariaDB, PostgreSQL

#: A folder in memory, on Linux.
MEMORY = Path("/dev/shm")

#: All of Django's models at once are more tables than the server's own cache holds in the tests of poollife.
SERVER_OPTIONS = (
    "--character-set-server=utf8mb4",
    "--table-open-cache=2000",
    "--innodb-buffer-pool-size=256M",
)


class Databases(Protocol):
    """A place for databases of one kind."""

    #: Django's backend for them, and poollife's.
    stock: str
    pooled: str
    #: Tests that fail by their order, with Django's backend, too. The value: the reason.
    skipped: dict[str, str]

    def settings(self, name: str) -> dict[str, Any]:
        """Return an entry for DATABASES, without its ENGINE."""


class MySQL:
    """Databases on a private server."""

    stock = "django.db.backends.mysql"
    pooled = "tools.conformance_engine.mysql"
    skipped: dict[str, str] = {}

    def __init__(self, server: MariaDB) -> None:
        self._server = server

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[MySQL]:
        """Start the server, and end it after the block."""
        with MariaDB(options=SERVER_OPTIONS) as server:
            yield cls(server)

    def settings(self, name: str) -> dict[str, Any]:
        return {**self._server.database(name), "TEST": {"CHARSET": "utf8mb4"}}


class PostgreSQLDatabases:
    """Databases on a private server, whose user may do all that Django's tests do."""

    stock = "django.db.backends.postgresql"
    pooled = "tools.conformance_engine.postgresql"
    skipped: dict[str, str] = {}

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[PostgreSQLDatabases]:
        """Start the server, and end it after the block."""
        with PostgreSQL(superuser=True, options=["--shared_buffers=128MB"]) as server:
            yield cls(server)

    def settings(self, name: str) -> dict[str, Any]:
        return self._server.database(name)


class SQLite:
    """Databases in files, test databases as well: one in memory is not pooled."""

    stock = "django.db.backends.sqlite3"
    pooled = "tools.conformance_engine.sqlite3"
    skipped = {
        "backends.sqlite.tests.ThreadSharing.test_database_sharing_in_threads": (
            "made for a database in memory: it may close the connection of the tests that follow it"
        ),
        # Seen in parallel runs with either backend: where a test of the same process has set up a database in
        # memory, Django marks this one as one to skip.
        "test_utils.tests.AssertNumQueriesUponConnectionTests."
        "test_ignores_connection_configuration_queries": (
            "whether Django skips it depends on the tests that its process has run before"
        ),
    }

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[SQLite]:
        """Make the folder, in memory if possible: elsewhere commits wait for the disk."""
        with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
            yield cls(Path(folder))

    def settings(self, name: str) -> dict[str, Any]:
        return {"NAME": self._file(name), "TEST": {"NAME": self._file(f"test_{name}")}}

    def _file(self, name: str) -> str:
        return str(self._folder / f"{name}.sqlite3")


class SQLiteInMemory(SQLite):
    """Test databases in memory, as Django has them by default; not pooled."""

    skipped: dict[str, str] = {}

    def settings(self, name: str) -> dict[str, Any]:
        return {"NAME": self._file(name)}


#: The values of ``--database``.
DATABASES: dict[str, type[MySQL | PostgreSQLDatabases | SQLite]] = {
    "mysql": MySQL,
    "postgresql": PostgreSQLDatabases,
    "sqlite": SQLite,
    "sqlite-in-memory": SQLiteInMemory,
}
