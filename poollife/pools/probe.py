"""The thread that finds out that a server is back, when checkouts are refused and make no attempts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from poollife import clock
from poollife.pools.background import Housekeeper

#: Seconds for which the thread sleeps at most: a checkout may be at an attempt that ends without a word.
LONGEST_SLEEP = 1.2
#: Seconds without another thread, where one found out that it can't make any attempt.
RETRY = 5.0


class Outage(Protocol):
    """The outage that a probe ends. ``poollife.pools.outage`` has it."""

    #: Attempts that have come to an end.
    attempts: int

    def probe_delay(self) -> float | None:
        """Return the seconds until the probe should make an attempt, None: no outage."""


class Probe:
    """A thread that is there while an outage lasts, and a pool can make attempts for it.

    Each field is set by one assignment, so there is no lock. A thread that reads an old value makes an
    attempt of a pool that can't make any, or ends; then the next refused checkout starts another.
    """

    def __init__(self, outage: Outage, name: str) -> None:
        """
        :param name: of the thread.
        """
        self._outage = outage
        self._name = name
        #: Makes one attempt, by a pool whose checkout was refused.
        self.attempt: Callable[[], object] | None = None
        #: On the monotonic clock: until when no thread is started.
        self.rests_until = -math.inf
        self.thread = Housekeeper(name, self.work)

    def abandon(self) -> None:
        """Forget the thread, in a child, where it does not exist."""
        self.attempt = None
        self.thread = Housekeeper(self._name, self.work)

    def call(self, make: Callable[[], Callable[[], object]]) -> None:
        """Start the thread, unless it is there.

        :param make: makes what makes one attempt, where there is no such thing yet.
        """
        if clock.monotonic() >= self.rests_until:
            if self.attempt is None:
                self.attempt = make()
            self.thread.call()

    def work(self) -> float | None:
        """Make an attempt if it is time to; return the seconds until the next, None: there will be none."""
        attempt, delay = self.attempt, self._outage.probe_delay()
        if attempt is None or delay is None:
            self.attempt = None
            return None
        if delay > 0:
            return min(delay, LONGEST_SLEEP)
        before = self._outage.attempts
        attempt()
        if self._outage.attempts == before and self._outage.probe_delay() == 0:
            # Its pool was closed, say, or has no room. The next refused checkout may bring another.
            self.rests_until = clock.monotonic() + RETRY
            self.attempt = None
            return None
        return 0.0
