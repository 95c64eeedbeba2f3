"""The stacks of borrowers, and warnings of long holds: ``POOL["trace"]`` and ``POOL["leak_after"]``."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from poollife import clock
from poollife.pools import log
from poollife.pools.background import may_start_thread
from poollife.pools.lease import Lease
from poollife.pools.live import end_thread, live_pools
from poollife.pools.state import PoolState
from poollife.stacks import line_in, stack_of, stacks_of, text_of

logger = logging.getLogger("poollife")

#: Seconds by which a thread's next look may be late before the thread is taken for gone.
GRACE = 5.0
#: Least number of seconds between two looks.
SHORTEST_NAP = 0.01


class Watch:
    """The stacks of a pool's borrowers, and the warnings of sessions that are held for too long.

    A thread looks for these sessions, but only while one is out that the log has not reported. It holds no
    lease. There is no lock: if two checkouts start a thread each, the second thread makes the first one end.
    """

    def __init__(self, pool: PoolState) -> None:
        self._pool = pool
        self._after = math.inf if pool.options.leak_after is None else pool.options.leak_after
        #: The time until which a thread is sure to look again; on the monotonic clock.
        self._promised = -math.inf
        self._housekeeper: object = None
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def borrowed(self, lease: Lease) -> None:
        """Note the stack of a new lease. Its checkout calls this, before the borrower has the lease."""
        # From the wrapper's connect() on, without this frame and that of the pool's checkout().
        lease.stack = stack_of(sys._getframe(2))
        if self._after < math.inf and lease.since >= self._promised:
            self._keep_house()

    def returned(self, lease: Lease) -> None:
        """Report a lease that has ended, if it was held for too long. Its session is returned, or closed."""
        held = lease.age
        if held >= self._after:
            # The thread may not have looked in time: then the first warning is still to be logged.
            self._warn(lease, held)
            logger.warning(
                "Pool %r: the connection of %s is back after %.1f s",
                self._pool.key.alias,
                lease.holder,
                held,
                extra=log.about(self._pool.key.alias, lease.session),
            )

    def hurry(self) -> None:
        """Wake the thread: the pool was closed, and there may be nothing left to look after."""
        self._calls.put(None)

    def look(self) -> float | None:
        """Warn of the leases that are overdue, and end the leases whose borrower is gone.

        :returns: seconds until the next lease may be overdue; None: each lease that is out was reported.
        """
        waiting = [lease for lease in self._pool.leases.copy() if lease.active and not lease.reported]
        for lease in waiting:
            if lease.age >= self._after:
                self._warn(lease, lease.age)
        self._pool.reclaim()
        ages = [lease.age for lease in waiting if lease.active and not lease.reported]
        return max(self._after - max(ages), SHORTEST_NAP) if ages else None

    def _warn(self, lease: Lease, held: float) -> None:
        if not self._pool.claim_report(lease):
            return
        now = line_in(stacks_of([lease.thread]).get(lease.thread, ()), fallback=True)
        logger.warning(
            "Pool %r: %s has had %s for %.1f s, longer than leak_after (%g s)%s. Borrowed by:\n%s",
            self._pool.key.alias,
            lease.holder,
            f"session {lease.session}" if lease.session else "a connection",
            held,
            self._after,
            f", and is now at {now}" if now and lease.active else "",
            text_of(lease.stack),
            extra=log.about(self._pool.key.alias, lease.session),
        )

    def _keep_house(self) -> None:
        self._promised = clock.monotonic() + self._after + GRACE
        # Where no thread is allowed, returned() reports.
        if not may_start_thread():
            return
        # A child has neither the thread nor the pool. The end of the process does not wait for the thread.
        # Then no thread can be started any more: returned() reports, too.
        with suppress(RuntimeError):
            threading.Thread(target=self._look_after, name="poollife-leaks", daemon=True).start()

    def _look_after(self) -> None:
        me = self._housekeeper = object()
        while self._housekeeper is me:
            nap = self._look_as_guest()
            if nap is None:
                # A checkout from here on starts another thread; an earlier one is seen by the next look.
                self._promised = -math.inf
                nap = self._look_as_guest()
            if nap is None:
                return
            self._promised = clock.monotonic() + nap + GRACE
            with suppress(queue.Empty):
                self._calls.get(timeout=nap)

    def _look_as_guest(self) -> float | None:
        """Look, and leave no lease in this thread: a handler of the user's logs may query."""
        try:
            return self.look()
        finally:
            end_thread()


class _Tracing:
    """The number of ``tracing()`` blocks that are open."""

    wanted = 0


def watch_for(pool: PoolState, present: Watch | None = None) -> Watch | None:
    """Return the watch of a pool; None: neither its options nor ``tracing()`` ask for one.

    Without a watch, checkout and checkin make no call for it.

    :param present: the watch that the pool has.
    """
    options = pool.options
    if options.trace or options.leak_after is not None or _Tracing.wanted:
        return present or Watch(pool)
    return None


@contextmanager
def tracing() -> Iterator[None]:
    """Keep the stacks of all borrowers of this process while the block runs, whatever POOL says."""
    _Tracing.wanted += 1
    try:
        for pool in live_pools.strong_references():
            pool.watch()
        yield
    finally:
        _Tracing.wanted -= 1
        for pool in live_pools.strong_references():
            pool.watch()
