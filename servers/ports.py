"""TCP ports for private servers."""

from __future__ import annotations

import random
import socket
from collections import deque

# Below the range from which Linux (from 32768) and macOS (from 49152) take the ports of outgoing connections.
# A client could get a port of that range while the server restarts. And a client that connects to the port
# again and again while no server listens would at some time connect to itself.
RANGE = range(20000, 32768)
#: The ports that this process was given lately. A server takes its port only later: meanwhile the same one
#: must not be given to another.
_given: deque[int] = deque(maxlen=1000)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of ``host`` on which no process listens, and that no outgoing connection will take.

    It is another one than the last thousand that this process was given.

    :raises RuntimeError: if none of a hundred ports is free.
    """
    # Not the module's own generator: a test that seeds it would make two runs choose the same ports.
    choose = random.SystemRandom().choice
    for _ in range(100):
        port = choose(RANGE)
        if port in _given:
            continue
        with socket.socket() as probe:
            # As servers do, so that the remains of closed connections do not count as a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.append(port)
        return port
    raise RuntimeError(f"found no free port on {host}")
