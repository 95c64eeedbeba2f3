"""``POOL["poolclass"]``: the operations that a ``LeasePool`` needs, with another pool class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import NotSupportedError
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, PoolProxiedConnection, QueuePool

from poollife import clock
from poollife.conf import Bounds, NoPool, PoolOptions
from poollife.pools.base import Slots
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.slots import accept_any, never, no_delay
from poollife.pools.tickets import Postponed, Ticket

#: Seconds between two looks whether a session may be opened, the first and the longest: many may look.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.005, 0.1


class Counted(Slots):
    """The slots of another pool class. They have no names, so a slot whose holder is gone can't be found."""

    def __init__(self, sessions: Pool, limit: int | None) -> None:
        # NullPool has neither slots nor a limit.
        self._sessions = sessions if isinstance(sessions, QueuePool) else None
        self._limit = limit
        self._pool = sessions
        event.listen(sessions, "checkout", self._refuse_unfit)
        self.reason_to_replace: Callable[[Any], str | None] = accept_any
        self.opening_delay: Callable[[Ticket], float] = no_delay
        self.out_of_reach: Callable[[], bool] = never

    def _refuse_unfit(
        self, connection: Any, record: ConnectionPoolEntry, handle: PoolProxiedConnection
    ) -> None:
        """Have SQLAlchemy replace a session that is not fit.

        :raises DisconnectionError: tells SQLAlchemy to do so.
        """
        if reason := self.reason_to_replace(connection):
            raise exc.DisconnectionError(reason)

    def take(self, ticket: Ticket) -> PoolProxiedConnection:
        if self.exhausted:
            ticket.joined = clock.monotonic()
        interval = SHORTEST_INTERVAL
        while True:
            try:
                return self._pool.connect()
            except Postponed:
                # SQLAlchemy's own queue knows no turns. The checkout has no slot meanwhile.
                time.sleep(max(SHORTEST_INTERVAL, min(interval, self.opening_delay(ticket))))
                interval = min(2 * interval, LONGEST_INTERVAL)

    def put(self, handle: Any) -> None:
        handle.close()

    @property
    def idle(self) -> int:
        return self._sessions.checkedin() if self._sessions else 0

    @property
    def exhausted(self) -> bool:
        if self._sessions is None or self._limit is None:
            return False
        return self._sessions.checkedout() >= self._limit

    #: The pool class does not count these, and its size can't be changed.
    opening = preparing = waiting = surplus = shortage = 0
    suspended = False
    bounds: Bounds | None = None
    unbalanced: Callable[[], object] = int

    def change(self, bounds: Bounds | None = None, *, suspended: bool | None = None) -> None:
        raise NotSupportedError(f"{type(self._pool).__name__} has a fixed size")

    def prepare(self, ticket: Ticket, *, spare: bool = False) -> bool:
        if self._sessions:
            return False  # connect() may return a session that is open already
        self._pool.connect().close()
        return True

    def free(self, handle: PoolProxiedConnection | None = None) -> None:
        # After an interrupted return the handle may be empty.
        if handle is not None and handle.is_valid:
            handle.invalidate()


def pool_class(options: PoolOptions) -> type[Pool]:
    """Return the class of SQLAlchemy's pool that these options ask for."""
    if options.poolclass is NoPool:
        return NullPool
    return options.poolclass or FairQueuePool


def slots_of(sessions: Pool, bounds: Bounds | None, lock: threading.RLock, counters: Any) -> Slots:
    """Return the slots of a pool of SQLAlchemy's.

    :param bounds: the sizes; None: no limit.
    :param lock: the lock of the ``LeasePool``, which guards the slots, too.
    :param counters: the counters of the ``LeasePool``.
    """
    if not isinstance(sessions, FairQueuePool):
        return Counted(sessions, bounds.limit if bounds else None)
    sessions.share(lock, counters)
    if bounds:
        sessions.bounds = bounds
    return sessions
