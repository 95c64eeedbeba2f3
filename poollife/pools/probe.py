"""The thread that finds out that a server is back, while checkouts are refused and make no attempts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from poollife import clock
from poollife.pools.background import Housekeeper

#: Seconds for which the thread sleeps at most: a checkout's attempt may end without a report.
LONGEST_SLEEP = 1.2
#: Seconds until the next thread, after a thread has found that it can't make an attempt.
RETRY = 5.0


class Outage(Protocol):
    """The outage that a probe ends: ``poollife.pools.outage.Outage``."""

    #: The number of attempts that have ended.
    attempts: int

    def probe_delay(self) -> float | None:
        """Return the seconds until the probe should make an attempt; None: no outage."""


class Probe:
    """A thread that exists while an outage lasts and a pool can make attempts for it.

    Each field is set by one assignment, so there is no lock. A thread that reads an old value makes an
    attempt of a pool that can't make any, or ends; then the next refused checkout starts another.
    """

    def __init__(self, outage: Outage, name: str) -> None:
        """
        :param name: of the thread.
        """
        self._outage = outage
        self._name = name
        #: The function that makes one attempt, by a pool whose checkout was refused; None: there is none.
        self.attempt: Callable[[], object] | None = None
        #: The time until which no thread is started, on the monotonic clock.
        self.rests_until = -math.inf
        self.thread = Housekeeper(name, self.work)

    def abandon(self) -> None:
        """Give up the thread, in a child, where it does not exist."""
        self.attempt = None
        self.thread = Housekeeper(self._name, self.work)

    def call(self, make: Callable[[], Callable[[], object]]) -> None:
        """Start the thread, unless it exists.

        :param make: returns a function that makes one attempt. It is called if there is no such function yet.
        """
        if clock.monotonic() >= self.rests_until:
            if self.attempt is None:
                self.attempt = make()
            self.thread.call()

    def work(self) -> float | None:
        """Make an attempt if it is due; return the seconds until the next, None: there will be none."""
        attempt, delay = self.attempt, self._outage.probe_delay()
        if attempt is None or delay is None:
            self.attempt = None
            return None
        if delay > 0:
            return min(delay, LONGEST_SLEEP)
        before = self._outage.attempts
        attempt()
        if self._outage.attempts == before and self._outage.probe_delay() == 0:
            # Its pool was closed, for example, or has no room. The next refused checkout may bring another.
            self.rests_until = clock.monotonic() + RETRY
            self.attempt = None
            return None
        return 0.0
