"""The pools of this process."""

from __future__ import annotations

import atexit
import logging
import sys
import threading

from poollife.conf import PoolOptions
from poollife.drivers import uwsgi
from poollife.drivers.atfork import at_fork
from poollife.drivers.connection import Driver
from poollife.pools.lease import Lease
from poollife.pools.pool import LeasePool, PoolKey, live_pools

logger = logging.getLogger("poollife")


class Registry:
    """Finds pools by their key, and takes part in forks for all of them.

    The lock guards the making of a pool; finding one takes none. A child gets a new one of both.
    """

    def __init__(self) -> None:
        self._pools: dict[PoolKey, LeasePool] = {}
        # Reentrant: a signal's handler or a finalizer may query in the middle of it.
        self._lock = threading.RLock()
        self._news: str | None = None
        self._ends_with_process = False

    def pool(self, key: PoolKey, options: PoolOptions, driver: Driver) -> LeasePool:
        """The pool of this key, made if there is none yet."""
        at_fork.ensure_process()
        if self._news:
            self._tell()
        pool = self._pools.get(key)
        if pool is None:
            with self._lock:
                pool = self._pools.get(key)
                if pool is None:
                    pool = self._pools.setdefault(key, LeasePool(key, options, driver))
                    self._end_with_process()
        return pool

    def pools(self) -> list[LeasePool]:
        """Those that a checkout may find now."""
        return list(self._pools.copy().values())

    def dispose(self, alias: str, reason: str) -> None:
        """Close this alias's pools because its database has changed; the next checkout starts a new one.

        :param reason: for people.
        """
        for pool in self._remove(alias):
            pool.dispose(reason)

    def drain(self, alias: str | None, reason: str) -> None:
        """Close this alias's pools, or all, but leave to borrowers what they have.

        :param reason: for people.
        """
        for pool in self._remove(alias):
            pool.drain(reason)

    def _remove(self, alias: str | None) -> list[LeasePool]:
        at_fork.ensure_process()
        keys = [pool.key for pool in self.pools() if alias in (None, pool.key.alias)]
        return [pool for key in keys if (pool := self._pools.pop(key, None))]

    def give_back(self, alias: str | None) -> None:
        """End the calling thread's leases of this alias, or of all, those in an atomic block excepted."""
        for lease in self._leases_of_this_thread():
            if alias in (None, lease.pool.key.alias):
                lease.give_back()

    def end_thread(self) -> None:
        """End all that the calling thread has: nothing goes on in it that could end an atomic block."""
        for lease in self._leases_of_this_thread():
            lease.forget_blocks()
            lease.give_back()

    def _leases_of_this_thread(self) -> list[Lease]:
        at_fork.ensure_process()
        return [lease for pool in live_pools.hold() for lease in pool.leases_of_this_thread()]

    def end(self) -> None:
        """Say goodbye to the servers, as the process ends. What other living threads have is left alone."""
        # Exit handlers are inherited: a child forgets here what is its parent's.
        at_fork.ensure_process()
        # First, so that wrappers know: an exit handler that runs after this one may query.
        self.give_back(None)
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
        """Before a fork. Leases may be out: nothing to wait for."""

    def hold(self) -> list[LeasePool]:
        """A pool holds its leases, and those SQLAlchemy's handles."""
        return live_pools.hold()

    def abandon(self, held: list[LeasePool]) -> None:
        """In a child."""
        self._pools = {}
        self._lock = threading.RLock()
        self._ends_with_process = False
        leases = [lease for pool in held for lease in pool.leases if not lease.returned]
        # Not logged here: a thread that no longer exists may have held the lock of the log's stream. A child
        # that asks for a connection does logging of its own anyway.
        news = ", ".join(f"{lease.pool.key.alias!r} ({lease.holder})" for lease in leases)
        self._news = news or self._news
        for pool in held:
            pool.abandon()
        live_pools.forget()

    def _tell(self) -> None:
        news, self._news = self._news, None
        logger.info("Forked while these connections were in use; the parent keeps them: %s", news)


registry = Registry()
at_fork.join(registry)
atexit.register(registry.end)
# Ahead of atexit's, which waits for threads, or is left out (skip-atexit-teardown).
uwsgi.at_exit(registry.end)
