"""A TCP proxy in front of a server, with a network's faults: it drops, stalls, ignores, delays and cuts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class Proxy:
    """A proxy on a port of this machine: ``with Proxy(host, port) as proxy: ...``, and ``proxy.port``.

    Its faults are blocks: ``with proxy.deaf(): ...``. After the block it works again.
    """

    def __init__(self, host: str, port: int, listens: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """
        :param host: of the server.
        :param port: of the server.
        :param listens: the address of the proxy.
        """
        #: The server's address for new connections.
        self.server = (host, port)
        #: Seconds before a new connection is passed on.
        self.connect_delay = 0.0
        #: Seconds that each piece of data takes, in either direction.
        self.delay = 0.0
        #: The number of bytes of answers after which a connection is cut; None: it is not.
        self.cut_after: int | None = None
        #: The times of the connections that came, on the monotonic clock.
        self.accepted: list[float] = []
        self._listener = socket.create_server(listens, backlog=512)
        self.host, self.port = self._listener.getsockname()
        self._deaf = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._flowing.set()
        self._stop_listening()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    @contextmanager
    def dropped(self) -> Iterator[None]:
        """Cut all connections and refuse new ones, as if the server had stopped."""
        self._stop_listening()
        self.cut()
        try:
            yield
        finally:
            self._listener = socket.create_server((self.host, self.port), backlog=512)
            self._listen()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Hold all data back during the block, and pass it on afterwards."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Accept new connections, but drop all data during the block, as if packets were lost."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def cut(self) -> None:
        """End all connections, also in the middle of data."""
        for each in self._sockets:
            with suppress(OSError):  # its other end may have closed it first
                each.shutdown(socket.SHUT_RDWR)

    def hear(self, client: socket.socket, data: bytes) -> None:
        """Take note of data that a client has sent. For subclasses: it does nothing here."""

    def _listen(self) -> None:
        self._start(self._accept, self._listener)

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client = listener.accept()[0]
                self.accepted.append(time.monotonic())
                self._sockets.append(client)
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        time.sleep(self.connect_delay)
        self._flowing.wait()
        if self._deaf:
            return
        try:
            server = socket.create_connection(self.server)
        except OSError:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(server)
        self._start(self._pass_on_requests, client, server)
        self._pass_on_answers(server, client)

    def _start(self, work: object, *sockets: socket.socket) -> None:
        thread = threading.Thread(target=work, args=sockets, name="proxy")  # type: ignore[arg-type]  # a method
        self._threads.append(thread)
        thread.start()

    def _pass_on_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):  # one of the two is closed
            while data := client.recv(65536):
                self.hear(client, data)
                self._pass_on(data, server)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass_on_answers(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cut_after is not None and passed + len(data) > self.cut_after:
                    self._pass_on(data[: max(0, self.cut_after - passed)], client)
                    for each in (client, server):
                        each.shutdown(socket.SHUT_RDWR)
                self._pass_on(data, client)
                passed += len(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _pass_on(self, data: bytes, target: socket.socket) -> None:
        if self.delay:
            time.sleep(self.delay)
        self._flowing.wait()
        if not self._deaf:
            target.sendall(data)
