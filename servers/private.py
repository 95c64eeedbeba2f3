"""The life of a private database server: its folder, its process, and the guard that ends it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from servers.certificates import Certificates
from servers.ports import free_port

#: A kind of connection.
Via = Literal["tcp", "socket", "tls"]

# A shell of its own runs this, for an owner that ends without cleaning up, for example by SIGKILL. Arguments:
# the owner, the server, the folder to remove (empty: none), and the signal that ends the server.
GUARD = """
while kill -0 "$1" && kill -0 "$2"; do sleep 1; done
kill -s "$4" "$2"
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
    #: MariaDB: the command that runs, or "Sleep". PostgreSQL: "active", "idle", "idle in transaction", ...
    command: str
    #: Seconds since ``command`` has this value.
    seconds: int
    #: MariaDB: the step of the command. PostgreSQL: the event that the session waits for.
    state: str | None
    #: The statement that runs. PostgreSQL: or the one that ran last.
    info: str | None

    @property
    def is_idle(self) -> bool:
        """True while the session runs nothing. PostgreSQL: and has no transaction open."""
        return self.command in ("Sleep", "idle")


class PrivateServer(ABC):
    """A private database server in a folder of its own.

    The server belongs to the process that starts it, and does not outlive that process. ``stop()`` runs at
    the end of the ``with`` block and at exit. If the process is killed, a guard ends the server within
    seconds. In children forked from that process ``stop()`` does nothing, so they may exit in any way.

    The administrator logs in through the unix socket only, and the socket is closed to other users of the
    machine. ``poollife`` may use each of the connections that ``database()`` describes.
    """

    #: The product, for messages.
    name: ClassVar[str]

    #: The signal that ends the server and its sessions in an orderly way.
    _stop_signal: ClassVar[signal.Signals]
    #: The signal that ends it at once, as a crash does.
    _crash_signal: ClassVar[signal.Signals]

    #: Data of a new server, for copies.
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
        self._log = self.folder / "server.log"
        #: Arguments of Popen by which the server and its tools run as another user than this process.
        self._identity: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.stop)

    # --- life cycle ---------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def find() -> Path | None:
        """Return the path of the server's binary, or None where there is none."""

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None while it does not run."""
        return self._server.pid if self._server else None

    def start(self) -> Self:
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
            self._make_folders()
            command = self._command()
            if not self._data.exists():
                self._initialise()
            self._launch(command)
            self._wait()
            self._make_users()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, *, immediate: bool = False) -> None:
        """End the server, and remove the folder if it is a temporary one. A second call does nothing.

        :param immediate: end the server as a crash does: the commits of the last second may be lost. False:
            the server first ends its sessions.
        """
        if os.getpid() != self._owner:
            return  # a forked child: neither the server nor the folder is its own
        self._halt(immediate=immediate)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, *, immediate: bool = False) -> None:
        """End the server and start it again, with the same data and port. All connections end.

        :param immediate: end the server as a crash does: the commits of the last second may be lost.
        """
        self._halt(immediate=immediate)
        self._launch(self._command())
        self._wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- used by the tests ----------------------------------------------------------------------------

    def database(self, name: str, *, via: Via = "tcp") -> dict[str, Any]:
        """Return an entry for Django's DATABASES, without its ENGINE.

        :param name: the database.
        :param via: the kind of connection.
        :raises ValueError: for "tls", if the server has no certificates.
        """
        if via == "tls" and not self.certificates:
            raise ValueError("the server has no certificates")
        settings: dict[str, Any] = {
            "NAME": name,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
            "OPTIONS": {},
        }
        return settings | self._address(via)

    @abstractmethod
    def create_database(self, name: str) -> None:
        """Make an empty database, in place of the database of that name if there is one."""

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Remove a database, which must exist."""

    @abstractmethod
    def execute(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit mode, and return its rows.

        The method connects and disconnects for each statement: no connection is left that a forked child
        could inherit. The connection is not one to the TCP port. At the return the server has closed it.
        """

    @abstractmethod
    def sessions(self, user: str | None = None) -> list[Session]:
        """Return the open connections of ``user``, or of all users, except the administrator's own."""

    @abstractmethod
    def kill(self, session: int) -> None:
        """End a session, and wait until the server has ended it.

        :param session: its id, as in ``sessions()``.
        """

    # --- parts that differ ------------------------------------------------------------------------------

    @abstractmethod
    def _address(self, via: Via) -> dict[str, Any]:
        """Return what a kind of connection changes in an entry of DATABASES."""

    @abstractmethod
    def _make_folders(self) -> None:
        """Make what the server needs in its folder, beside the data."""

    @abstractmethod
    def _make_data(self, data: Path) -> None:
        """Have the server's own tool make the data of a new server in a folder, which does not exist yet."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command line, and write the files that it names."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the administrator can run a statement."""

    def _make_users(self) -> None:
        """Let ``poollife`` log in, where the server does not do so as it starts."""

    # --- the server's process ---------------------------------------------------------------------------

    def _initialise(self) -> None:
        """Copy the data that an earlier server of this process has made, or make them.

        Making them takes a second. They are kept in the folder of the server that has made them, and go with
        that folder.
        """
        if not self._temporary:
            self._make_data(self._data)
            return
        kind = type(self)
        if not (kind._made and kind._made.exists()):
            made = self.folder / "new"
            self._make_data(made)
            kind._made = made
        # Root keeps the owner of each file with -p: the data may belong to the user of the server.
        subprocess.run(["cp", "-Rp", kind._made, self._data], check=True)

    def _run_tool(self, command: Sequence[str | Path], data: Path) -> None:
        """Run the server's tool that makes the data.

        :raises RuntimeError: if it fails. Incomplete data are removed: the next ``start()`` would take them
            for complete.
        """
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self._identity,
        )
        if done.returncode:
            shutil.rmtree(data, ignore_errors=True)
            # The output begins with the reason, and may end with advice that is always the same.
            raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout[:4000]}")

    def _launch(self, command: Sequence[str]) -> None:
        """Start the server's process, and the guard that ends it if this process is killed."""
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [*command, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # only the owner handles Ctrl-C at the terminal
                **self._identity,
            )
        folder = str(self.folder) if self._temporary else ""
        self._guard = subprocess.Popen(
            guard_command(self._owner, self._server.pid, folder, self._stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait(self) -> None:
        """Wait until the server answers."""
        assert self._server
        deadline = time.monotonic() + START_SECONDS
        while self._server.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.02)
        log = self._log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"{self.name} did not start (exit status {self._server.returncode}):\n{log}")

    def _halt(self, *, immediate: bool = False) -> None:
        """End the guard, and then the server.

        In the other order the guard could signal a process that has got the server's old id.
        """
        if self._guard:
            _end(self._guard, signal.SIGTERM)
        if self._server:
            _end(self._server, self._crash_signal if immediate else self._stop_signal)
        self._guard = self._server = None


def guard_command(
    owner: int, server: int, folder: str = "", end: signal.Signals = signal.SIGTERM
) -> list[str]:
    """Return the command of the guard.

    :param owner: the process whose end the guard waits for.
    :param server: the process that the guard ends then.
    :param folder: the folder that it removes afterwards; empty: none.
    :param end: the signal that ends the server.
    """
    return ["/bin/sh", "-c", GUARD, "guard", str(owner), str(server), folder, end.name.removeprefix("SIG")]


@contextmanager
def closed_afterwards(connection: Any) -> Iterator[Any]:
    """Close a driver connection at the block's end, and wait until the server has closed it too.

    A server takes note of the end after the client has gone. Otherwise its counters and its list of sessions
    may be read too early.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        try:
            yield connection
        finally:
            connection.close()
            line.settimeout(STOP_SECONDS)
            while line.recv(4096):
                pass


def which(name: str, folders: Sequence[str] = ()) -> Path | None:
    """Return the program's path, from PATH or one of the folders."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ask a process to end, and make it end if it does not."""
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
