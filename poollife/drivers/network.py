"""Have the kernel end a session whose network has gone silent."""

from __future__ import annotations

# What ``socket`` is made of, where gevent has not patched that.
import _socket
import math
import os
from collections.abc import Iterator

#: Probes of an idle connection that have to go unanswered, about.
PROBES = 5
INTERNET = {_socket.AF_INET, _socket.AF_INET6}


def give_up_after(fd: int | None, seconds: float | None) -> None:
    """End a TCP connection when its other end has acknowledged nothing for so long; others are left alone.

    As libpq's ``tcp_user_timeout`` and ``keepalives_*`` do it, and as Amazon advises for failovers of Aurora
    ("Setting TCP keepalives parameters"). What was sent and not acknowledged is a matter of TCP_USER_TIMEOUT;
    a connection with nothing on its way, such as one whose server is at work on a long statement, one of
    keepalive: any living kernel answers that, however busy the server is. Where there are both, Linux takes
    the time from the former for the latter as well (its commit dca43c75e7e5, and tcp(7)).

    :param fd: of the driver's socket; None: there is none.
    :param seconds: None leaves it to the system.
    """
    if fd is None or seconds is None:
        return
    copy = duplicate(fd)
    try:
        if copy.family in INTERNET:
            for level, option, value in options(seconds):
                copy.setsockopt(level, option, value)
    finally:
        copy.close()


def duplicate(fd: int) -> _socket.socket:
    """A socket object on a descriptor of its own: one on the driver's would close that when it is freed.

    To be closed where no fork can come: a child would have it without anybody's knowing.
    """
    # C code from end to end: an exception from outside finds no place between the descriptor and its owner.
    unknown = (-1,)
    return next(map(_socket.socket, unknown, unknown, unknown, map(os.dup, (fd,))))


def options(seconds: float) -> Iterator[tuple[int, int, int]]:
    """Level, option and value of all that this system has."""
    # Probes begin after half the time, and fill the rest of it. The kernel counts in whole seconds.
    idle = max(1, int(seconds / 2))
    rest = max(1, math.ceil(seconds) - idle)
    interval = max(1, rest // PROBES)
    for level, name, value in (
        (_socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", math.ceil(seconds * 1000)),
        (_socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle),
        (_socket.IPPROTO_TCP, "TCP_KEEPALIVE", idle),  # macOS has it by this name
        (_socket.IPPROTO_TCP, "TCP_KEEPINTVL", interval),
        (_socket.IPPROTO_TCP, "TCP_KEEPCNT", math.ceil(rest / interval)),
        (_socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    ):
        if (option := getattr(_socket, name, None)) is not None:
            yield level, option, value
