"""A private PostgreSQL server whose settings and roles a test may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import PostgreSQL


@dataclass
class Server:
    """A running server."""

    server: PostgreSQL
    #: The arguments of a driver's ``connect()``, for a superuser.
    parameters: dict[str, Any]

    @property
    def socket_folder(self) -> Path:
        """The folder of the unix socket."""
        return self.server.socket.parent

    def allow(self, logins: str) -> None:
        """Put lines before the file of logins; they hold from the next reload on.

        :param logins: lines of ``pg_hba.conf``.
        """
        file = self.server.folder / "logins.conf"
        file.write_text(logins + file.read_text())
        self.server.execute("SELECT pg_reload_conf()")

    def stop_at_once(self) -> None:
        """Stop the server as in an emergency: it tells its clients nothing."""
        self.server.stop(immediate=True)


@contextmanager
def running_server(*settings: str) -> Iterator[Server]:
    """Run a server, with an empty database.

    :param settings: settings of the server, such as ``max_connections=8``.
    """
    with PostgreSQL(superuser=True, options=[f"--{each}" for each in settings]) as server:
        server.create_database("support")
        parameters = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
            "dbname": "support",
        }
        yield Server(server, parameters)
