"""Which sockets this process holds, by the kernel's own account."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any


def held() -> dict[int, str]:
    """Every socket among this process's descriptors, and where it leads.

    Nothing is asked of the package under test: a socket that it never heard of counts as well.
    """
    found = {}
    for fd in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        try:
            status = os.fstat(fd)
            # No copy of it: a fork in another thread would hand that to its child.
            probe = socket.socket(fileno=fd) if stat.S_ISSOCK(status.st_mode) else None
        except OSError:  # closed since it was listed, as the listing itself is
            continue
        if probe:
            found[fd] = f"socket {status.st_ino} to {_peer(probe, status.st_ino)}"
    return found


def to_port(port: int) -> list[str]:
    """Those that lead to a TCP port, connected or about to be."""
    return leading_to(f":{port}")


def to_server(settings: dict[str, Any]) -> list[str]:
    """Those that lead to the server of an entry of Django's DATABASES."""
    return leading_to(address(settings))


def address(settings: dict[str, Any]) -> str:
    """How the descriptions of sockets to this server end."""
    return f":{settings['PORT']}" if settings["PORT"] else f" {settings['HOST']}"


def leading_to(end: str) -> list[str]:
    """Those whose description ends like this."""
    return [where for where in held().values() if where.endswith(end)]


def descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1  # the listing's own


def _peer(probe: socket.socket, inode: int) -> str:
    try:
        peer = probe.getpeername()
    except OSError:
        return _unconnected(inode)
    finally:
        probe.detach()
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)


def _unconnected(inode: int) -> str:
    """The kernel knows where a connection leads before it is established."""
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[9]) == inode:
                return f"{fields[2].partition(':')[0]}:{int(fields[2].partition(':')[2], 16)}"
    return "nowhere"
