"""The packets of Oracle Net (TNS) on one socket, from the side of a server."""

from __future__ import annotations

import select
import socket
import struct

#: Types of packets.
CONNECT, ACCEPT, REFUSE, DATA, MARKER = 1, 2, 4, 6, 12
#: Kinds of markers: a client interrupts its own call, and then both sides begin anew.
BREAK, RESET = 1, 2
#: The version of the protocol, that of Oracle 12.1: no out-of-band breaks, and no marks for the end of a
#: response.
VERSION = 315
#: The size of packets.
SIZE = 8192
#: A flag of data: the client closes the connection.
AT_END = 0x40


class Gone(Exception):
    """The client has closed its connection, or was killed."""


class Line:
    """The packets of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        #: Whether lengths have four bytes: from the answer to the client's first packet on.
        self._has_long_lengths = False
        self._rest = b""

    def _receive(self, size: int) -> bytes:
        while len(self._rest) < size:
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                raise Gone(str(error)) from error
            if not data:
                raise Gone("the client is gone")
            self._rest += data
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def packet(self) -> tuple[int, bytes]:
        """Return the type of the next packet, and what is in it."""
        head = self._receive(8)
        length = (
            struct.unpack(">I", head[:4])[0] if self._has_long_lengths else struct.unpack(">H", head[:2])[0]
        )
        return head[4], self._receive(length - 8)

    def data(self) -> bytes:
        """Return what is in the next packet of data.

        :raises Broken: if the client interrupts its call.
        :raises Gone: if it closes the connection.
        """
        kind, body = self.packet()
        if kind == MARKER:
            raise Broken
        flags = struct.unpack(">H", body[:2])[0]
        if flags & AT_END and len(body) == 2:
            raise Gone("closed by the client")
        return body[2:]

    def has_packet(self, seconds: float) -> bool:
        """Wait for a packet, and return whether one has come.

        :param seconds: the longest time.
        """
        pending = getattr(self.socket, "pending", lambda: 0)
        return bool(self._rest or pending()) or bool(select.select([self.socket], [], [], seconds)[0])

    def send(self, kind: int, body: bytes) -> None:
        """Send one packet."""
        length = len(body) + 8
        head = struct.pack(">I", length) if self._has_long_lengths else struct.pack(">HH", length, 0)
        try:
            self.socket.sendall(head + bytes([kind, 0, 0, 0]) + body)
        except OSError as error:
            raise Gone(str(error)) from error

    def answer(self, message: bytes) -> None:
        """Send a message, in as many packets of data as it takes."""
        room = SIZE - 10
        for start in range(0, len(message), room):
            self.send(DATA, b"\0\0" + message[start : start + room])

    def accept(self) -> None:
        """Accept the connection."""
        body = struct.pack(">HH", VERSION, 1) + bytes(10) + bytes(1) + bytes(9) + struct.pack(">I", SIZE)
        self.send(ACCEPT, body)
        self._has_long_lengths = True

    def refuse(self, code: int) -> None:
        """Refuse the connection, as a listener does.

        :param code: of the error, such as 12514.
        """
        text = (
            f"(DESCRIPTION=(TMP=)(VSNNUM=0)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))".encode()
        )
        self.send(REFUSE, b"\0\0" + struct.pack(">H", len(text)) + text)

    def reset(self) -> None:
        """Drop what the client has sent until its reset, and send one."""
        while True:
            kind, body = self.packet()
            if kind == MARKER and body[2] == RESET:
                break
        self.mark(RESET)

    def mark(self, kind: int) -> None:
        """Send a marker."""
        self.send(MARKER, bytes([1, 0, kind]))


class Broken(Exception):
    """The client has interrupted its call."""
