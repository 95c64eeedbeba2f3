"""A private PostgreSQL server."""

from __future__ import annotations

import importlib
import os
import pwd
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from servers.certificates import Certificates
from servers.missing import Missing
from servers.private import PrivateServer, Session, Via, closed_afterwards
from servers.program import other_user, which

# Where distributions, Homebrew and a build from source put the server and its tools: PATH seldom has them.
FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/usr/local/pgsql", "bin"),
    ("/usr/local/opt", "postgresql*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
)

# Small and quick, for data that may be lost: nothing is synced to the disk, and no process works in the
# background on its own.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "300",
    # Django does not use two-phase commit, but a borrower may.
    "max_prepared_transactions": "10",
    # The name that Django compares with. The system may call it "Etc/UTC".
    "timezone": "UTC",
    "password_encryption": "scram-sha-256",
}

ADMINISTRATOR = "postgres"

# The administrator is the user of the system that has started the server ("peer"). So it does not matter
# which user the server runs as, and there is no password of the administrator that could be guessed.
LOGINS = f"""\
local all {ADMINISTRATOR} peer map=owner
local all all scram-sha-256
host all {ADMINISTRATOR} all reject
host all all all scram-sha-256
host replication all all scram-sha-256
"""

#: Options of a server that is to have a standby.
REPLICATES = ("--wal_level=replica", "--max_wal_senders=2")


class PostgreSQL(PrivateServer):
    """A private PostgreSQL server in a folder of its own.

    The administrator ``postgres`` logs in through the unix socket only, and only as the system's user that
    has started the server. ``poollife`` (password ``poollife``) owns the databases that ``create_database()``
    makes, and may make others, read all settings and statistics and end sessions.

    PostgreSQL refuses to run as root. Where root starts it, it runs as ``nobody``. Then the folders above its
    own must be open to that user; pytest's ``tmp_path`` is not.
    """

    name = "PostgreSQL"

    # "Fast shutdown" and "immediate shutdown". SIGTERM would wait until the last client has gone.
    _stop_signal = signal.SIGINT
    _crash_signal = signal.SIGQUIT

    def __init__(
        self,
        folder: Path | None = None,
        *,
        certificates: Certificates | None = None,
        options: Sequence[str] = (),
        superuser: bool = False,
    ) -> None:
        """Prepare a server; ``start()`` starts it.

        :param folder: the folder of the server. Its data stay, and the next ``start()`` finds them again.
            None: a temporary folder, which ``stop()`` removes.
        :param certificates: for TLS; None: the server has no TLS.
        :param options: of the server, such as ``--work_mem=8MB``; they come last on the command line.
        :param superuser: make ``poollife`` a superuser, with a password that is drawn anew. A superuser may
            run programs as the user of the server, so other users of the machine must not know the password.
        """
        super().__init__(folder, certificates=certificates, options=options)
        self.superuser = superuser
        #: The server that this one follows until it is promoted.
        self.primary: PostgreSQL | None = None
        if superuser:
            self.password = secrets.token_urlsafe(16)
        self._identity = other_user()
        # The server's user owns this folder and the data, and nothing else that this process writes to.
        self._run = self.folder / "run"
        self.socket = self._run / f".s.PGSQL.{self.port}"

    @staticmethod
    def find() -> Path | None:
        """Return the path of the server's binary, or None where there is none.

        A server on PATH comes first, and otherwise the newest of the usual folders.
        """
        if found := which("postgres"):
            return found
        found_in = [path / "postgres" for root, each in FOLDERS for path in Path(root).glob(each)]
        return max(filter(Path.is_file, found_in), key=_version, default=None)

    # --- used by the tests ----------------------------------------------------------------------------

    def create_database(self, name: str) -> None:
        """Make an empty database, in place of the database of that name if there is one."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {_quoted(name)} OWNER {self.user}")

    def drop_database(self, name: str) -> None:
        """Remove a database, which must exist, and end its sessions."""
        self.execute(f"DROP DATABASE {_quoted(name)} WITH (FORCE)")

    def execute(self, sql: str, *args: Any, database: str = ADMINISTRATOR) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit mode, and return its rows.

        The method connects and disconnects for each statement: no connection is left that a forked child
        could inherit. The connection is not one to the TCP port. At the return the server has closed it.

        :param sql: the statement. Without ``args`` it may be several.
        :param args: values for the placeholders ``%s``.
        :param database: the database to connect to.
        :raises Missing: if neither psycopg nor psycopg2 is installed.
        """
        connection = driver_module().connect(
            host=str(self._run), port=self.port, user=ADMINISTRATOR, dbname=database
        )
        with closed_afterwards(connection):
            connection.autocommit = True
            with closing(connection.cursor()) as cursor:
                cursor.execute(sql, args or None)
                return list(cursor.fetchall()) if cursor.description else []

    def aborted(self) -> int:
        """Return how many sessions have ended so far because the client was gone, without a quit packet.

        From PostgreSQL 15 on, a session that is not in ``sessions()`` any more has been counted.
        """
        ((number,),) = self.execute("SELECT sum(sessions_abandoned)::integer FROM pg_stat_database")
        return int(number)

    def sessions(self, user: str | None = None) -> list[Session]:
        """Return the open connections of ``user``, or of all users, the oldest first.

        The administrator's own are left out.
        """
        rows = self.execute(
            "SELECT pid, usename, datname, coalesce(state, ''),"
            " coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::integer, wait_event, query"
            " FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> %s"
            " ORDER BY backend_start, pid",
            ADMINISTRATOR,
        )
        sessions = [Session(*row) for row in rows]
        return [session for session in sessions if user in (None, session.user)]

    def kill(self, session: int) -> None:
        """End a session, and wait until the server has ended it.

        :param session: its id, as in ``sessions()``.
        :raises LookupError: if there is no such session.
        """
        # The session asks for its end when it comes round to it. The second argument waits, milliseconds.
        if self.execute("SELECT pg_terminate_backend(%s, 20000)", session) != [(True,)]:
            raise LookupError(f"the server has no session {session}, or has not ended it")

    def standby(self) -> PostgreSQL:
        """Return a standby of this server, which is to be started while this server runs.

        Its data are a copy by ``pg_basebackup``, and it follows this server's changes until it is told to
        ``SELECT pg_promote()``. This server needs the options ``REPLICATES``.
        """
        standby = type(self)(options=self.options)
        standby.primary = self
        return standby

    # --- the server's process ---------------------------------------------------------------------------

    def _address(self, via: Via) -> dict[str, Any]:
        """Return what a kind of connection changes in an entry of DATABASES.

        Clients encrypt a TCP connection on their own where the server offers it: hence "disable".
        "verify-full" with an IP address needs libpq 15.
        """
        if via == "socket":
            return {"HOST": str(self._run)}
        if via == "tls" and self.certificates:
            ca = str(self.certificates.ca)
            return {"OPTIONS": {"sslmode": "verify-full", "sslrootcert": ca}}
        return {"OPTIONS": {"sslmode": "disable"}}

    def _make_folders(self) -> None:
        """Make the folder of the socket, and let the server's user through to it.

        :raises ValueError: if that user can't reach it.
        """
        self._open_folder()
        self._make_folder(self._run)
        command = ["/bin/sh", "-c", 'test -w "$1"', "sh", str(self._run)]
        if subprocess.run(command, **self._identity).returncode:
            raise ValueError(
                f"PostgreSQL does not run as root, and the user nobody can't reach {self.folder}:"
                " one of the folders above it is closed"
            )

    def _make_folder(self, path: Path) -> None:
        """Make a folder that only the server's user may use."""
        path.mkdir(mode=0o700, exist_ok=True)
        self._hand_over(path)

    def _initialise(self) -> None:
        """Copy the data of the primary, or have new ones."""
        if self.primary is None:
            super()._initialise()
            return
        self.primary.execute(f"ALTER ROLE {self.user} REPLICATION")
        self._make_folder(self._data)
        address = f"host={self.host} port={self.primary.port} user={self.user} password={self.password}"
        command: list[str | Path] = [
            self._tool("pg_basebackup"),
            f"--pgdata={self._data}",
            f"--dbname={address}",
            "--write-recovery-conf",  # the copy follows its primary
            "--checkpoint=fast",
            "--wal-method=fetch",
            "--no-sync",
        ]
        self._run_tool(command, self._data)

    def _tool(self, name: str) -> Path:
        """Return the path of a tool of the server's.

        :raises Missing: if it is not installed.
        """
        # On PATH there may be a link to the server alone.
        tool = self._binary().resolve().with_name(name)
        if not tool.exists():
            raise Missing(f"missing: {tool}; python3 tools/system_packages.py installs it")
        return tool

    def _make_data(self, data: Path) -> None:
        """Have initdb make the databases of the server itself.

        All sorts by bytes, messages are in English, and the functions of texts know all letters.
        """
        initdb = self._tool("initdb")
        self._make_folder(data)
        command: list[str | Path] = [
            initdb,
            f"--pgdata={data}",
            f"--username={ADMINISTRATOR}",
            "--encoding=UTF8",
            "--locale=C",
            f"--lc-ctype={'en_US.UTF-8' if sys.platform == 'darwin' else 'C.UTF-8'}",
            "--auth=reject",  # the server is given another file of logins
            "--no-sync",
        ]
        self._run_tool(command, data)

    def _command(self) -> list[str]:
        """Return the server's command line, and write the files that it names."""
        driver_module()  # it is needed to see whether the server answers
        owner = pwd.getpwuid(os.geteuid()).pw_name
        settings = {
            **FAST,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self._run),
            "unix_socket_permissions": "0700",
            "external_pid_file": str(self._run / "server.pid"),
            "hba_file": self._write("logins.conf", LOGINS),
            "ident_file": self._write("owner.conf", f'owner "{owner}" {ADMINISTRATOR}\n'),
        }
        if self.certificates:
            # Copies, as the server's user may not read the folder of the originals, and must own the key.
            settings |= {
                "ssl": "on",
                "ssl_cert_file": self._write("cert.pem", self.certificates.cert.read_text()),
                "ssl_key_file": self._write("key.pem", self.certificates.key.read_text()),
            }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._binary()), "-D", str(self._data), *options]

    def _binary(self) -> Path:
        """Return the path of the server's binary.

        :raises Missing: if there is none.
        """
        if binary := self.find():
            return binary
        raise Missing("missing: a PostgreSQL server; python3 tools/system_packages.py installs one")

    def _answers(self) -> bool:
        """Return whether the administrator can run a statement."""
        try:
            self.execute("SELECT 1")
        except driver_module().OperationalError:
            return False
        return True

    def _make_users(self) -> None:
        """Let ``poollife`` log in. Data that were kept may have another password."""
        if self.primary:
            return  # it has the users of its primary
        kind = "SUPERUSER" if self.superuser else "NOSUPERUSER"
        self.execute(
            f"DO $$ BEGIN IF to_regrole('{self.user}') IS NULL THEN CREATE ROLE {self.user}; END IF; END $$;"
            f" ALTER ROLE {self.user} LOGIN {kind} CREATEDB PASSWORD '{self.password}';"
            f" GRANT pg_monitor, pg_signal_backend TO {self.user}"
        )


def driver_module() -> Any:
    """Return the module psycopg, or psycopg2 where that is missing.

    It is imported here, so that ``find()`` works without it, and programs of gevent can patch first.

    :raises Missing: if both are missing.
    """
    for name in ("psycopg", "psycopg2"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise Missing("missing: psycopg or psycopg2; pip install 'poollife[postgresql]' installs one")


def _version(binary: Path) -> tuple[int, ...]:
    """Return the version in the path of a binary, such as (9, 6); () where there is none."""
    found = re.search(r"[-@/](\d+(?:\.\d+)?)/bin/", str(binary))
    return tuple(map(int, found[1].split("."))) if found else ()


def _quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
