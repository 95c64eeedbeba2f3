"""A private database server: its data, and what the tests ask of each kind of server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from servers.certificates import Certificates
from servers.program import STOP_SECONDS, PrivateProgram

#: A kind of connection.
Via = Literal["tcp", "socket", "tls"]


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


class PrivateServer(PrivateProgram):
    """A private database server in a folder of its own.

    The administrator logs in through the unix socket only, and the socket is closed to other users of the
    machine. ``poollife`` may use each of the connections that ``database()`` describes.
    """

    #: Data of a new server, for copies.
    _made: ClassVar[Path | None] = None

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
        super().__init__(folder, options=options)
        self.socket = self.folder / "server.sock"
        self.certificates = certificates
        self._data = self.folder / "data"

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
    def execute(self, sql: str, *args: Any, database: str = ...) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, in autocommit mode, and return its rows.

        The method connects and disconnects for each statement: no connection is left that a forked child
        could inherit. The connection is not one to the TCP port. At the return the server has closed it.

        :param sql: the statement.
        :param args: values for the placeholders ``%s``.
        :param database: the database to connect to.
        """

    @abstractmethod
    def aborted(self) -> int:
        """Return how many sessions have ended so far because the client was gone, without a quit packet."""

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
    def _make_data(self, data: Path) -> None:
        """Have the server's own tool make the data of a new server in a folder, which does not exist yet."""

    def _make_users(self) -> None:
        """Let ``poollife`` log in, where the server does not do so as it starts."""

    # --- the server's process ---------------------------------------------------------------------------

    def _check_folder(self) -> None:
        """Refuse a path that is too long for a unix socket.

        :raises ValueError: then.
        """
        # The kernel's limit is 108 bytes (104 on some systems). A longer path has no error of its own.
        if len(os.fsencode(self.socket)) >= 100:
            raise ValueError(f"too long for the path of a unix socket: {self.socket}")

    def _prepare(self) -> None:
        """Make the data where there are none yet, start the server, and let its user log in."""
        self._make_folders()
        command = self._command()
        if not self._data.exists():
            self._initialise()
        self._launch(command)
        self._wait()
        self._make_users()

    def _initialise(self) -> None:
        """Copy the data that an earlier server of this process has made, or make them.

        Making them takes a second. They are kept in the folder of the server that has made them, and go with
        that folder.
        """
        if not self._temporary:
            self._make_data(self._data)
            return
        kind = type(self)
        # Not those of a base class: a node of a cluster begins with other data than a server alone.
        made = vars(kind).get("_made")
        if not (made and made.exists()):
            made = self.folder / "new"
            self._make_data(made)
            kind._made = made
        # Root keeps the owner of each file with -p: the data may belong to the user of the server.
        subprocess.run(["cp", "-Rp", made, self._data], check=True)

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
