"""Python's cycle collector, for pools that have run dry."""

from __future__ import annotations

import gc
import math

from poollife import clock

#: Seconds between two runs, at least.
INTERVAL = 1.0
#: The least number of times that a run's duration passes until the next: where there are millions of objects
#: a run takes seconds, in which no other thread does anything.
SHARE = 20


class Collector:
    """Finds DatabaseWrappers that were dropped: they are reference cycles, and keep what they have borrowed.

    The collector is the whole process's, so its runs are bounded for all pools together.
    """

    def __init__(self) -> None:
        self._next = self._last = -math.inf

    def run(self, *, last: bool = False) -> None:
        """Run it, unless that was done a moment ago.

        :param last: the caller gives up after this: only the share of the time counts.
        """
        began = clock.monotonic()
        if began < (self._last if last else self._next):
            return
        # Should something strike in the middle.
        self._last = self._next = began + INTERVAL
        gc.collect()
        ended = clock.monotonic()
        self._last = ended + SHARE * (ended - began)
        self._next = max(self._last, ended + INTERVAL)


collector = Collector()
