"""Socket options by which the kernel ends a session whose network is silent."""

from __future__ import annotations

# The C module behind ``socket``, which gevent does not patch.
import _socket
import math
import os
from collections.abc import Iterator

#: The number of keepalive probes, about, that have to stay unanswered.
PROBES = 5
INTERNET = {_socket.AF_INET, _socket.AF_INET6}


def set_tcp_timeouts(fd: int | None, seconds: float | None) -> None:
    """Have the kernel end a TCP connection when its other end has acknowledged nothing for so long.

    Other sockets stay as they are. libpq's ``tcp_user_timeout`` and ``keepalives_*`` do the same, and Amazon
    advises it for failovers of Aurora ("Setting TCP keepalives parameters"). TCP_USER_TIMEOUT is for data
    that was sent and not acknowledged. Keepalive is for a connection with no data on its way, such as one
    whose server executes a long statement: any living kernel answers a probe, however busy the server is. If
    both are set, Linux uses the time of TCP_USER_TIMEOUT for keepalive as well (its commit dca43c75e7e5, and
    tcp(7)).

    :param fd: the descriptor of the driver's socket; None: there is none.
    :param seconds: the time without an acknowledgement; None leaves it to the system.
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
    """Return a socket object on a duplicate of a descriptor.

    A socket object on the driver's own descriptor would close it when the object is freed. The caller closes
    the duplicate while no fork can come: a child would inherit a descriptor that no guard knows.
    """
    # Only C code runs here: no asynchronous exception can come between the descriptor and its owner.
    unknown = (-1,)
    return next(map(_socket.socket, unknown, unknown, unknown, map(os.dup, (fd,))))


def options(seconds: float) -> Iterator[tuple[int, int, int]]:
    """Yield the level, option and value of each socket option that this system has.

    :param seconds: the time of ``set_tcp_timeouts()``.
    """
    # Probes begin after half the time, and fill the rest of it. The kernel counts in whole seconds.
    idle = max(1, int(seconds / 2))
    probing = max(1, math.ceil(seconds) - idle)
    interval = max(1, probing // PROBES)
    for level, name, value in (
        (_socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", math.ceil(seconds * 1000)),
        (_socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle),
        (_socket.IPPROTO_TCP, "TCP_KEEPALIVE", idle),  # macOS has it by this name
        (_socket.IPPROTO_TCP, "TCP_KEEPINTVL", interval),
        (_socket.IPPROTO_TCP, "TCP_KEEPCNT", math.ceil(probing / interval)),
        (_socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    ):
        if (option := getattr(_socket, name, None)) is not None:
            yield level, option, value
