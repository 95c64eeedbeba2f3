"""A proxy in front of a MySQL server that counts round trips."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from servers.proxy import Proxy

#: MySQL's commands by the first byte of their packets. Commands in ``UNANSWERED`` cost no round trip.
COMMANDS = {
    0x02: "COM_INIT_DB",
    0x03: "COM_QUERY",
    0x09: "COM_STATISTICS",
    0x0E: "COM_PING",
    0x11: "COM_CHANGE_USER",
    0x16: "COM_STMT_PREPARE",
    0x17: "COM_STMT_EXECUTE",
    0x1A: "COM_STMT_RESET",
    0x1B: "COM_SET_OPTION",
    0x1C: "COM_STMT_FETCH",
    0x1F: "COM_RESET_CONNECTION",
}
UNANSWERED = {0x01: "COM_QUIT", 0x18: "COM_STMT_SEND_LONG_DATA", 0x19: "COM_STMT_CLOSE"}
CONNECT = "connect"
ENCRYPTED = 0x0800


class Wiretap(Proxy):
    """A proxy for a ``with`` block that notes the commands of its clients in ``heard``.

    A command is noted before it is passed on, so it is in the list when its client has the answer. A
    handshake is noted as one ``connect``, however many packets it has.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        #: The commands in their order: the text of a statement, or the name of a command.
        self.heard: list[str] = []
        #: The reason why the list is not complete; None if it is.
        self.failed: str | None = None
        self._packets: dict[socket.socket, Packets] = {}

    def __enter__(self) -> Wiretap:
        super().__enter__()
        return self

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield a list that has the commands of the block after its end.

        :raises RuntimeError: data passed that can't be read.
        """
        heard: list[str] = []
        before = len(self.heard)
        yield heard
        heard += self.heard[before:]
        if self.failed:
            raise RuntimeError(self.failed)

    def hear(self, client: socket.socket, data: bytes) -> None:
        for sequence, payload in self._packets.setdefault(client, Packets()).feed(data):
            self._note(sequence, payload)

    def _note(self, sequence: int, payload: bytes) -> None:
        if sequence == 1 and len(payload) >= 32:
            # The client's answer to the server's greeting. With TLS this is the last packet that can be read.
            if int.from_bytes(payload[:4], "little") & ENCRYPTED:
                self.failed = "a client talks TLS, which can't be counted"
            self.heard.append(CONNECT)
        elif sequence == 0 and payload[0] not in UNANSWERED:
            command = COMMANDS.get(payload[0], f"command {payload[0]:#x}")
            text = payload[1:].decode("utf-8", "replace")
            self.heard.append(text if command == "COM_QUERY" else command)


class Packets:
    """The packets of a stream of MySQL: three bytes length, one byte number, payload."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add data, and yield the number and the payload of each packet that is complete now."""
        self._data += data
        while len(self._data) >= 4 and len(self._data) >= (
            end := 4 + int.from_bytes(self._data[:3], "little")
        ):
            yield self._data[3], self._data[4:end]
            self._data = self._data[end:]
