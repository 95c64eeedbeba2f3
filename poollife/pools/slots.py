"""The slots of a queue, each with a name: what is in them, and what may be done with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from poollife import clock
from poollife.conf import Bounds
from poollife.pools.base import Slots
from poollife.pools.tickets import Holder, Ticket

#: Sessions that are opened at once: in a burst those that are out may well be back before a new one is there.
OPENINGS = 3
#: How often those who wait look up, all together: for what was given back without a word.
LOOKS_PER_SECOND = 200


def fit(connection: Any) -> str | None:
    """Nobody has told what else to look at."""
    return None


def no_delay(ticket: Ticket) -> float:
    """Nothing has told what else to wait for."""
    return 0.0


def never() -> bool:
    """Nothing has told that no session may be opened."""
    return False


class NamedSlots(QueuePool, Slots):
    """SQLAlchemy's QueuePool with other collections inside. ``FairQueuePool`` changes them.

    The lock guards all three and the tickets in them, and is held for a few statements without a call (see
    fair_queue.py). ``hold()`` and a ticket's ``active`` do without it.
    """

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(creator, pool_size, max_overflow, timeout, **options)
        self.bounds: Bounds = Bounds(pool_size + max_overflow, pool_size)
        #: Whether nobody is served.
        self.suspended = False
        #: Called where there is a surplus, or too little is idle.
        self.unbalanced: Callable[[], object] = int
        #: Why a session is not fit to be handed out, if so.
        self.unfit: Callable[[Any], str | None] = fit
        #: Seconds until a session may be opened for a ticket that waits.
        self.opening_delay: Callable[[Ticket], float] = no_delay
        #: Whether none may be opened for want of a server, or of room there: empty slots are no room then.
        self.out_of_reach: Callable[[], bool] = never
        self._patience = timeout
        #: A record of SQLAlchemy's, or a ticket where that is still to be made; and who has it, or None.
        self._slots: dict[ConnectionPoolEntry | Ticket, Holder | None] = {}
        #: The records that nobody has. The one used last is the least likely to be dead: it goes first.
        self._free: list[ConnectionPoolEntry] = []
        #: The tickets that wait, in their order. Replaced as a whole.
        self._waiting: tuple[Ticket, ...] = ()
        #: The tickets that were served, and are still to be woken by their signal.
        self._due: dict[Ticket, threading.Lock] = {}
        #: The number of changes of these three: a plan that was made before the last one is made anew.
        self._changes = 0
        self._lock = threading.RLock()

    @property
    def idle(self) -> int:
        """Sessions that nobody has."""
        return sum(entry.dbapi_connection is not None for entry in self._free.copy())

    @property
    def exhausted(self) -> bool:
        """Whether a checkout would have to wait."""
        return not self._free and len(self._slots) >= self.bounds.limit

    @property
    def opening(self) -> int:
        """Sessions that are being opened, or about to be."""
        return sum(isinstance(slot, Ticket) and slot.active for slot in self._slots.copy())

    @property
    def preparing(self) -> int:
        """The same, and those that are asked whether they are alive."""
        slots = self._slots.copy().items()
        return sum(
            isinstance(holder, Ticket) and holder.active and slot in (holder, holder.entry)
            for slot, holder in slots
        )

    @property
    def surplus(self) -> int:
        """Sessions beyond what is kept."""
        return max(0, len(self._slots) - self.bounds.core)

    @property
    def shortage(self) -> int:
        """Sessions that should be idle, and are not there yet."""
        bounds = self.bounds
        return max(0, min(bounds.limit - len(self._slots), bounds.min_idle - len(self._free)))

    @property
    def waiting(self) -> int:
        """Checkouts that have no slot yet."""
        return sum(ticket.active and not ticket.served for ticket in self._waiting)

    def abandon(self) -> None:
        """In a child that was forked inside a checkout: a thread that no longer exists may have the lock."""
        self._lock = threading.RLock()

    def checkedin(self) -> int:
        return len(self._free)

    def checkedout(self) -> int:
        return len(self._slots) - len(self._free)

    def overflow(self) -> int:
        return len(self._slots) - self.size()

    def _is_lost(self, slot: ConnectionPoolEntry | Ticket, holder: Holder | None) -> bool:
        return slot not in self._free if holder is None else not holder.active

    def _may_open(self, ticket: Ticket) -> bool:
        if len(self._slots) >= self.bounds.limit or self._unloading(ticket) > 0:
            return False
        if self.opening_delay(ticket) > 0:
            return False
        # A ticket that can't wait at all does not wait for other sessions to be opened either.
        return self.opening < OPENINGS or ticket.deadline <= ticket.joined or ticket.outer is not None

    def _patience_of(self, ticket: Ticket) -> float:
        """Seconds until it looks up. One look is for all: the more there are, the less often each."""
        patience = max(self._patience, len(self._waiting) / LOOKS_PER_SECOND)
        if self.bounds.unload_timeout and (unloading := self._unloading(ticket)) > 0:
            patience = min(patience, unloading)
        # Of those that wait for leave to open one, the first gets it.
        if self._waiting[:1] == (ticket,) and (delay := self.opening_delay(ticket)) > 0:
            patience = min(patience, delay)
        left = ticket.deadline - clock.monotonic()
        return patience if patience < left else max(0.0, left)

    def _unloading(self, ticket: Ticket) -> float:
        """Seconds for which it still waits for what others give back, rather than have a session opened."""
        # Where there is none, nothing can come back. In the end better one is opened than none had.
        if len(self._slots) < max(1, self.bounds.core):
            return 0.0
        return min(ticket.joined + self.bounds.unload_timeout, ticket.deadline) - clock.monotonic()
