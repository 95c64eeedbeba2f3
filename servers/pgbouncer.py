"""A private PgBouncer in front of a private PostgreSQL server."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from servers.missing import Missing
from servers.postgresql import PostgreSQL, driver_module
from servers.private import Via
from servers.program import PrivateProgram, other_user, which

#: PgBouncer's words for the time for which a client has a session of the server to itself.
PoolMode = Literal["session", "transaction"]

FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


class PgBouncer(PrivateProgram):
    """A private PgBouncer in front of a ``PostgreSQL``, for each of its databases.

    ``poollife`` logs in with the password that it has at the server, and is PgBouncer's administrator, too.
    The server must run before PgBouncer starts. PgBouncer refuses to run as root: it runs as ``nobody`` then.
    """

    name = "PgBouncer"

    # "Immediate shutdown". SIGINT would wait until each client has ended its transaction.
    _stop_signal = signal.SIGTERM
    _crash_signal = signal.SIGKILL

    def __init__(
        self,
        server: PostgreSQL,
        pool_mode: PoolMode = "session",
        *,
        sessions: int = 50,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a PgBouncer; ``start()`` starts it.

        :param server: the server behind it.
        :param pool_mode: the time for which a client has a session of the server to itself.
        :param sessions: the most sessions at the server, for each database.
        :param settings: more settings for the section ``[pgbouncer]``, such as ``server_reset_query``.
        """
        super().__init__()
        self.server = server
        self.user, self.password = server.user, server.password
        self.pool_mode = pool_mode
        self._sessions = sessions
        self._settings = dict(settings or {})
        self._identity = other_user()

    @staticmethod
    def find() -> Path | None:
        """Return the path of PgBouncer's binary, or None where there is none."""
        return which("pgbouncer", FOLDERS)

    # --- used by the tests ----------------------------------------------------------------------------

    def database(self, name: str, *, via: Via = "tcp") -> dict[str, Any]:
        """Return an entry for Django's DATABASES, without its ENGINE.

        :param name: the database of the server.
        :param via: the kind of connection; there is only "tcp".
        :raises ValueError: for another one.
        """
        if via != "tcp":
            raise ValueError(f"this PgBouncer has no {via}")
        return {**self.server.database(name), "HOST": self.host, "PORT": str(self.port)}

    def create_database(self, name: str) -> None:
        """Make an empty database at the server, as ``PostgreSQL.create_database()`` does."""
        self.server.create_database(name)

    def drop_database(self, name: str) -> None:
        """Remove a database of the server, and end its sessions."""
        self.server.drop_database(name)

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Run a command of PgBouncer's console, such as ``SHOW POOLS``, and return its rows.

        :param command: the command.
        """
        connection = driver_module().connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname="pgbouncer"
        )
        with closing(connection):
            connection.autocommit = True
            with closing(connection.cursor()) as cursor:
                cursor.execute(command)
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    # --- the process ------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        """Let PgBouncer's user into the folder."""
        self._open_folder()

    def _command(self) -> list[str]:
        """Return the command line, and write the files of settings and users."""
        binary = self.find()
        if not binary:
            raise Missing("missing: PgBouncer; python3 tools/system_packages.py installs it")
        settings = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "pool_mode": self.pool_mode,
            "auth_type": "scram-sha-256",
            "auth_file": self._write("users.txt", f'"{self.user}" "{self.password}"\n'),
            "admin_users": self.user,
            "max_client_conn": "300",
            "default_pool_size": str(self._sessions),
            # A server that restarts is tried again at once, and not after 15 seconds.
            "server_login_retry": "0.01",
            **self._settings,
        }
        lines = [
            "[databases]",
            f"* = host={self.server.host} port={self.server.port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        return [str(binary), self._write("pgbouncer.ini", "\n".join(lines) + "\n")]

    def _answers(self) -> bool:
        """Return whether the console answers."""
        try:
            self.ask("SHOW VERSION")
        except driver_module().OperationalError:
            return False
        return True
