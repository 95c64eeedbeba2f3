"""The pools of this process."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time

from poollife import clock
from poollife.conf import PoolOptions
from poollife.drivers.contract import Driver
from poollife.pools import log
from poollife.pools.base import BasePool, PoolKey
from poollife.pools.live import closed_pools, end_thread, live_pools, release
from poollife.pools.outage import forget_outages
from poollife.pools.pool import LeasePool
from poollife.pools.sweeper import Sweeper
from poollife.process import uwsgi
from poollife.process.atfork import at_fork

logger = logging.getLogger("poollife")
#: Seconds between two looks whether all is back.
INTERVAL = 0.01


class Registry:
    """Finds pools by their key, and takes part in forks for all of them.

    The lock guards the sizes; to find or to make a pool takes none. Nothing is called while it is held (see
    fair_queue.py). A child gets a new one.
    """

    def __init__(self) -> None:
        self._pools: dict[PoolKey, LeasePool] = {}
        self._lock = threading.RLock()
        #: Aliases whose pools serve nobody, and sizes that pools have in place of their settings'.
        self._suspended: set[str] = set()
        self._sizes: dict[str, dict[str, int]] = {}
        self._news: str | None = None
        self._ends_with_process = False
        self._sweeper = Sweeper(self.pools, self.close_unused)

    def pool(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        """The pool of this key, made if there is none yet."""
        at_fork.ensure_process()
        if self._news:
            self._tell()
        if closed_pools:
            self._reclaim_closed()
        return self._pools.get(key) or self._begin(key, options, driver)

    def _begin(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        """Make a pool. Where two threads do, the second one drops its own, in which there is nothing."""
        made = self._make(key, options, driver)
        pool = self._pools.setdefault(key, made)
        if pool is not made:
            made.forget()
            return pool
        # suspend() and resize() tell the pools that can be found: what was changed before that is old.
        if (key.alias in self._suspended) != pool.suspended:
            pool.suspend(key.alias in self._suspended)
        if (wanted := self._sized(key.alias, options)) != pool.options:
            pool.resize(wanted)
        self._end_with_process()
        if pool.keeps_sessions:
            logger.info("Pool %r begins: %s", key.alias, description_of(pool))
            self._sweeper.start()
        return pool

    def _sized(self, alias: str, options: PoolOptions) -> PoolOptions:
        sizes = self._sizes.get(alias)
        return options.resized(alias, sizes) if sizes else options

    def _make(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        pool = LeasePool(key, self._sized(key.alias, options), driver)
        if key.alias in self._suspended:
            pool.suspend()
        return pool

    def pools(self) -> list[LeasePool]:
        """Those that a checkout may find now."""
        return list(self._pools.copy().values())

    def dispose(self, alias: str, reason: str, like: PoolKey | None = None) -> None:
        """Close this alias's pools because its database has changed; the next checkout starts a new one.

        :param reason: for people.
        :param like: close only the pools of the database that this key leads to. None: all of the alias.
        """
        for pool in self._remove(alias, like):
            pool.dispose(reason)

    def close(self, reason: str, alias: str | None = None) -> None:
        """Give back what the calling thread has, and drain.

        :param reason: for people.
        :param alias: None: all aliases.
        """
        release(alias)
        self.drain(alias, reason)

    def drain(self, alias: str | None, reason: str) -> None:
        """Close this alias's pools, or all, but leave to borrowers what they have.

        :param reason: for people.
        """
        for pool in self._remove(alias):
            pool.drain(reason)

    def close_unused(self, pool: LeasePool, reason: str) -> None:
        """Close this pool, unless something of it is in use.

        What dead threads have left out, and threads that wait for a job, is taken back first: no checkout of
        such a pool comes by to do it. A session that is borrowed at this very moment is closed when it comes
        back.

        :param reason: for people.
        """
        try:
            pool.reclaim(needed=True)
            if self._pools.get(pool.key) is not pool or pool.in_use:
                return
            removed = self._pools.pop(pool.key, None)
            if removed is not pool:
                # Another thread has closed it just now; this is its successor.
                if removed:
                    self._pools.setdefault(pool.key, removed)
                return
            pool.drain(reason)
        finally:
            # A handler of the user's logs may have queried, in a thread that ends with nothing.
            end_thread()
        self._reclaim_closed()

    def suspend(self, alias: str, suspended: bool = True) -> None:
        """Have who asks this alias's pools wait, those that are still to be made included; or end that."""
        at_fork.ensure_process()
        # First, for a pool that is being made just now.
        (self._suspended.add if suspended else self._suspended.discard)(alias)
        for pool in self._of(alias):
            pool.suspend(suspended)

    def resize(self, options: PoolOptions, alias: str, sizes: dict[str, int]) -> None:
        """Have this alias's pools have these sizes, those that are still to be made included.

        :param options: what its settings say.
        """
        at_fork.ensure_process()
        done = False
        while not done:
            known = self._sizes
            together = {**known.get(alias, {}), **sizes}
            resized, changed = options.resized(alias, together), {**known, alias: together}
            with self._lock:
                if done := self._sizes is known:
                    self._sizes = changed
        for pool in self._of(alias):
            pool.resize(resized)

    def wait_until_back(self, alias: str | None, timeout: float) -> bool:
        """Wait for what is out of closed pools of this alias, or of all; whether it came back in time."""
        deadline = clock.monotonic() + timeout
        while True:
            pools = [
                pool for pool in live_pools.hold() if pool.closed_because and alias in (None, pool.key.alias)
            ]
            for pool in pools:
                pool.reclaim(needed=True)
            # A checkout that was under way is about to have something.
            if not any(pool.out or pool.opening for pool in pools):
                return True
            if clock.monotonic() >= deadline:
                return False
            time.sleep(INTERVAL)

    def _of(self, alias: str) -> list[LeasePool]:
        return [pool for pool in self.pools() if pool.key.alias == alias]

    def _remove(self, alias: str | None, like: PoolKey | None = None) -> list[LeasePool]:
        at_fork.ensure_process()
        keys = [
            pool.key
            for pool in self.pools()
            if alias in (None, pool.key.alias) and (like is None or like.same_database(pool.key))
        ]
        removed = [pool for key in keys if (pool := self._pools.pop(key, None))]
        self._sweeper.hurry()
        return removed

    def _reclaim_closed(self) -> None:
        """What threads had that have ended since: nobody checks out there any more, and so looks for it."""
        pools = closed_pools.copy()
        for pool in pools:
            pool.reclaim(thoroughly=False)
            if not pool.out:
                closed_pools.discard(pool)
        # A checkout that was under way in one may have come to its end just now.
        closed_pools.update(pool for pool in pools if pool.out)

    def end(self) -> None:
        """Say goodbye to the servers, as the process ends. What other living threads have is left alone."""
        # Exit handlers are inherited: a child forgets here what is its parent's.
        at_fork.ensure_process()
        self._sweeper.end()
        # First, so that wrappers know: an exit handler that runs after this one may query.
        release(None)
        self._pools = {}
        for pool in live_pools.hold():
            pool.drain("its process ends")
            for lease in pool.leases_of_this_thread():
                pool.checkin(lease)

    def _end_with_process(self) -> None:
        # The children of multiprocessing leave by os._exit(), which runs no atexit handler, and they drop the
        # finalizers that they inherited: each needs one of its own.
        if not self._ends_with_process:
            self._ends_with_process = True
            # Another thread may be in the middle of importing it; in such a child it is whole.
            if finalize := getattr(sys.modules.get("multiprocessing.util"), "Finalize", None):
                finalize(None, self.end, exitpriority=0)

    def settle(self) -> None:
        """Stop the sweeper before a fork. Leases may be out: nothing else to wait for."""
        self._sweeper.stop()

    def resume(self) -> None:
        """Start the sweeper, in the parent: again, or where it could not begin before uWSGI had forked."""
        if any(pool.keeps_sessions for pool in self.pools()):
            self._sweeper.start()

    def hold(self) -> list[BasePool]:
        """A pool holds its leases, and those SQLAlchemy's handles."""
        return live_pools.hold()

    def abandon(self, held: list[BasePool]) -> None:
        """In a child."""
        self._pools = {}
        closed_pools.clear()
        # Who suspended them does not know of this process.
        self._suspended = set()
        self._lock = threading.RLock()
        self._sweeper = Sweeper(self.pools, self.close_unused)
        self._ends_with_process = False
        leases = [lease for pool in held for lease in pool.leases if not lease.returned]
        # Not logged here: a thread that no longer exists may have held the lock of the log's stream. A child
        # that asks for a connection does logging of its own anyway.
        news = ", ".join(f"{lease.pool.key.alias!r} ({lease.holder})" for lease in leases)
        self._news = news or self._news
        for pool in held:
            pool.abandon()
        live_pools.forget()
        forget_outages()
        log.pending.clear()  # the parent writes that

    def _tell(self) -> None:
        news, self._news = self._news, None
        logger.info("Forked while these connections were in use; the parent keeps them: %s", news)


def description_of(pool: LeasePool) -> str:
    """Return where a pool leads, and its sizes, for the log."""
    key, options = pool.key, pool.options
    server = ":".join(str(part) for part in key.server if part)
    place = f"database {str(key.database)!r}" + (f" at {server}" if server else "")
    return f"{place}, pool_size {options.pool_size}, max_overflow {options.max_overflow}"


registry = Registry()
at_fork.join(registry)
at_fork.on_resume(lambda: registry.resume())
atexit.register(registry.end)
# Ahead of atexit's, which waits for threads, or is left out (skip-atexit-teardown).
uwsgi.at_exit(registry.end)
