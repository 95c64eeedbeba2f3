"""What a pool counts. It costs a warm checkout next to nothing; ``use_time`` does, and is off by default."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
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
    """How often something took how long. Its pool's lock guards it."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def stats(self, total: int = 0) -> HistogramStats:
        """Its numbers now.

        :param total: how many there were; those not observed count as shorter than the first bound.
        """
        counts = self.counts.copy()
        counts[0] += max(0, total - sum(counts))
        return HistogramStats(count=sum(counts), sum=self.sum, counts=counts, bounds=list(BOUNDS))


class Meters:
    """One pool's. Its lock guards them."""

    def __init__(self, use_time: bool) -> None:
        #: From asking to having a connection, of the checkouts that queued or opened a session.
        self.wait_time = Histogram()
        #: Opening a session, from the driver's ``connect()`` to its end.
        self.create_time = Histogram()
        #: From checkout to checkin; None where nobody has asked for it.
        self.use_time = Histogram() if use_time else None
        self.timeouts = 0
        self.connect_errors = 0
        #: Sessions that were closed although nobody wanted fewer, by reason.
        self.replaced: Counter[str] = Counter()

    def replace(self, reason: str) -> None:
        """A session is closed for this reason: only its kind is kept, which there are few of."""
        self.replaced[kind_of(reason)] += 1


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
