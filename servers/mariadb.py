"""A private MariaDB server."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from servers.certificates import Certificates
from servers.missing import Missing
from servers.ports import free_port

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

# A shell of its own runs this, for an owner that ends without cleaning up, for example by SIGKILL. Arguments:
# the owner, the server, and the folder to remove (empty: none).
GUARD = """
while kill -0 "$1" && kill -0 "$2"; do sleep 1; done
kill "$2"
while kill -0 "$2"; do sleep 1; done
[ -z "$3" ] || rm -rf "$3"
"""

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Session(NamedTuple):
    """A connection as the server sees it."""

    id: int
    user: str
    db: str | None
    command: str
    seconds: int
    state: str | None
    info: str | None


class MariaDB:
    """A private MariaDB server in a folder of its own.

    The server belongs to the process that starts it, and does not outlive that process. ``stop()`` runs at
    the end of the ``with`` block and at exit. If the process is killed, a guard ends the server within
    seconds. In children forked from that process ``stop()`` does nothing, so they may exit in any way.

    The administrator ``root`` logs in through the unix socket only, and the folder of the socket is closed to
    other users of the machine. ``poollife`` (password ``poollife``) has all privileges as well, and may use
    each of the connections that ``database()`` describes.
    """

    #: The number that every call of ``execute()`` adds to the global counter "Questions": SET NAMES when it
    #: connects, the statement, and the quit packet.
    QUESTIONS_PER_EXECUTE: ClassVar[int] = 3

    #: System tables as the server's tool made them, for copies.
    _made: ClassVar[Path | None] = None

    host = "127.0.0.1"
    user = "poollife"
    password = "poollife"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        certificates: Certificates | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare a server; ``start()`` starts it.

        :param folder: the folder of the server. Its data stay, and the next ``start()`` finds them again.
            None: a temporary folder, which ``stop()`` removes.
        :param certificates: for TLS; None: the server has no TLS.
        :param options: of the server; they come last on the command line.
        """
        self._temporary = folder is None
        self.folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="poollife-"))
        self.socket = self.folder / "server.sock"
        self.port = free_port(self.host)
        self.certificates = certificates
        self.options = tuple(options)
        self._data = self.folder / "data"
        # A folder of its own: a server that starts removes all temporary tables that it finds, other servers'
        # too.
        self._scratch = self.folder / "tmp"
        self._log = self.folder / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.stop)

    # --- life cycle ---------------------------------------------------------------------------------

    @staticmethod
    def find() -> Path | None:
        """Return the path of the server's binary, or None where there is none."""
        if found := _which("mariadbd"):
            return found
        # Old MariaDB servers have this name, but so has Oracle's MySQL, which has other options.
        found = _which("mysqld")
        if found and "MariaDB" in _output(found, "--no-defaults", "--version"):
            return found
        return None

    def start(self) -> MariaDB:
        """Make the data where there are none yet, start the server and wait until it answers.

        :returns: the server itself.
        :raises RuntimeError: if it runs already, is not installed, or does not start within a minute.
        :raises ValueError: if the path of its folder is too long for a unix socket.
        """
        if self._server:
            raise RuntimeError("the server runs already")
        # The kernel's limit is 108 bytes (104 on some systems). A longer path has no error of its own.
        if len(os.fsencode(self.socket)) >= 100:
            raise ValueError(f"too long for the path of a unix socket: {self.socket}")
        self._owner = os.getpid()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._scratch.mkdir(exist_ok=True)
            command = self._command()
            if not self._data.exists():
                self._initialise()
            self._launch(command)
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server, and remove the folder if it is a temporary one. A second call does nothing."""
        if os.getpid() != self._owner:
            return  # a forked child: neither the server nor the folder is its own
        self._halt()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> None:
        """End the server and start it again, with the same data and port. All connections end."""
        self._halt()
        self._launch(self._command())
        self._wait()

    def __enter__(self) -> MariaDB:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- used by the tests ----------------------------------------------------------------------------

    def database(self, name: str, *, via: Literal["tcp", "socket", "tls"] = "tcp") -> dict[str, Any]:
        """Return an entry for Django's DATABASES, without its ENGINE.

        :param name: the database.
        :param via: the kind of connection.
        :raises ValueError: for "tls", if the server has no certificates.
        """
        settings: dict[str, Any] = {
            "NAME": name,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
            "OPTIONS": {},
        }
        if via == "socket":
            settings |= {"HOST": str(self.socket), "PORT": ""}
        elif via == "tls":
            if not self.certificates:
                raise ValueError("the server has no certificates")
            settings["OPTIONS"] = {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": str(self.certificates.ca)}}
        return settings

    def create_database(self, name: str) -> None:
        """Make an empty database, in place of the database of that name if there is one."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")

    def execute(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit mode, and return its rows.

        The method connects and disconnects for each statement: no connection is left that a forked child
        could inherit. At its return the server has counted all of it: ``QUESTIONS_PER_EXECUTE`` in
        "Questions" and one in "Connections". The connection is not one to the TCP port.
        """
        import MySQLdb  # here, so that find() works without it

        connection = MySQLdb.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(sql, args or None)
                return list(cursor.fetchall())
        finally:
            # The server counts the quit packet after the client has gone. Wait until the server has closed
            # its end of the socket: otherwise the counters may be read too early.
            with socket.socket(fileno=os.dup(connection.fileno())) as line:
                connection.close()
                line.settimeout(STOP_SECONDS)
                while line.recv(4096):
                    pass

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

    def sessions(self, user: str | None = None) -> list[Session]:
        """Return the open connections of ``user``, or of all users, except the administrator's own."""
        rows = self.execute(
            "SELECT ID, USER, DB, COMMAND, TIME, STATE, INFO FROM information_schema.PROCESSLIST"
            " WHERE USER NOT IN ('root', 'system user', 'event_scheduler') ORDER BY ID"
        )
        sessions = [Session(*row) for row in rows]
        return [session for session in sessions if user in (None, session.user)]

    # --- the server's process ---------------------------------------------------------------------------

    def _initialise(self) -> None:
        """Copy the system tables that an earlier server of this process has made, or make them.

        Making them takes a second. They are kept in the folder of the server that has made them, and go with
        that folder.
        """
        if not self._temporary:
            self._make_system_tables(self._data)
            return
        if not (MariaDB._made and MariaDB._made.exists()):
            made = self.folder / "tables"
            self._make_system_tables(made)
            MariaDB._made = made
        shutil.copytree(MariaDB._made, self._data)

    def _make_system_tables(self, data: Path) -> None:
        """Have the server's own tool make them."""
        tool = _which("mariadb-install-db") or _which("mysql_install_db")
        if not tool:
            raise Missing("missing: mariadb-install-db; python3 tools/system_packages.py installs it")
        done = subprocess.run(
            [
                str(tool),
                "--no-defaults",
                *_as_root(),
                f"--datadir={data}",
                f"--tmpdir={self._scratch}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--force",  # without asking the DNS for this machine's name
                "--innodb-log-file-size=16M",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            # The next start() would take incomplete data for complete data.
            shutil.rmtree(data, ignore_errors=True)
            # The output begins with the reason, and ends with advice that is always the same.
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout[:4000]}")

    def _launch(self, command: Sequence[str]) -> None:
        """Start the server's process, and the guard that ends it if this process is killed."""
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # only the owner handles Ctrl-C at the terminal
            )
        folder = str(self.folder) if self._temporary else ""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._owner), str(self._server.pid), folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
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
        return [*command, *self.options]

    def _wait(self) -> None:
        """Wait until the server answers."""
        import MySQLdb

        assert self._server
        deadline = time.monotonic() + START_SECONDS
        while self._server.poll() is None and time.monotonic() < deadline:
            try:
                self.execute("SELECT 1")
                return
            except MySQLdb.OperationalError:
                time.sleep(0.02)
        log = self._log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"MariaDB did not start (exit status {self._server.returncode}):\n{log}")

    def _halt(self) -> None:
        """End the guard, and then the server.

        In the other order the guard could signal a process that has got the server's old id.
        """
        for process in (self._guard, self._server):
            if process:
                _end(process)
        self._guard = self._server = None


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


def _which(name: str) -> Path | None:
    """Return the program's path, from PATH or one of the usual folders."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def _output(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it end if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
