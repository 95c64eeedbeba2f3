"""A limit for the whole of ``connect()``, which python-oracledb has for its first step only."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from typing import Any

from poollife.drivers.connection import ended_after, live
from poollife.process.atfork import descriptors, is_connected_to
from poollife.process.guard import Guard, getpid


def ended_if_silent(addresses: set[Any], seconds: float) -> AbstractContextManager[None]:
    """Return a block whose socket to one of these addresses is ended if the block takes longer than this.

    ``tcp_connect_timeout`` ends when the connection is accepted. A listener that accepts and never answers
    would hold the caller for ever. The driver shows its socket only after the logon: so a thread looks for
    sockets to these addresses that were opened since. It also ends those of other sessions that are being
    opened at that moment. The same listener would not answer these.

    :param addresses: as ``is_connected_to()`` takes them.
    :param seconds: the limit.
    """
    return ended_after(seconds, _end_new, addresses, set(_sockets(addresses)), getpid())


def _end_new(addresses: set[Any], known: set[int], pid: int) -> None:
    sessions = {each.guard.fd for each in live.strong_references()}
    for inode, fd in _sockets(addresses).items():
        if inode not in known and fd not in sessions:
            Guard(pid, fd).shut_down()


def _sockets(addresses: set[Any]) -> dict[int, int]:
    """Return the sockets that lead to these addresses: their inodes, and their descriptors.

    A descriptor's number alone proves nothing: it may be used again.
    """
    found = {}
    for fd in descriptors():
        if is_connected_to(fd, addresses):
            with suppress(OSError):  # closed by another thread
                found[os.fstat(fd).st_ino] = fd
    return found
