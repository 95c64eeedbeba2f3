"""A proxy that reads the protocol of PostgreSQL's clients and counts their messages."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servers.proxy import Proxy

#: The names of messages by their first byte.
KINDS = {
    b"Q": "Query",
    b"P": "Parse",
    b"B": "Bind",
    b"D": "Describe",
    b"E": "Execute",
    b"C": "Close",
    b"H": "Flush",
    b"S": "Sync",
    b"F": "FunctionCall",
    b"d": "CopyData",
    b"c": "CopyDone",
    b"f": "CopyFail",
    b"p": "Password",
    b"X": "Terminate",
}
#: The names of the messages at the beginning of a connection, which have a number and no first byte.
REQUESTS = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}
#: The messages that the server answers with ReadyForQuery: the client sends one and waits.
WAITS = ("Query", "Sync", "FunctionCall")
#: The first byte of a TLS handshake.
TLS = 0x16


@dataclass
class Count:
    """Messages that clients have sent."""

    #: The number of messages of each kind, such as "Query", "Sync", "Startup" or "CancelRequest".
    kinds: Counter[str] = field(default_factory=Counter)
    #: The texts of Query and Parse messages, in the order in which they came.
    texts: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of round trips: Query, Sync and FunctionCall messages.

        Parse, Bind, Describe, Execute and Close go together with the Sync that follows them. The messages of
        a login, of COPY data and of the end of a connection do not count.
        """
        return sum(self.kinds[kind] for kind in WAITS)

    def add(self, kind: str, text: str | None) -> None:
        """Count one message."""
        self.kinds[kind] += 1
        if text is not None:
            self.texts.append(text)


class PacketProxy(Proxy):
    """A proxy in front of a PostgreSQL server that counts what clients send.

    ``with proxy.counting() as count: ...``, then ``count.total``, ``count.kinds`` and ``count.texts``.

    A message is counted before the server receives it. So a client that has its answer has been counted.
    Only the end of a connection has no answer: a count of "Terminate" may come late.

    Connections must not be encrypted (``sslmode=disable``): ``counting()`` raises RuntimeError if one is.

    ``connection.cancel()`` of psycopg 3 keeps the interpreter's lock while it waits. So it hangs where the
    proxy runs in the process of the client. ``cancel_safe()`` does not.

    A lock guards the counts and the unfinished messages: each connection has a thread of its own.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepare a proxy.

        :param host: the server's host.
        :param port: the server's port.
        """
        super().__init__(host, port)
        self._lock = threading.Lock()
        self._all = Count()
        self._counts = [self._all]
        self._streams: dict[socket.socket, _Stream] = {}

    @property
    def packets(self) -> int:
        """Number of round trips of all clients since the proxy was made."""
        with self._lock:
            return self._all.total

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the messages of all clients during the block.

        :returns: the count, which grows during the block.
        :raises RuntimeError: if a client has encrypted its connection.
        """
        count = Count()
        with self._lock:
            self._counts.append(count)
        try:
            yield count
        finally:
            with self._lock:
                # By identity: two counts that are equal are not the one.
                self._counts = [each for each in self._counts if each is not count]
        if count.kinds["TLS"]:
            raise RuntimeError("a client has encrypted its connection; sslmode=disable prevents that")

    def hear(self, client: socket.socket, data: bytes) -> None:
        """Count the messages that are complete with these data."""
        with self._lock:
            stream = self._streams.setdefault(client, _Stream())
            for kind, text in stream.messages(data):
                for count in self._counts:
                    count.add(kind, text)


class _Stream:
    """The messages of one connection, from pieces of data that end anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._has_begun = False
        self._is_encrypted = False

    def messages(self, data: bytes) -> Iterator[tuple[str, str | None]]:
        """Yield the kind and the text of each message that is complete with these data."""
        self._rest += data
        while not self._is_encrypted and (message := self._first()):
            yield message

    def _first(self) -> tuple[str, str | None] | None:
        """Take the first message, or None if it is not complete."""
        if not self._has_begun and self._rest[:1] == bytes([TLS]):
            self._is_encrypted = True
            return "TLS", None
        # A length counts itself, but not the byte before it.
        prefix = int(self._has_begun)
        if len(self._rest) < prefix + 4:
            return None
        end = prefix + int.from_bytes(self._rest[prefix : prefix + 4])
        if len(self._rest) < end:
            return None
        head, body = bytes(self._rest[:prefix]), bytes(self._rest[prefix + 4 : end])
        del self._rest[:end]
        return self._decoded(head, body) if head else (self._opening(body), None)

    def _opening(self, body: bytes) -> str:
        """Return the kind of a message before the login."""
        kind = REQUESTS.get(int.from_bytes(body[:4]), "Startup")
        self._has_begun = kind == "Startup"
        return kind

    def _decoded(self, head: bytes, body: bytes) -> tuple[str, str | None]:
        """Return the kind of a message, and its text if it has one."""
        kind = KINDS.get(head, f"unknown {head!r}")
        if kind not in ("Query", "Parse"):
            return kind, None
        # The text of Parse comes after the name of the prepared statement.
        text = body.split(b"\0")[kind == "Parse"]
        return kind, text.decode(errors="replace")
