"""The process of the stand-in: it listens for clients on a port, and for its owner on a unix socket."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from servers.oracle.database import Handle, Store
from servers.oracle.session import Session

#: The number of sessions that may be open, unless the owner says otherwise.
LIMIT = 1000


class Listener:
    """The part of the server that all sessions share. A lock guards the sessions and the log."""

    def __init__(self, folder: Path, port: int, user: str, password: str, certificate: str, key: str) -> None:
        self.store = Store(folder, user, password)
        self.limit = LIMIT
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._connections = 0
        self._last = 0
        self._log: list[tuple[int, str, str]] = []
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, key)
        self._ports = [socket.create_server(("127.0.0.1", port))]
        if certificate:
            self._ports.append(socket.create_server(("127.0.0.1", 0)))

    @property
    def tls_port(self) -> int:
        """The port for TLS; 0: there is none."""
        return int(self._ports[1].getsockname()[1]) if self._context else 0

    def serve(self) -> None:
        """Begin to accept clients."""
        for port, context in zip(self._ports, (None, self._context), strict=False):
            threading.Thread(target=self._accept, args=(port, context), daemon=True).start()

    def _accept(self, port: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            connection, _ = port.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections += 1
            threading.Thread(target=Session(self, connection, context).run, daemon=True).start()

    # --- for the sessions -------------------------------------------------------------------------------

    def enter(self, session: Session) -> int:
        with self._lock:
            self._last += 1
            self._sessions[self._last] = session
            return self._last

    def leave(self, session: Session) -> None:
        with self._lock:
            self._connections -= 1
            self._sessions.pop(session.number, None)

    def log(self, session: int, call: str, text: str = "") -> None:
        with self._lock:
            self._log.append((session, call, text))

    def is_full(self) -> bool:
        with self._lock:
            return self._connections > self.limit

    # --- for the owner ----------------------------------------------------------------------------------

    def sessions(self) -> list[tuple[Any, ...]]:
        """Return the sessions, as the owner asks for them."""
        with self._lock:
            return [
                (number, each.user, each.database, each.doing, each.statement)
                for number, each in self._sessions.items()
            ]

    def calls(self, since: int = 0) -> list[tuple[int, str, str]]:
        """Return the calls that have arrived: the session, the call and its text."""
        with self._lock:
            return self._log[since:]

    def kill(self, session: int) -> None:
        """End a session."""
        with self._lock:
            found = self._sessions.get(session)
        if found:
            found.kill()

    def fail(self, session: int, code: int, text: str) -> None:
        """Have an error answer the next call of a session."""
        self._sessions[session].next_error = code, text

    def set_limit(self, limit: int | None = None) -> None:
        """Allow so many sessions; None: as many as at the beginning."""
        self.limit = LIMIT if limit is None else limit

    def set_password(self, user: str, password: str) -> None:
        """Change a user's password."""
        self.store.users[user.upper()] = password

    def execute(self, database: str, user: str, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement for the owner, and commit."""
        handle = Handle(self.store, database, user.upper(), 0, lambda: None)
        try:
            return handle.execute(sql, [[]], True).rows
        finally:
            handle.close()

    def create(self, database: str) -> None:
        """Make an empty database."""
        self.store.create(database)

    def know(self, database: str) -> None:
        """Serve a database of the last run."""
        self.store.databases.add(database)

    def drop(self, database: str) -> None:
        """Remove a database."""
        self.store.drop(database)


def control(listener: Listener, path: str) -> None:
    """Answer the owner: each line is a method of the listener's and its arguments, as JSON."""
    server = socket.socket(socket.AF_UNIX)
    Path(path).unlink(missing_ok=True)
    server.bind(path)
    server.listen()
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as lines:
            name, *arguments = json.loads(lines.readline())
            answer: dict[str, Any]
            try:
                method: Callable[..., Any] | Any = getattr(listener, name)
                answer = {"is": method(*arguments) if callable(method) else method}
            except Exception as error:
                answer = {"error": str(error)}
            lines.write(json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Run until a signal comes."""

    def end(*_: object) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    folder, port, user, password, certificate, key = sys.argv[1:7]
    listener = Listener(Path(folder), int(port), user, password, certificate, key)
    listener.serve()
    control(listener, str(Path(folder) / "server.sock"))


if __name__ == "__main__":
    main()
