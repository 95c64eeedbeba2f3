"""The registry of this process's pools."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time

from poollife import clock
from poollife.board.page import page
from poollife.conf import PoolOptions
from poollife.drivers.contract import Driver
from poollife.pools import log
from poollife.pools.base import PoolKey
from poollife.pools.live import closed_pools, end_thread, live_pools, release
from poollife.pools.outage import forget_outages
from poollife.pools.pool import LeasePool
from poollife.pools.state import PoolState
from poollife.pools.sweeper import Sweeper
from poollife.process import uwsgi
from poollife.process.atfork import at_fork

logger = logging.getLogger("poollife")
#: Seconds between two looks whether all borrowed sessions are returned.
DRAIN_INTERVAL = 0.01


class Registry:
    """The pools of this process, by their key. It takes part in forks for all of them.

    The lock guards the sizes; to find or to make a pool takes no lock. Nothing is called while the lock is
    held (see fair_queue.py). A child gets a new lock.
    """

    def __init__(self) -> None:
        self._pools: dict[PoolKey, LeasePool] = {}
        self._lock = threading.RLock()
        #: Aliases whose pools are suspended, and sizes that take the place of the sizes in the settings.
        self._suspended: set[str] = set()
        self._sizes: dict[str, dict[str, int]] = {}
        #: The leases that the parent kept at the fork, for the log of this process.
        self._forked_leases: str | None = None
        self._ends_with_process = False
        self._sweeper = Sweeper(self.pools, self.close_unused)

    def pool(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        """Return the pool of this key, made if there is none yet.

        :param options: for a pool that is made.
        :param driver: for a pool that is made.
        """
        at_fork.ensure_process()
        if self._forked_leases:
            self._log_forked_leases()
        if closed_pools:
            self._reclaim_closed()
        return self._pools.get(key) or self._begin(key, options, driver)

    def _begin(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        """Make a pool. If two threads do, the second thread drops its own pool, which is empty."""
        made = self._make(key, options, driver)
        pool = self._pools.setdefault(key, made)
        if pool is not made:
            made.forget()
            return pool
        # suspend() and resize() change the pools that can be found. This pool may have missed a change.
        if (key.alias in self._suspended) != pool.suspended:
            pool.suspend(key.alias in self._suspended)
        if (wanted := self._sized(key.alias, options)) != pool.options:
            pool.resize(wanted)
        self._end_with_process()
        if pool.keeps_sessions:
            logger.info("Pool %r begins: %s", key.alias, description_of(pool), extra=log.about(key.alias))
            if missing := page.complaint():
                logger.warning(
                    "pool_status does not show all of this process (%d): %s",
                    os.getpid(),
                    missing,
                    extra=log.about(key.alias),
                )
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

    def find(self, key: PoolKey) -> LeasePool | None:
        """Return the pool of this key; None: there is none yet."""
        at_fork.ensure_process()
        return self._pools.get(key)

    def pools(self) -> list[LeasePool]:
        """Return the pools that a checkout can find now."""
        return list(self._pools.copy().values())

    def dispose(self, alias: str | None, reason: str, like: PoolKey | None = None) -> None:
        """Dispose of an alias's pools because its database has changed; the next checkout makes a new one.

        :param alias: None: all aliases.
        :param reason: for people.
        :param like: only the pools of the database that this key leads to; None: all pools of the alias.
        """
        for pool in self._remove(alias, like):
            pool.dispose(reason)

    def close(self, reason: str, alias: str | None = None) -> None:
        """Return the calling thread's sessions, and drain the pools.

        :param reason: for people.
        :param alias: None: all aliases.
        """
        release(alias)
        self.drain(alias, reason)

    def drain(self, alias: str | None, reason: str) -> None:
        """Drain the pools of an alias. Borrowers keep their sessions until they return them.

        :param alias: None: all aliases.
        :param reason: for people.
        """
        for pool in self._remove(alias):
            pool.drain(reason)

    def close_unused(self, pool: LeasePool, reason: str) -> None:
        """Drain this pool, unless it is in use.

        The sessions of dead threads, and of threads that wait for a job, are taken back first: an unused pool
        has no checkout that does it. A session that is borrowed at this very moment is closed when it is
        returned.

        :param reason: for people.
        """
        try:
            pool.reclaim(needed=True)
            if self._pools.get(pool.key) is not pool or pool.in_use:
                return
            removed = self._pools.pop(pool.key, None)
            if removed is not pool:
                # Another thread has closed the pool just now; ``removed`` is its successor.
                if removed:
                    self._pools.setdefault(pool.key, removed)
                return
            pool.drain(reason)
        finally:
            # A handler of the user's logs may have queried, in this thread, where no work ends.
            end_thread()
        self._reclaim_closed()

    def suspend(self, alias: str, suspended: bool = True) -> None:
        """Have checkouts of this alias's pools wait, of pools that are made later, too.

        :param suspended: False: serve the checkouts again.
        """
        at_fork.ensure_process()
        # First, for a pool that is being made just now.
        (self._suspended.add if suspended else self._suspended.discard)(alias)
        for pool in self._of(alias):
            pool.suspend(suspended)

    def renew(self, alias: str) -> None:
        """Have no session of an alias used any more that is open now."""
        at_fork.ensure_process()
        now = clock.monotonic()
        for pool in self._of(alias):
            pool.renew(now)

    def resize(self, options: PoolOptions, alias: str, sizes: dict[str, int]) -> None:
        """Change the sizes of this alias's pools, of pools that are made later, too.

        :param options: the options in the settings.
        :param sizes: the new values, by the names of the options.
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
        """Wait until all sessions of closed pools are returned; return whether that was so in time.

        :param alias: None: all aliases.
        :param timeout: seconds.
        """
        deadline = clock.monotonic() + timeout
        while True:
            pools = [
                pool
                for pool in live_pools.strong_references()
                if pool.closed_because and alias in (None, pool.key.alias)
            ]
            for pool in pools:
                pool.reclaim(needed=True)
            # A checkout that is under way is about to have a session.
            if not any(pool.out or pool.opening for pool in pools):
                return True
            if clock.monotonic() >= deadline:
                return False
            time.sleep(DRAIN_INTERVAL)

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
        """End leases of closed pools whose borrower is gone: no checkout of such a pool looks for them."""
        pools = closed_pools.copy()
        for pool in pools:
            pool.reclaim(thoroughly=False)
            if not pool.out:
                closed_pools.discard(pool)
        # A checkout that was under way in a closed pool may have ended just now.
        closed_pools.update(pool for pool in pools if pool.out)

    def end(self) -> None:
        """Close the sessions in order, as the process ends. Other living threads keep their sessions."""
        # Exit handlers are inherited: a child gives up here what is its parent's.
        at_fork.ensure_process()
        self._sweeper.end()
        # First, so that the wrappers are without a session: an exit handler that runs later may query.
        release(None)
        self._pools = {}
        for pool in live_pools.strong_references():
            pool.drain("its process ends")
            for lease in pool.leases_of_this_thread():
                pool.checkin(lease)

    def _end_with_process(self) -> None:
        # The children of multiprocessing leave by os._exit(), which runs no atexit handler, and they drop the
        # finalizers that they inherited. So each child needs a finalizer of its own.
        if not self._ends_with_process:
            self._ends_with_process = True
            # Another thread may be in the middle of its import; in a child of multiprocessing it is complete.
            if finalize := getattr(sys.modules.get("multiprocessing.util"), "Finalize", None):
                finalize(None, self.end, exitpriority=0)

    def settle(self) -> None:
        """Stop the sweeper before a fork. The fork does not wait for leases."""
        self._sweeper.stop()

    def resume(self) -> None:
        """Start the sweeper, in the parent: again, or where it could not begin before uWSGI had forked."""
        if any(pool.keeps_sessions for pool in self.pools()):
            self._sweeper.start()

    def strong_references(self) -> list[PoolState]:
        """Return strong references to all pools. A pool refers to its leases, and a lease to its session."""
        return live_pools.strong_references()

    def abandon(self, held: list[PoolState]) -> None:
        """Give up all pools, in a child: they are the parent's.

        :param held: the result of ``strong_references()`` before the fork.
        """
        self._pools = {}
        closed_pools.clear()
        # The code that has suspended them in the parent does not resume them here.
        self._suspended = set()
        self._lock = threading.RLock()
        self._sweeper = Sweeper(self.pools, self.close_unused)
        self._ends_with_process = False
        leases = [lease for pool in held for lease in pool.leases if lease.active]
        # Not logged here: a thread that exists only in the parent may have held the lock of the log's stream.
        # A child that asks for a connection does logging of its own anyway.
        forked = ", ".join(f"{lease.pool.key.alias!r} ({lease.holder})" for lease in leases)
        self._forked_leases = forked or self._forked_leases
        for pool in held:
            pool.abandon()
        live_pools.forget()
        forget_outages()
        log.pending.clear()  # the parent writes these records

    def _log_forked_leases(self) -> None:
        forked, self._forked_leases = self._forked_leases, None
        logger.info(
            "Forked while these connections were in use; the parent keeps them: %s",
            forked,
            extra=log.about(None),
        )


def description_of(pool: LeasePool) -> str:
    """Return the database and the sizes of a pool, for the log."""
    key, options = pool.key, pool.options
    place = f"database {str(key.database)!r}" + (f" at {key.place}" if key.place else "")
    return f"{place}, pool_size {options.pool_size}, max_overflow {options.max_overflow}"


registry = Registry()
at_fork.join(registry)
at_fork.on_resume(lambda: registry.resume())
atexit.register(registry.end)
# uWSGI runs this before the atexit handlers, which wait for threads, or are left out (skip-atexit-teardown).
uwsgi.at_exit(registry.end)
