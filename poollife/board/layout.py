"""The layout of a file of the board: a header, places for pools, rows for sessions, and the last time-outs.

All numbers have the size and the order of bytes of this machine: the files never leave it.
"""

from __future__ import annotations

import struct
from typing import Any

#: The first bytes of each file; the last of them is the version of this layout.
MAGIC = b"poolife\x02"
#: The number of pools, and of sessions, that have room in one file. A process makes as many as it needs.
POOLS, ROWS = 8, 48
#: The number of time-outs that are kept in a file, the latest ones.
TIMEOUTS_KEPT = 8

#: Magic, pid, start (seconds since 1970), token of the process, number of changes of the places (odd during a
#: change), command.
HEADER = struct.Struct("8sIdQQ152s")
HEADER_SIZE = HEADER.size
CHANGES_AT = 32
#: Number of the pool in its process (0: an empty place), alias, server, database.
PLACE = struct.Struct("Q64s264s64s")
#: The counters begin here in the place of a pool, as signed 64-bit integers.
COUNTERS_AT = PLACE.size
COUNTERS = 48
#: Sums of seconds follow them, as floats: of the three histograms.
SUMS_AT = COUNTERS_AT + 8 * COUNTERS
PLACE_SIZE = SUMS_AT + 8 * 3
#: Number of the pool (0: an empty row), session's id, its opening, whether a borrower has it, its checkout
#: (times in seconds on the monotonic clock, which all processes share), work, thread.
ROW = struct.Struct("QqdQd112s40s")
ROW_SIZE = ROW.size
#: The part of a row that a checkout writes, at once, and its place. A return sets its first number to 0.
HOLDER = struct.Struct("Qd112s40s")
HOLDER_AT = 24
#: Number of the time-out in its file (0: there is none), its time (seconds since 1970), the seconds that it
#: waited, alias, work, likeliest cause.
TIMEOUT = struct.Struct("Qdd64s112s312s")
TIMEOUT_SIZE = TIMEOUT.size

PLACES_AT = HEADER_SIZE
ROWS_AT = PLACES_AT + POOLS * PLACE_SIZE
TIMEOUTS_AT = ROWS_AT + ROWS * ROW_SIZE
SIZE = TIMEOUTS_AT + TIMEOUTS_KEPT * TIMEOUT_SIZE

#: The places of the counters. LENT, TICKETED and PINGED add up to the number of checkouts.
(
    LIMIT,
    OPENED,
    CLOSED,
    LENT,
    TICKETED,
    TIMEOUTS,
    CONNECT_ERRORS,
    RESETS,
    REPLACED,
    WAITING,
    MAX_WAITING,
    SUSPENDED,
) = range(12)
#: The numbers of durations, by the place in ``BOUNDS``, of each histogram: the first place.
WAIT_TIME, CREATE_TIME, USE_TIME = 12, 22, 32
BUCKETS = 10
#: 1 if the pool is gone: only its counters count.
ENDED = 42
#: The number of the orders that the pool has obeyed.
ORDERS = 43
#: Checkouts that had a ticket, and neither queued nor opened a session: they pinged one. LENT and PINGED are
#: the checkouts without a duration. "All, less those with one" would fall while a duration is in the
#: histogram, and its checkout is not counted yet.
PINGED = 44
#: LIMIT of a pool without a limit.
NO_LIMIT = -1
#: The largest number of a counter.
MOST = 2**63 - 1


#: The name under which the counters of rare aliases are added up, when they are very many.
OTHERS = "(others)"


def text(field: bytes) -> str:
    """Return the text of a field: NULs at its end are padding. It may have been cut anywhere.

    A request's path may have any character in it, such as those that control a terminal, or the direction of
    writing: they are replaced.
    """
    decoded = field.rstrip(b"\0").decode(errors="replace")
    return "".join(each if each.isprintable() else "\ufffd" for each in decoded)


def encoded(value: object) -> bytes:
    """Return the bytes of a text. ``struct`` cuts them to the size of the field."""
    return str(value).encode(errors="replace")


def server_text(server: object) -> str:
    """Return the name of a server as ``text()`` returns it from its field."""
    return text(PLACE.unpack(PLACE.pack(0, b"", encoded(server), b""))[2])


class Cells:
    """The counters of one pool, and the sums of its histograms.

    Synchronization: the pool's locks guard them. A reader in another process may see two of them that do not
    belong together.
    """

    __slots__ = ("counters", "sums")

    def __init__(self, place: memoryview | None = None) -> None:
        """
        :param place: the place of a pool in a file of the board; None: memory of this process only.
        """
        if place is None:
            place = memoryview(bytearray(PLACE_SIZE))
        self.counters: Any = place[COUNTERS_AT:SUMS_AT].cast("q")
        self.sums: Any = place[SUMS_AT:PLACE_SIZE].cast("d")

    def copy(self) -> Cells:
        """Return cells with the same numbers, in memory of this process only."""
        copied = Cells()
        copied.counters[:], copied.sums[:] = self.counters, self.sums
        return copied

    def add(self, ended: Cells) -> None:
        """Add the counters of a pool that has ended."""
        for place in (*range(OPENED, WAITING), *range(WAIT_TIME, WAIT_TIME + 3 * BUCKETS), PINGED):
            self.counters[place] += ended.counters[place]
        for place in range(3):
            self.sums[place] += ended.sums[place]

    def set_limit(self, limit: int | None) -> None:
        """
        :param limit: the most sessions of the pool; None: there is no limit.
        """
        self.counters[LIMIT] = NO_LIMIT if limit is None else min(limit, MOST)
