"""A private MariaDB server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from servers.certificates import Certificates
from servers.missing import Missing
from servers.private import PrivateServer, Session, Via, closed_afterwards
from servers.program import STOP_SECONDS, which

# Where distributions, Homebrew and the project's own archives put the server and its tools, beside PATH.
FOLDERS = (
    "/usr/sbin",
    "/usr/bin",
    "/usr/libexec",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/libexec",
    "/usr/local/mysql/bin",
    "/usr/local/mysql/scripts",
    "/usr/local/mariadb/bin",
    "/usr/local/mariadb/scripts",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/mariadb/bin",
)

# Small and quick, for data that may be lost: nothing is synced to the disk, and there is no binlog.
# Options that some versions do not know any more are marked "loose": these versions ignore them.
FAST = (
    "--skip-log-bin",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--loose-innodb-flush-method=nosync",
    # Many containers forbid io_uring or run out of native requests.
    "--innodb-use-native-aio=0",
    "--max-connections=600",
    # Few, so that 600 connections fit into the 1024 files that a process may usually open.
    "--table-open-cache=200",
    "--table-open-cache-instances=1",
    # With a forgotten transaction, DROP DATABASE must fail, and not wait for a day.
    "--lock-wait-timeout=10",
)


class MariaDB(PrivateServer):
    """A private MariaDB server in a folder of its own.

    The administrator ``root`` logs in through the unix socket only, and the folder of the socket is closed to
    other users of the machine. ``poollife`` (password ``poollife``) has all privileges as well.
    """

    #: The number that every call of ``execute()`` adds to the global counter "Questions": SET NAMES when it
    #: connects, the statement, and the quit packet.
    QUESTIONS_PER_EXECUTE: ClassVar[int] = 3

    name = "MariaDB"

    _stop_signal = signal.SIGTERM
    _crash_signal = signal.SIGKILL

    def __init__(
        self,
        folder: Path | None = None,
        *,
        certificates: Certificates | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, certificates=certificates, options=options)
        # A folder of its own: a server that starts removes all temporary tables that it finds, other servers'
        # too.
        self._scratch = self.folder / "tmp"

    @staticmethod
    def find() -> Path | None:
        """Return the path of the server's binary, or None where there is none."""
        if found := which("mariadbd", FOLDERS):
            return found
        # Old MariaDB servers have this name, but so has Oracle's MySQL, which has other options.
        found = which("mysqld", FOLDERS)
        if found and "MariaDB" in _output(found, "--no-defaults", "--version"):
            return found
        return None

    # --- used by the tests ----------------------------------------------------------------------------

    def create_database(self, name: str) -> None:
        """Make an empty database, in place of the database of that name if there is one."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")

    def drop_database(self, name: str) -> None:
        """Remove a database, which must exist."""
        self.execute(f"DROP DATABASE `{name}`")

    def execute(self, sql: str, *args: Any, database: str = "") -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit mode, and return its rows.

        The method connects and disconnects for each statement: no connection is left that a forked child
        could inherit. At its return the server has counted all of it: ``QUESTIONS_PER_EXECUTE`` in
        "Questions" and one in "Connections". The connection is not one to the TCP port.

        :param sql: the statement.
        :param args: values for the placeholders ``%s``.
        :param database: the database to use; empty: none.
        """
        import MySQLdb  # here, so that find() works without it

        connection = MySQLdb.connect(
            unix_socket=str(self.socket), user="root", database=database, autocommit=True
        )
        with closed_afterwards(connection), closing(connection.cursor()) as cursor:
            cursor.execute(sql, args or None)
            return list(cursor.fetchall())

    def status(self, name: str) -> int:
        """Return a global counter of the server.

        "Questions" contains two of the call itself: between two calls without other statements the number
        grows by ``QUESTIONS_PER_EXECUTE``.

        :raises KeyError: if the server has no such counter.
        """
        rows = self.execute("SHOW GLOBAL STATUS WHERE Variable_name = %s", name)
        if not rows:
            raise KeyError(name)
        return int(rows[0][1])

    def aborted(self) -> int:
        """Return how many sessions have ended so far because the client was gone, without a quit packet."""
        return self.status("Aborted_clients")

    def sessions(self, user: str | None = None) -> list[Session]:
        """Return the open connections of ``user``, or of all users, except the administrator's own."""
        rows = self.execute(
            "SELECT ID, USER, DB, COMMAND, TIME, STATE, INFO FROM information_schema.PROCESSLIST"
            " WHERE USER NOT IN ('root', 'system user', 'event_scheduler') ORDER BY ID"
        )
        sessions = [Session(*row) for row in rows]
        return [session for session in sessions if user in (None, session.user)]

    def kill(self, session: int) -> None:
        """End a session, and wait until the server has ended it.

        :param session: its id, as in ``sessions()``.
        :raises MySQLdb.OperationalError: if there is no such session.
        """
        self.execute("KILL CONNECTION %s", session)
        deadline = time.monotonic() + STOP_SECONDS
        while any(each.id == session for each in self.sessions()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server has not ended session {session}")
            time.sleep(0.005)

    # --- the server's process ---------------------------------------------------------------------------

    def _address(self, via: Via) -> dict[str, Any]:
        """Return what a kind of connection changes in an entry of DATABASES."""
        if via == "socket":
            return {"HOST": str(self.socket), "PORT": ""}
        if via == "tls" and self.certificates:
            ca = str(self.certificates.ca)
            return {"OPTIONS": {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": ca}}}
        return {}

    def _make_folders(self) -> None:
        """Make the folder of temporary tables."""
        self._scratch.mkdir(exist_ok=True)

    def _make_data(self, data: Path) -> None:
        """Have the server's own tool make the system tables."""
        tool = which("mariadb-install-db", FOLDERS) or which("mysql_install_db", FOLDERS)
        if not tool:
            raise Missing("missing: mariadb-install-db; python3 tools/system_packages.py installs it")
        self._run_tool(
            [
                tool,
                "--no-defaults",
                *_as_root(),
                f"--datadir={data}",
                f"--tmpdir={self._scratch}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--force",  # without asking the DNS for this machine's name
                "--innodb-log-file-size=16M",
            ],
            data,
        )

    def _command(self) -> list[str]:
        """Return the server's command line; ``--no-defaults`` keeps /etc/mysql out and has to be first."""
        binary = self.find()
        if not binary:
            raise Missing("missing: a MariaDB server; python3 tools/system_packages.py installs one")
        users = self.folder / "users.sql"
        users.write_text(_users(self.user, self.password))
        command = [
            str(binary),
            "--no-defaults",
            *_as_root(),
            f"--datadir={self._data}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'server.pid'}",
            f"--tmpdir={self._scratch}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            f"--init-file={users}",
            # No user may read or write files of this machine with LOAD_FILE() or INTO OUTFILE.
            f"--secure-file-priv={self._data}",
            *FAST,
        ]
        if self.certificates:
            command += [
                f"--ssl-ca={self.certificates.ca}",
                f"--ssl-cert={self.certificates.cert}",
                f"--ssl-key={self.certificates.key}",
            ]
        return command

    def _answers(self) -> bool:
        """Return whether the administrator can run a statement."""
        import MySQLdb

        try:
            self.execute("SELECT 1")
        except MySQLdb.OperationalError:
            return False
        return True


def _users(user: str, password: str) -> str:
    """Return the statements by which the user may log in from each host, and root through the socket only."""
    # Each on one line, as --init-file requires it. The socket counts as "localhost": without an entry of its
    # own there, an anonymous user (some versions make one) would come before the entry for "%".
    statements = [
        "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'",
        "FLUSH PRIVILEGES",
    ]
    for host in ("%", "localhost"):
        statements.append(f"CREATE USER IF NOT EXISTS '{user}'@'{host}' IDENTIFIED BY '{password}'")
        statements.append(f"GRANT ALL PRIVILEGES ON *.* TO '{user}'@'{host}' WITH GRANT OPTION")
    return "".join(f"{statement};\n" for statement in statements)


def _as_root() -> list[str]:
    """Return the option without which the server refuses to run as root."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _output(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
