"""The slots of a queue, each with a name: their content, their numbers, and the rules of waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from poollife import clock
from poollife.board.layout import Cells
from poollife.conf import Bounds
from poollife.pools.base import Slots
from poollife.pools.tickets import Holder, Ticket

#: The number of sessions that are opened at the same time: in a burst, a borrowed session may well be
#: returned before a new one is open.
OPENINGS = 3
#: The number of looks per second by all waiting threads together, for sessions that were returned without a
#: signal to them.
LOOKS_PER_SECOND = 200


def accept_any(connection: Any) -> str | None:
    """Return None: a session is fit, as long as the pool has set no other rule."""
    return None


def no_delay(ticket: Ticket) -> float:
    """Return 0: a ticket does not wait, as long as the pool has set no other rule."""
    return 0.0


def never() -> bool:
    """Return False: a session can be opened, as long as the pool has set no other rule."""
    return False


class NamedSlots(QueuePool, Slots):
    """SQLAlchemy's QueuePool with other collections inside. ``FairQueuePool`` changes them.

    The lock guards the slots, the free records, the queue, and the tickets in them. It is held for a few
    statements without a call (see fair_queue.py). ``hold()`` and a ticket's ``active`` do without it.
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
        #: The counters of the pool: WAITING, MAX_WAITING and SUSPENDED are written here.
        self.counters: Any = Cells().counters
        #: Whether no ticket is served.
        self.suspended = False
        #: Called when there is a surplus, or when fewer sessions than ``min_idle`` are idle.
        self.unbalanced: Callable[[], object] = int
        #: Returns the reason why a session can't be lent, None if it can.
        self.reason_to_replace: Callable[[Any], str | None] = accept_any
        #: Returns the seconds until a session may be opened for a ticket that waits.
        self.opening_delay: Callable[[Ticket], float] = no_delay
        #: Returns whether no session can be opened, as the server does not answer or has no room: then empty
        #: slots are no room either.
        self.out_of_reach: Callable[[], bool] = never
        #: The holder of each slot, or None. The name of a slot is SQLAlchemy's record, or a ticket while the
        #: record is still to be made.
        self._slots: dict[ConnectionPoolEntry | Ticket, Holder | None] = {}
        #: The records without a holder. The session used last is the least likely to be dead: it goes first.
        self._free: list[ConnectionPoolEntry] = []
        #: The tickets that wait, in their order. Replaced as a whole.
        self._waiting: tuple[Ticket, ...] = ()
        #: The tickets that were served, and are still to be woken by their signal.
        self._due: dict[Ticket, threading.Lock] = {}
        #: The number of changes of the slots, the free records and the queue: a plan that was made before the
        #: last change is made anew.
        self._changes = 0
        self._lock = threading.RLock()

    def share(self, lock: threading.RLock, counters: Any) -> None:
        """Use the lock and the counters of the ``LeasePool``: one ``with`` changes the slots, and counts.

        :param lock: of the pool.
        :param counters: of the pool.
        """
        self._lock = lock
        self.counters = counters

    @property
    def idle(self) -> int:
        """Number of sessions without a holder."""
        return sum(entry.dbapi_connection is not None for entry in self._free.copy())

    @property
    def exhausted(self) -> bool:
        """True if a checkout would have to wait."""
        return not self._free and len(self._slots) >= self.bounds.limit

    @property
    def opening(self) -> int:
        """Number of sessions that are being opened, or are about to be."""
        return sum(isinstance(slot, Ticket) and slot.active for slot in self._slots.copy())

    @property
    def preparing(self) -> int:
        """Number of sessions that are being opened or pinged, or are about to be."""
        slots = self._slots.copy().items()
        return sum(
            isinstance(holder, Ticket) and holder.active and slot in (holder, holder.entry)
            for slot, holder in slots
        )

    @property
    def surplus(self) -> int:
        """Number of sessions beyond the core."""
        return max(0, len(self._slots) - self.bounds.core)

    @property
    def shortage(self) -> int:
        """Number of sessions that ``min_idle`` still asks for, and for which there is room."""
        bounds = self.bounds
        return max(0, min(bounds.limit - len(self._slots), bounds.min_idle - len(self._free)))

    @property
    def waiting(self) -> int:
        """Number of checkouts that have no slot yet."""
        return sum(ticket.active and not ticket.served for ticket in self._waiting)

    def abandon(self, counters: Any) -> None:
        """Replace the lock, in a child: a thread that exists only in the parent may have it.

        The child needs it if it was forked inside a checkout.

        :param counters: of the child.
        """
        self.counters = counters
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
        if len(self._slots) >= self.bounds.limit or self._overflow_delay_left(ticket) > 0:
            return False
        if self.opening_delay(ticket) > 0:
            return False
        # A ticket that can't wait at all does not wait for other sessions to be opened either.
        return self.opening < OPENINGS or ticket.deadline <= ticket.joined or ticket.outer is not None

    def _patience_of(self, ticket: Ticket) -> float:
        """Return the seconds until the thread of a ticket that waits looks at the pool.

        One look is for all tickets: the more tickets wait, the less often each thread looks.
        """
        patience = max(self.timeout(), len(self._waiting) / LOOKS_PER_SECOND)
        if self.bounds.unload_timeout and (unloading := self._overflow_delay_left(ticket)) > 0:
            patience = min(patience, unloading)
        # Of the tickets that wait until a session may be opened, the first opens it.
        if self._waiting[:1] == (ticket,) and (delay := self.opening_delay(ticket)) > 0:
            patience = min(patience, delay)
        left = ticket.deadline - clock.monotonic()
        return patience if patience < left else max(0.0, left)

    def _overflow_delay_left(self, ticket: Ticket) -> float:
        """Return the seconds for which a ticket still waits for a returned session, before one is opened."""
        # Without a session in the pool none can be returned. At the deadline one is opened rather than none.
        if len(self._slots) < max(1, self.bounds.core):
            return 0.0
        return min(ticket.joined + self.bounds.unload_timeout, ticket.deadline) - clock.monotonic()
