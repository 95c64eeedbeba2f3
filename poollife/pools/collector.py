"""Python's cycle collector, for pools that have run dry."""

from __future__ import annotations

import gc
import math
import time

from poollife import clock

#: Seconds between two runs, at least; unless a checkout gives up after this, or waits for its own thread.
INTERVAL = 1.0
#: The least number of times that a run's duration passes until the next: where there are millions of objects
#: a run takes seconds, in which no other thread does anything.
SHARE = 20
#: The same for a thread that has something out itself, and so may wait for what it has dropped.
OWN_SHARE = 4


class Collector:
    """Finds DatabaseWrappers that were dropped: they are reference cycles, and keep what they have borrowed.

    The collector is the whole process's, so its runs are bounded for all pools together.
    """

    def __init__(self) -> None:
        #: When the last run ended, and the seconds of CPU that it took.
        self._ended = -math.inf
        self._took = 0.0

    def run(self, interval: float = INTERVAL, share: float = SHARE) -> None:
        """Run it, unless that was done a moment ago.

        :param interval: seconds since the last run, at least.
        :param share: the same as a multiple of that run's duration.
        """
        now = clock.monotonic()
        if now < self._ended + max(interval, share * self._took):
            return
        # Another thread shall not begin, nor this one if something strikes in the middle.
        self._ended = now
        began = time.thread_time()
        gc.collect()
        self._took, self._ended = time.thread_time() - began, clock.monotonic()


collector = Collector()
