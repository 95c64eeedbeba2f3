"""How many sockets this process has to its database: the operating system's own count, not the pool's."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.backends.signals import connection_created

PORT = int(settings.DATABASES["default"]["PORT"])
FOLDER = next(folder for folder in (Path("/proc/self/fd"), Path("/dev/fd")) if folder.is_dir())

#: The most there ever were. A pool opens them one by one, so counting after each opening misses none.
most = 0


def count() -> int:
    # For a moment one has a second descriptor: while its options are set, or another thread counts it.
    return len({_socket_to_database(int(entry.name)) for entry in FOLDER.iterdir()} - {None})


def _socket_to_database(fd: int) -> int | None:
    """Its inode, if it is one."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        with socket.socket(fileno=os.dup(fd)) as copy:
            peer, inode = copy.getpeername(), os.fstat(copy.fileno()).st_ino
    except OSError:  # closed since it was listed, or not connected
        return None
    return inode if isinstance(peer, tuple) and peer[1] == PORT else None


def _opened(**_: Any) -> None:
    global most
    most = max(most, count())


connection_created.connect(_opened)
