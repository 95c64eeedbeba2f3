"""What clients really sent, by the server's own account: its general log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from servers import MariaDB

CONNECTED = re.compile(r"(?P<user>[^@]*)@\S* on (?P<database>.*) using ")


class Statement(NamedTuple):
    """One statement, and the database that its session was in when it sent it; None: in none."""

    database: str | None
    sql: str

    @property
    def verb(self) -> str:
        """Its first word, in upper case."""
        return self.sql.split(None, 1)[0].upper()


@contextmanager
def logging_everything(server: MariaDB) -> Iterator[None]:
    """Let the server write its general log, into a table."""
    server.execute("SET GLOBAL log_output = 'TABLE'")
    server.execute("SET GLOBAL general_log = ON")
    try:
        yield
    finally:
        server.execute("SET GLOBAL general_log = OFF")
        server.execute("SET GLOBAL log_output = DEFAULT")
        server.execute("TRUNCATE mysql.general_log")


def clear_log(server: MariaDB) -> None:
    """Forget what was sent up to now."""
    server.execute("TRUNCATE mysql.general_log")


def statements(server: MariaDB, user: str) -> list[Statement]:
    """What sessions of that user sent since the log was cleared, in order."""
    found: list[Statement] = []
    databases: dict[int, str | None] = {}
    # Not sorted: the log is a file, and several lines of it may carry the same time.
    for thread, kind, argument in server.execute(
        "SELECT thread_id, command_type, CONVERT(argument USING utf8mb4) FROM mysql.general_log"
    ):
        if kind in ("Connect", "Change user"):
            connected = CONNECTED.match(argument)
            if connected and connected["user"] == user:
                databases[thread] = connected["database"] or None
        elif thread not in databases:
            continue
        elif kind == "Init DB":
            databases[thread] = argument
        elif kind == "Query":
            found.append(Statement(databases[thread], argument))
        elif kind != "Quit":
            raise AssertionError(f"an entry of the general log that nobody expected: {kind} {argument}")
    return found
