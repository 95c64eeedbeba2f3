"""Runs of Python's cycle collector, for pools that are exhausted."""

from __future__ import annotations

import gc
import math
import time

from poollife import clock

#: Least number of seconds between two runs. A checkout that is about to fail does not wait for them, nor does
#: a checkout whose own thread has a lease.
COLLECTION_INTERVAL = 1.0
#: Least time between two runs, as a multiple of the duration of the first. With millions of objects a run
#: takes seconds, in which no other thread runs.
SHARE = 20
#: ``SHARE`` for a thread that has a lease, and so may wait for the session of a wrapper that it has dropped.
OWN_SHARE = 4


class Collector:
    """The cycle collector, run to find DatabaseWrappers that were dropped.

    A DatabaseWrapper is part of a reference cycle, so it keeps its session until the collector runs. The
    collector works on the whole process, so its runs are limited for all pools together.
    """

    def __init__(self) -> None:
        #: The end of the last run, on the monotonic clock, and the seconds of CPU that it took.
        self._ended = -math.inf
        self._took = 0.0

    def run(self, interval: float = COLLECTION_INTERVAL, share: float = SHARE) -> None:
        """Run the collector, unless it ran a moment ago.

        :param interval: least number of seconds since the last run.
        :param share: least time since the last run, as a multiple of that run's duration.
        """
        now = clock.monotonic()
        if now < self._ended + max(interval, share * self._took):
            return
        # Set before the run, too: no other thread begins one meanwhile, nor does this thread after an
        # asynchronous exception in the middle of the run.
        self._ended = now
        began = time.thread_time()
        gc.collect()
        self._took, self._ended = time.thread_time() - began, clock.monotonic()


collector = Collector()
