"""A process between a client and a server that delays data in both directions.

``servers.Proxy`` has two threads for each connection, and shares an interpreter with the program that it
serves. This relay has one thread that waits in ``select()``, whose time limit is finer than that of
``epoll``, a whole number of milliseconds.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

READ = 65536


class Piece(NamedTuple):
    """Data on the way."""

    #: On the monotonic clock.
    due: float
    source: socket.socket
    target: socket.socket
    #: Empty: the source has closed its side.
    data: bytes


class Relay:
    """A listening socket, and the connections that come to it."""

    def __init__(self, server: tuple[str, int], delay: float) -> None:
        """Listen on a port of this machine.

        :param server: host and port of the server that connections lead to.
        :param delay: seconds that each piece of data takes, either way.
        """
        self._server = server
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        #: The other end of each socket that has not ended.
        self._others: dict[socket.socket, socket.socket] = {}
        #: Sockets whose end has been passed on.
        self._ended: set[socket.socket] = set()
        #: Pieces on the way, in the order in which they are due: all take the same time.
        self._pieces: deque[Piece] = deque()

    def run(self, stop: int) -> None:
        """Pass on data until the file descriptor ``stop`` is readable."""
        while True:
            sources: list[Any] = [stop, self._listener, *self._others]
            readable = select.select(sources, [], [], self._next_due())[0]
            if stop in readable:
                return
            for each in readable:
                if each is self._listener:
                    self._accept()
                else:
                    self._read(each)
            self._deliver()

    def _next_due(self) -> float | None:
        return max(0.0, self._pieces[0].due - time.monotonic()) if self._pieces else None

    def _accept(self) -> None:
        client = self._listener.accept()[0]
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        for one, other in (client, server), (server, client):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._others[one] = other

    def _read(self, source: socket.socket) -> None:
        data = b""
        with suppress(OSError):  # a reset is an end, too
            data = source.recv(READ)
        target = self._others[source]
        self._pieces.append(Piece(time.monotonic() + self._delay, source, target, data))
        if not data:
            del self._others[source]

    def _deliver(self) -> None:
        while self._pieces and self._pieces[0].due <= time.monotonic():
            piece = self._pieces.popleft()
            with suppress(OSError):  # the target has gone
                if piece.data:
                    piece.target.sendall(piece.data)
                else:
                    self._end(piece.source, piece.target)

    def _end(self, source: socket.socket, target: socket.socket) -> None:
        if target in self._ended:
            self._ended.remove(target)
            source.close()
            target.close()
        else:
            self._ended.add(source)
            target.shutdown(socket.SHUT_WR)


def main() -> None:
    """Read host, port and delay as a line of JSON, answer with the relay's port, and run."""
    beginning: dict[str, Any] = json.loads(sys.stdin.readline())
    relay = Relay((beginning["host"], beginning["port"]), beginning["delay"])
    print(json.dumps({"answer": relay.port}), flush=True)
    relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
