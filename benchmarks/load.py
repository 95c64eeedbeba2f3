"""A load generator: a process that keeps a number of HTTP connections busy, at little cost in CPU.

A closed loop: each connection sends its next request when it has the answer to the last one.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from typing import Any

from benchmarks.process import take_orders

#: Seconds without an answer after which a round has failed.
SILENCE = 30.0
OK = b"HTTP/1.1 200 "
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client:
    """A client with one HTTP connection."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._received = b""

    def send(self) -> None:
        """Send a request."""
        self._received = b""
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Read the data that has come; return whether the response is complete.

        :raises RuntimeError: the status is not 200, or the server has closed the connection.
        """
        data = self.socket.recv(65536)
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not data or (end and not head.startswith(OK)):
            status, text = head.split(b"\r\n")[0], body.decode(errors="replace")
            raise RuntimeError(f"a request failed: {status.decode() or 'no response'} {text}")
        return bool(end) and len(body) >= length_of(head)


def length_of(head: bytes) -> int:
    """Return the length of the body.

    :raises RuntimeError: the head has no Content-Length.
    """
    if found := LENGTH.search(head):
        return int(found[1])
    raise RuntimeError(f"a response without a length: {head!r}")


class Load:
    """The process: each public method is an order."""

    def __init__(self, beginning: None) -> None:
        """Do nothing: each order has all arguments that it needs."""

    def drive(self, port: int, path: str, connections: int, seconds: float) -> tuple[int, float]:
        """Send requests for some time, and wait for the last answer.

        Requests that are on their way at the end are counted, and so is the time until they are answered:
        long requests that end together would otherwise be in or out of the count as a whole.

        :param port: the port of the site.
        :param path: the path that all requests ask for.
        :param connections: requests that are on their way at the same time.
        :param seconds: the time in which requests are sent.
        :returns: the number of requests, and the seconds from the first request to the last answer.
        """
        with selectors.DefaultSelector() as selector:
            clients = [Client(port, path) for _ in range(connections)]
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            try:
                return self._loop(selector, clients, seconds)
            finally:
                for client in clients:
                    client.socket.close()

    def _loop(self, selector: Any, clients: list[Client], seconds: float) -> tuple[int, float]:
        answers, on_their_way = 0, len(clients)
        begin = now = time.perf_counter()
        until = begin + seconds
        for client in clients:
            client.send()
        while on_their_way:
            ready = selector.select(SILENCE)
            if not ready:
                raise RuntimeError(f"no answer for {SILENCE:g} s")
            for key, _ in ready:
                if key.data.receive():
                    answers += 1
                    now = time.perf_counter()
                    if now < until:
                        key.data.send()
                    else:
                        on_their_way -= 1
        return answers, now - begin


if __name__ == "__main__":
    take_orders(Load)
