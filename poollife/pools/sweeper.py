"""The thread that closes unused pools: of tenants, of removed aliases, of sites without requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from django.db import connections

from poollife import clock
from poollife.pools.background import Housekeeper
from poollife.pools.pool import LeasePool
from poollife.process.atfork import at_fork

#: Least and greatest number of seconds between two sweeps: no event reports that an alias was removed.
SHORTEST_NAP, LONGEST_NAP = 0.01, 60.0
#: Seconds that a fork or the end of the process waits for a sweep that is under way.
STOP_WAIT = 1.0


class Sweeper:
    """The process's thread that closes unused pools. It exists only while there is a pool to look after.

    It holds no lock while it closes a session. A fork stops it first, so that no child inherits a sweep that
    is half done, and the parent starts it again: after several forks at once the last one does. A child has a
    sweeper of its own.
    """

    def __init__(self, pools: Callable[[], list[LeasePool]], close: Callable[[LeasePool, str], None]) -> None:
        """
        :param pools: returns the pools that a checkout can find now.
        :param close: closes a pool, for a reason in words, unless the pool is in use.
        """
        self._pools = pools
        self._close = close
        self._housekeeper = Housekeeper("poollife's sweeper", self.sweep)
        self._ended = False

    def start(self) -> None:
        """Have the thread look after all pools, a new one included. A fork under way does so later."""
        if not (self._ended or at_fork.gate.closed):
            self._housekeeper.call()
            self._housekeeper.hurry()

    def end(self) -> None:
        """Stop for good, as the process ends: exit handlers that run later may still query."""
        self._ended = True
        self.stop()

    def hurry(self) -> None:
        """Have the thread look now, if it exists: pools were closed, maybe the last one."""
        self._housekeeper.hurry()

    def stop(self) -> None:
        """End the thread, and wait for its end, ``STOP_WAIT`` seconds at most."""
        self._housekeeper.stop(STOP_WAIT)

    def sweep(self) -> float | None:
        """Close the pools that are due.

        :returns: seconds until the next pool can be due; None: there is no pool to look after.
        """
        for pool in self._pools():
            pool.obey()  # for processes without checkouts
        for pool, reason in quiet_pools(self._pools(), clock.monotonic()):
            self._close(pool, reason)
        return next_sweep(self._pools(), clock.monotonic())


def quiet_pools(pools: list[LeasePool], now: float) -> Iterator[tuple[LeasePool, str]]:
    """Yield the pools to close, unless they are in use, each with the reason in words.

    A pool is surplus if its alias is gone, or if its alias has more sessions than its limit in the pools of
    several databases. As in one pool, the surplus is closed when it was idle for ``retire_interval``. So an
    alias that switches between databases (``NAME`` changed in place, a ``pool_key()`` that depends on the
    tenant) keeps the sessions used last, as many as one of its pools may have.

    :param now: on the monotonic clock.
    """
    sessions: Counter[str] = Counter()
    for pool in sorted(pools, key=lambda pool: pool.quiet_for(now)):
        alias, options, quiet_for = pool.key.alias, pool.options, pool.quiet_for(now)
        sessions[alias] += pool.out + pool.idle
        if options.max_pool_idle is not None and quiet_for >= options.max_pool_idle:
            yield pool, f"unused for {options.max_pool_idle:g} s (max_pool_idle)"
        elif quiet_for < options.retire_interval:
            continue
        elif alias not in connections.settings:
            yield pool, "its alias is not in DATABASES any more"
        elif options.limit is not None and sessions[alias] > options.limit:
            yield pool, "its alias uses other databases now"


def next_sweep(pools: list[LeasePool], now: float) -> float | None:
    """Return the seconds until one of these pools can be due; None: none of them keeps sessions.

    :param now: on the monotonic clock.
    """
    pools = [pool for pool in pools if pool.keeps_sessions]
    limits = [(pool, pool.options.max_pool_idle) for pool in pools]
    naps = [
        limit if pool.in_use else limit - pool.quiet_for(now) for pool, limit in limits if limit is not None
    ]
    # An alias that was made for one query is gone soon after that.
    naps += [nap for pool in pools if (nap := pool.made + pool.options.retire_interval - now) > 0]
    aliases = {pool.key.alias for pool in pools}
    if len(pools) > len(aliases) or not aliases <= connections.settings.keys():
        naps += [pool.options.retire_interval for pool in pools]
    return max(SHORTEST_NAP, min([*naps, LONGEST_NAP])) if pools else None
