"""Who borrowed what, and for how long: ``POOL["trace"]`` and ``POOL["leak_after"]``."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from poollife import clock
from poollife.pools.background import may_start_thread
from poollife.pools.base import BasePool
from poollife.pools.lease import Lease
from poollife.pools.live import end_thread, live_pools
from poollife.stacks import line_in, stack_of, stacks_of, text_of

logger = logging.getLogger("poollife")

#: Seconds after which a thread that promised to look is taken for gone.
GRACE = 5.0
#: Seconds between two looks, at the least.
SHORTEST_NAP = 0.01


class Watch:
    """Keeps the stack of each of a pool's borrowers, and warns of what is held for too long.

    A thread looks after that, but only while something is out that was not warned of. No lock: it holds no
    lease, and a second thread, should two checkouts start one at a time, sends the first one home.
    """

    def __init__(self, pool: BasePool) -> None:
        self._pool = pool
        self._after = math.inf if pool.options.leak_after is None else pool.options.leak_after
        #: Until when somebody will look again; on the monotonic clock.
        self._promised = -math.inf
        self._housekeeper: object = None
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def borrowed(self, lease: Lease) -> None:
        """A checkout has this lease, and nobody has it yet."""
        # From the wrapper's connect() on: neither this nor the pool's checkout().
        lease.stack = stack_of(sys._getframe(2))
        if self._after < math.inf and lease.since >= self._promised:
            self._keep_house()

    def returned(self, lease: Lease) -> None:
        """It has ended; its connection is back, or closed."""
        held = lease.age
        if held >= self._after:
            # Should nobody have looked in time, that there was a leak is still to be told.
            self._warn(lease, held)
            logger.warning(
                "Pool %r: what %s had is back after %.1f s", self._pool.key.alias, lease.holder, held
            )

    def hurry(self) -> None:
        """Look now: the pool was closed, and there may be nothing left to look after."""
        self._calls.put(None)

    def look(self) -> float | None:
        """Warn of what is overdue, and take back what nobody can give back any more.

        :returns: seconds until more may be; None: there is nothing out that was not warned of.
        """
        waiting = [lease for lease in self._pool.leases.copy() if not (lease.reported or lease.returned)]
        for lease in waiting:
            if lease.age >= self._after:
                self._warn(lease, lease.age)
        self._pool.reclaim()
        ages = [lease.age for lease in waiting if not (lease.reported or lease.returned)]
        return max(self._after - max(ages), SHORTEST_NAP) if ages else None

    def _warn(self, lease: Lease, held: float) -> None:
        if not self._pool.claim_report(lease):
            return
        now = line_in(stacks_of([lease.thread]).get(lease.thread, ()), fallback=True)
        logger.warning(
            "Pool %r: %s has had a connection for %.1f s, longer than leak_after (%g s)%s. Borrowed by:\n%s",
            self._pool.key.alias,
            lease.holder,
            held,
            self._after,
            f", and is now at {now}" if now and not lease.returned else "",
            text_of(lease.stack),
        )

    def _keep_house(self) -> None:
        self._promised = clock.monotonic() + self._after + GRACE
        # Where there may be no thread, returned() tells.
        if not may_start_thread():
            return
        # A child has neither the thread nor the pool. At the end of the process nobody waits for it, and none
        # can be started any more: then, too, returned() tells, as where a process may have no more threads.
        with suppress(RuntimeError):
            threading.Thread(target=self._look_after, name="poollife-leaks", daemon=True).start()

    def _look_after(self) -> None:
        me = self._housekeeper = object()
        while self._housekeeper is me:
            nap = self._look_as_guest()
            if nap is None:
                # Who borrows from here on must not rely on this one; who did so before is seen now.
                self._promised = -math.inf
                nap = self._look_as_guest()
            if nap is None:
                return
            self._promised = clock.monotonic() + nap + GRACE
            with suppress(queue.Empty):
                self._calls.get(timeout=nap)

    def _look_as_guest(self) -> float | None:
        """Leave nothing in this thread: a handler of the user's logs may query."""
        try:
            return self.look()
        finally:
            end_thread()


class _Tracing:
    """How many have asked for the stacks of all pools."""

    wanted = 0


def watch_for(pool: BasePool, present: Watch | None = None) -> Watch | None:
    """None where nobody has asked for it: not even a call.

    :param present: what this pool has.
    """
    options = pool.options
    if options.trace or options.leak_after is not None or _Tracing.wanted:
        return present or Watch(pool)
    return None


@contextmanager
def tracing() -> Iterator[None]:
    """Keep the stacks of all borrowers of this process meanwhile, whatever POOL says."""
    _Tracing.wanted += 1
    try:
        for pool in live_pools.hold():
            pool.watch()
        yield
    finally:
        _Tracing.wanted -= 1
        for pool in live_pools.hold():
            pool.watch()
