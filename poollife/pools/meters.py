"""The counters and histograms of a pool.

They cost a warm checkout almost nothing. ``use_time`` costs more, and is off by default.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TypedDict, overload

from poollife.board import layout
from poollife.board.layout import BUCKETS, Cells

#: Upper bounds in seconds, as OpenTelemetry advises for databases. Longer times have a place after the last.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class HistogramStats(TypedDict):
    """A histogram of durations, as ``pool_stats()`` returns it."""

    #: The number of durations.
    count: int
    #: The sum of all durations, in seconds.
    sum: float
    #: Numbers of durations: up to the bound at the same place in ``bounds``, and above the bound before it.
    #: The last number is for durations above all bounds.
    counts: list[int]
    #: Upper bounds in seconds.
    bounds: list[float]


class Histogram:
    """A histogram of durations.

    Nothing is called while the lock is held (see fair_queue.py). A reader may see a duration that was
    counted, and is not in the sum yet.
    """

    __slots__ = ("_counters", "_first", "_lock", "_place", "_sums")

    def __init__(self, cells: Cells, first: int, place: int) -> None:
        """
        :param cells: of the pool.
        :param first: the place of the first number of durations in its counters.
        :param place: the place of the sum.
        """
        self._lock = threading.RLock()
        self._counters, self._sums = cells.counters, cells.sums
        self._first, self._place = first, place

    @property
    def counts(self) -> list[int]:
        """Numbers of durations that were observed, by the place in ``BOUNDS``."""
        counts: list[int] = self._counters[self._first : self._first + BUCKETS].tolist()
        return counts

    def observe(self, seconds: float) -> None:
        """Count one duration of so many seconds."""
        at = self._first + bisect_left(BOUNDS, seconds)
        with self._lock:
            self._counters[at] += 1
            self._sums[self._place] += seconds

    def stats(self, total: int = 0) -> HistogramStats:
        """Return the numbers of this moment.

        :param total: the number of all events. Events that were not observed count as shorter than the first
            bound.
        """
        counts = self.counts
        counts[0] += max(0, total - sum(counts))
        return HistogramStats(
            count=sum(counts), sum=self._sums[self._place], counts=counts, bounds=list(BOUNDS)
        )


class Meters:
    """The counters and histograms of one pool. The pool's lock guards the counters."""

    def __init__(self, use_time: bool, cells: Cells) -> None:
        """
        :param use_time: whether the durations of leases are observed.
        :param cells: of the pool.
        """
        self._lock = threading.RLock()
        self._counters = cells.counters
        #: The whole duration of the checkouts that queued or opened a session.
        self.wait_time = Histogram(cells, layout.WAIT_TIME, 0)
        #: The opening of a session, from the driver's ``connect()`` to its end.
        self.create_time = Histogram(cells, layout.CREATE_TIME, 1)
        #: From checkout to checkin; None: ``POOL["stats"]`` is off.
        self.use_time = Histogram(cells, layout.USE_TIME, 2) if use_time else None
        #: Numbers of sessions that were replaced or discarded, by the kind of the reason. The surplus that is
        #: retired does not count. The lock in here guards them.
        self.replaced: dict[str, int] = {}

    @property
    def checkouts(self) -> int:
        """Number of sessions that were lent."""
        counters = self._counters
        return int(counters[layout.LENT] + counters[layout.TICKETED] + counters[layout.PINGED])

    @property
    def timeouts(self) -> int:
        """Number of checkouts that ended in a ``PoolTimeout``."""
        return int(self._counters[layout.TIMEOUTS])

    @property
    def connect_errors(self) -> int:
        """Number of failed attempts to open a session."""
        return int(self._counters[layout.CONNECT_ERRORS])

    def replace(self, reason: str) -> None:
        """Count a session that is closed for this reason. Only the kind is kept, as there are few kinds."""
        kind = kind_of(reason)
        with self._lock:
            self.replaced[kind] = self.replaced[kind] + 1 if kind in self.replaced else 1
            self._counters[layout.REPLACED] += 1


def kind_of(reason: str) -> str:
    """Return a reason without its particulars, such as a server's message."""
    return reason.partition(":")[0].partition(" (")[0]


@overload
def added(one: HistogramStats, other: HistogramStats) -> HistogramStats: ...
@overload
def added(one: HistogramStats | None, other: HistogramStats | None) -> HistogramStats | None: ...
def added(one: HistogramStats | None, other: HistogramStats | None) -> HistogramStats | None:
    """Add up the histograms of two pools of one alias; None where neither pool has one."""
    if not (one and other):
        return one or other
    return HistogramStats(
        count=one["count"] + other["count"],
        sum=one["sum"] + other["sum"],
        counts=[mine + theirs for mine, theirs in zip(one["counts"], other["counts"], strict=True)],
        bounds=one["bounds"],
    )
