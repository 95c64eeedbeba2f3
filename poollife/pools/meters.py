"""The counters and histograms of a pool.

They cost a warm checkout almost nothing. ``use_time`` costs more, and is off by default.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TypedDict, overload

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

    The numbers are replaced as a whole, so reading them needs no lock. Nothing is called while the lock is
    held (see fair_queue.py).
    """

    __slots__ = ("_lock", "_observed")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: The numbers by the place in ``BOUNDS``, and the sum in seconds.
        self._observed: tuple[tuple[int, ...], float] = (0,) * (len(BOUNDS) + 1), 0.0

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of durations that were observed, by the place in ``BOUNDS``."""
        return self._observed[0]

    def observe(self, seconds: float) -> None:
        """Count one duration of so many seconds."""
        place, done = bisect_left(BOUNDS, seconds), False
        while not done:
            seen = self._observed
            counts, so_far = seen
            observed = (*counts[:place], counts[place] + 1, *counts[place + 1 :]), so_far + seconds
            with self._lock:
                if done := self._observed is seen:
                    self._observed = observed

    def stats(self, total: int = 0) -> HistogramStats:
        """Return the numbers of this moment.

        :param total: the number of all events. Events that were not observed count as shorter than the first
            bound.
        """
        observed, so_far = self._observed
        counts = list(observed)
        counts[0] += max(0, total - sum(counts))
        return HistogramStats(count=sum(counts), sum=so_far, counts=counts, bounds=list(BOUNDS))


class Meters:
    """The counters and histograms of one pool.

    The pool's lock guards the counters. The lock in here guards ``replaced``.
    """

    def __init__(self, use_time: bool) -> None:
        self._lock = threading.RLock()
        #: The whole duration of the checkouts that queued or opened a session.
        self.wait_time = Histogram()
        #: The opening of a session, from the driver's ``connect()`` to its end.
        self.create_time = Histogram()
        #: From checkout to checkin; None: ``POOL["stats"]`` is off.
        self.use_time = Histogram() if use_time else None
        #: The number of checkouts that had a ticket, and got a session.
        self.ticketed = 0
        self.timeouts = 0
        self.connect_errors = 0
        #: Numbers of sessions that were replaced or discarded, by the kind of the reason. The surplus that is
        #: retired does not count.
        self.replaced: dict[str, int] = {}

    def replace(self, reason: str) -> None:
        """Count a session that is closed for this reason. Only the kind is kept, as there are few kinds."""
        kind = kind_of(reason)
        with self._lock:
            self.replaced[kind] = self.replaced[kind] + 1 if kind in self.replaced else 1


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
