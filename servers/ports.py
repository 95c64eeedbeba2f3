"""TCP ports for private servers."""

from __future__ import annotations

import random
import socket

# Below the range that Linux (from 32768) and macOS (from 49152) take the ports of outgoing connections
# from. A port of that range could be taken by a client just while the server restarts, and a client that
# keeps knocking at it while nobody listens would sooner or later connect to itself.
RANGE = range(20000, 32768)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of ``host`` that nobody listens on now, and that no outgoing connection will take."""
    # Not the module's own generator: a test that seeds it would make two runs choose the same ports.
    choose = random.SystemRandom().choice
    for _ in range(100):
        port = choose(RANGE)
        with socket.socket() as probe:
            # As servers do, so that the remains of closed connections do not count as somebody listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"found no free port on {host}")
