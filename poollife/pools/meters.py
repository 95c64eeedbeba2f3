"""What a pool counts. It costs a warm checkout next to nothing; ``use_time`` does, and is off by default."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TypedDict, overload

#: Upper bounds in seconds, as OpenTelemetry advises for databases. What is longer than the last comes on top.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class HistogramStats(TypedDict):
    """How often something took how long."""

    count: int
    #: Seconds, all together.
    sum: float
    #: How many took up to as many seconds as ``bounds`` says in the same place, and no less than the bound
    #: before; the last is what took longer than all of them.
    counts: list[int]
    bounds: list[float]


class Histogram:
    """How often something took how long.

    The numbers are replaced as a whole, so reading them needs no lock; and nothing is called while one is
    held (see fair_queue.py).
    """

    __slots__ = ("_lock", "_observed")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: By the place in ``BOUNDS``, and the sum.
        self._observed: tuple[tuple[int, ...], float] = (0,) * (len(BOUNDS) + 1), 0.0

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of those observed, by the place in ``BOUNDS``."""
        return self._observed[0]

    def observe(self, seconds: float) -> None:
        """Count one that took so many seconds."""
        place, done = bisect_left(BOUNDS, seconds), False
        while not done:
            seen = self._observed
            counts, so_far = seen
            observed = (*counts[:place], counts[place] + 1, *counts[place + 1 :]), so_far + seconds
            with self._lock:
                if done := self._observed is seen:
                    self._observed = observed

    def stats(self, total: int = 0) -> HistogramStats:
        """Return the numbers of now.

        :param total: how many there were; those not observed count as shorter than the first bound.
        """
        observed, so_far = self._observed
        counts = list(observed)
        counts[0] += max(0, total - sum(counts))
        return HistogramStats(count=sum(counts), sum=so_far, counts=counts, bounds=list(BOUNDS))


class Meters:
    """One pool's. Its lock guards the numbers, the lock in here ``replaced``."""

    def __init__(self, use_time: bool) -> None:
        self._lock = threading.RLock()
        #: From asking to having a connection, of the checkouts that queued or opened a session.
        self.wait_time = Histogram()
        #: Opening a session, from the driver's ``connect()`` to its end.
        self.create_time = Histogram()
        #: From checkout to checkin; None where nobody has asked for it.
        self.use_time = Histogram() if use_time else None
        self.timeouts = 0
        self.connect_errors = 0
        #: Sessions that were closed although nobody wanted fewer, by reason.
        self.replaced: dict[str, int] = {}

    def replace(self, reason: str) -> None:
        """A session is closed for this reason: only its kind is kept, which there are few of."""
        kind = kind_of(reason)
        with self._lock:
            self.replaced[kind] = self.replaced[kind] + 1 if kind in self.replaced else 1


def kind_of(reason: str) -> str:
    """A reason for people without its particulars, such as a server's message."""
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
