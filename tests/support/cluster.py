"""A balancer in front of nodes of a Galera cluster, some of which have lost it."""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress

from servers.proxy import Proxy


class Cluster(Proxy):
    """A balancer in front of nodes: open sessions stay on theirs, which may stop to serve statements.

    Such a node accepts logins, and answers to each COM_QUERY but SET and SHOW with 1047, and still to
    COM_PING.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        #: For each new connection, whether it leads to a lost node. Those beyond follow ``leads_to_lost``.
        self.next_lost: deque[bool] = deque()
        self.leads_to_lost = False
        self._clients: list[socket.socket] = []
        self._refused: set[socket.socket] = set()

    def leave_primary_component(self) -> None:
        """Have the node of all open sessions refuse; new sessions lead to another one."""
        self._refused.update(self._clients)

    def _pass_on_requests(self, client: socket.socket, server: socket.socket) -> None:
        self._clients.append(client)
        if self.next_lost.popleft() if self.next_lost else self.leads_to_lost:
            self._refused.add(client)
        with suppress(OSError):
            while data := client.recv(65536):
                if client in self._refused and data[4] == 3 and not data[5:].startswith((b"SET", b"SHOW")):
                    client.sendall(refusal(1047, "WSREP has not yet prepared node for application use"))
                else:
                    self._pass_on(data, server)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


def refusal(code: int, message: str) -> bytes:
    """Return the packet by which a server refuses a statement."""
    body = b"\xff" + struct.pack("<H", code) + b"#08S01" + message.encode()
    return struct.pack("<I", len(body))[:3] + b"\x01" + body
