"""SQLAlchemy's QueuePool, made so that nothing from outside can lose one of its slots.

A task's time limit, Ctrl-C and ``PyThreadState_SetAsyncExc`` raise an exception wherever Python calls a
function. In QueuePool that may leave a counter one too high for good, or a ``Condition`` locked for ever.
Here

- each slot has a name, and whoever has it as well: what nobody has any more can be found out and freed;
- locks are of the kind that ``with`` takes and releases without calling any Python code;
- what belongs together is written by statements with no call in between.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from poollife.pools.sqlalchemy import forget_handle

#: Sessions that are opened at once: in a burst those that are out may well be back before a new one is there.
OPENINGS = 3
#: How often those who wait look up, all together: for what was given back without a word.
LOOKS_PER_SECOND = 200


class Bounds(NamedTuple):
    """How many sessions there may be, and how many who wait."""

    #: Open at once.
    limit: int
    #: Kept when nobody needs them. What there is beyond that is surplus.
    core: int
    #: Of those that are kept, so many ready for the next who come.
    min_idle: int = 0
    max_waiting: float = math.inf
    #: Seconds for which a session that comes back is preferred to one beyond the core.
    unload_timeout: float = 0.0


class QueueFull(exc.TimeoutError):
    """As many wait as may."""


class Postponed(Exception):
    """No session may be opened for this checkout yet: it waits in the queue, and asks again."""

    def __init__(self) -> None:
        super().__init__("another attempt to open a session comes first")


class Holder(Protocol):
    """Who has a slot: a checkout under way, later a lease."""

    @property
    def active(self) -> bool:
        """Whether it still does."""


class Ticket:
    """A checkout under way, or whoever is about to close a session."""

    __slots__ = ("active", "borrower", "deadline", "entry", "joined", "outer", "refused", "served", "signal")

    def __init__(self, borrower: Any = None, deadline: float = math.inf, outer: Ticket | None = None) -> None:
        #: On the monotonic clock: how long it waits, and since when.
        self.deadline = deadline
        self.joined = -math.inf
        #: For the owner to unset in a ``finally``, where nothing can come between.
        self.active = True
        self.borrower = borrower
        #: The checkout in the middle of which this one began, in the same thread.
        self.outer = outer
        #: Whether the server has refused it a session because there are too many.
        self.refused = False
        #: Whether a slot was found for it, and what is in there if there is something.
        self.served = False
        self.entry: ConnectionPoolEntry | None = None
        #: Made by those who must wait, and released when they are served.
        self.signal: threading.Lock | None = None

    def is_part_of(self, other: Ticket) -> bool:
        """Return whether the other checkout goes on only when this one has ended, or is this one."""
        ticket: Ticket | None = self
        while ticket is not None and ticket is not other:
            ticket = ticket.outer
        return ticket is other


class SpareTicket(Ticket):
    """The opening of a session that waits in the pool for the next checkout."""

    __slots__ = ()


class Current(threading.local):
    """What this thread is checking out."""

    ticket: Ticket | None = None

    @property
    def checkout(self) -> Ticket | None:
        """The one that is under way: what an exception from outside left there has had its turn."""
        ticket = self.ticket
        return ticket if ticket and ticket.active else None


current = Current()


def fit(connection: Any) -> str | None:
    """Nobody has told what else to look at."""
    return None


def no_delay(ticket: Ticket) -> float:
    """Let a session be opened at once: a queue without a pool has nothing else to wait for."""
    return 0.0


class FairQueuePool(QueuePool):
    """What a ``LeasePool`` uses if no other class is asked for. First come, first served.

    The lock guards all three collections. The thread that has it may take it again: in there the cycle
    collector may run a finalizer of somebody's that gives a connection back.
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
        self.bounds = Bounds(pool_size + max_overflow, pool_size)
        #: Whether nobody is served.
        self.suspended = False
        #: Called where there is a surplus, or too little is idle.
        self.unbalanced: Callable[[], object] = int
        #: Why a session is not fit to be handed out, if so.
        self.unfit: Callable[[Any], str | None] = fit
        #: Seconds until a session may be opened for a ticket that waits.
        self.opening_delay: Callable[[Ticket], float] = no_delay
        self._patience = timeout
        #: A record of SQLAlchemy's, or a ticket where that is still to be made; and who has it, or None.
        self._slots: dict[ConnectionPoolEntry | Ticket, Holder | None] = {}
        #: The records that nobody has. The one used last is the least likely to be dead: it goes first.
        self._free: list[ConnectionPoolEntry] = []
        self._waiting: deque[Ticket] = deque()
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
        return sum(ticket.active and not ticket.served for ticket in self._waiting.copy())

    def abandon(self) -> None:
        """In a child that was forked inside a checkout: a thread that no longer exists may have the lock."""
        self._lock = threading.RLock()

    def take(self, ticket: Ticket) -> Any:
        """A session that is fit, for the thread's current ticket: SQLAlchemy's record of it, for ``put()``.

        SQLAlchemy's handle is left out, and with it many calls: its finalizer must never act here
        anyway. It is made only where somebody listens to checkouts.
        """
        handle: Any
        while True:
            try:
                if self.dispatch.checkout:
                    handle = self.connect()
                else:
                    handle = self._fit_entry(ticket)
                    handle.get_connection()
                break
            except Postponed:
                self._rejoin(ticket)
        if len(self._free) < self.bounds.min_idle:
            self.unbalanced()
        return handle

    def _rejoin(self, ticket: Ticket) -> None:
        """Have a ticket wait again, in its old place: none may be opened in the slot that it was given."""
        with self._lock:
            slot, ticket.entry, ticket.served, ticket.signal = ticket.entry or ticket, None, False, None
            self._slots.pop(slot, None)
            self._serve()

    def put(self, handle: Any) -> None:
        """Take back what ``take()`` gave."""
        if isinstance(handle, PoolProxiedConnection):
            handle.close()
        else:
            if self.dispatch.checkin:
                self.dispatch.checkin(handle.dbapi_connection, handle)
            self._do_return_conn(handle)
        if len(self._slots) > self.bounds.core:
            self.unbalanced()

    def withdraw(self, ticket: Ticket) -> bool:
        """Wait no longer; False where a slot was found in the last moment."""
        with self._lock:
            ticket.active = ticket.served
        return not ticket.active

    def hold(self, ticket: Ticket, lease: Holder) -> None:
        """From now on the lease has what the ticket got."""
        # A single operation, and the ticket is active still: nobody takes this slot for lost.
        if ticket.entry is not None:
            self._slots[ticket.entry] = lease

    def free(self, handle: PoolProxiedConnection | None = None) -> None:
        """Free the slots of those who went away, with or without a word, and close what is in them.

        :param handle: for pool classes that can't find them out.
        """
        with self._lock:
            self._waiting = deque(ticket for ticket in self._waiting.copy() if ticket.active)
        # A checkout hands over to its lease at any moment: who is looked at may be the one before.
        self._close(
            lambda: [
                slot
                for slot, holder in self._slots.copy().items()
                if self._is_lost(slot, holder) and self._slots.get(slot) is holder
            ]
        )

    def dispose(self) -> None:
        """Close what nobody has."""
        self._close(self._free.copy)

    def serve(self) -> None:
        """Give what there is to those that wait: something has changed."""
        with self._lock:
            self._serve()

    def wake(self) -> None:
        """Have all who wait look up."""
        with self._lock:
            for ticket in self._waiting.copy():
                signal, ticket.signal = ticket.signal, None
                if signal:
                    signal.release()

    def retire(self, most: int, is_old: Callable[[Any], bool]) -> None:
        """Close so much of the surplus at most, of that which was idle for longest.

        :param is_old: whether a connection was not needed of late.
        """

        def old() -> list[ConnectionPoolEntry]:
            number = min(most, self.surplus, len(self._free) - self.bounds.min_idle)
            return [entry for entry in self._free[: max(0, number)] if is_old(entry.dbapi_connection)]

        self._close(old)

    def prepare(self, ticket: Ticket, *, spare: bool = False) -> bool:
        """Open a session for the next who comes, if too few are idle; whether that was so.

        :param ticket: the thread's current one.
        :param spare: open one if there is room for it, however many are idle.
        """
        with self._lock:
            room = len(self._slots) < self.bounds.limit
            if self.suspended or not (room if spare else self.shortage and self.opening < OPENINGS):
                return False
            self._slots[ticket] = ticket
        entry = self._create_connection()
        with self._lock:
            self._slots[entry] = ticket
            ticket.entry = entry
            del self._slots[ticket]
        # There may be less room than there was.
        self._do_return_conn(entry)
        return True

    def change(self, bounds: Bounds | None = None, *, suspended: bool | None = None) -> None:
        """Have other bounds from now on, or begin or end to serve nobody. What is out stays out."""
        with self._lock:
            if bounds:
                self.bounds = bounds
            if suspended is not None:
                self.suspended = suspended
            self._serve()
        self._close(lambda: self._free[: max(0, len(self._slots) - self.bounds.limit)])

    def checkedin(self) -> int:
        return len(self._free)

    def checkedout(self) -> int:
        return len(self._slots) - len(self._free)

    def overflow(self) -> int:
        return len(self._slots) - self.size()

    def _do_get(self) -> ConnectionPoolEntry:
        entry: ConnectionPoolEntry = self._fit_entry(current.checkout or Ticket())
        return entry

    def _fit_entry(self, ticket: Ticket) -> Any:
        """A record whose session is fit, or which has none: ``get_connection()`` opens one."""
        entry = self._entry_for(ticket)
        connection = entry.dbapi_connection
        if connection is not None and (reason := self.unfit(connection)):
            entry.invalidate(exc.DisconnectionError(reason))
        return entry

    def _entry_for(self, ticket: Ticket) -> ConnectionPoolEntry:
        with self._lock:
            if self._free and not self._waiting and not ticket.served and not self.suspended:
                # As in _serve(), without a queue. No call from here to the end.
                ticket.entry = self._free[-1]
                self._slots[ticket.entry] = ticket
                del self._free[-1]
                ticket.served = True
                return ticket.entry
            if not ticket.served:
                # Who asks again after a while has kept his place.
                new = ticket.joined < 0 or ticket not in self._waiting
                if new:
                    self._join(ticket)
                self._serve()
                if new and len(self._waiting) > self.bounds.max_waiting:
                    self._refuse_crowds(ticket)
            signal = None
            if not ticket.served:
                signal = threading.Lock()
                signal.acquire()
            # Only now: whoever serves it releases this.
            ticket.signal = signal
        if (
            signal
            and not ticket.served
            and not (signal.acquire(timeout=self._patience_of(ticket)) and ticket.served)
        ):
            raise exc.TimeoutError(f"None of {len(self._slots)} became free.")
        if ticket.entry is None:
            entry = self._create_connection()
            with self._lock:
                self._slots[entry] = ticket
                ticket.entry = entry
                del self._slots[ticket]
                # Another may begin to open one.
                self._serve()
        return ticket.entry

    def _join(self, ticket: Ticket) -> None:
        if ticket.joined < 0:
            ticket.joined = time.monotonic()
        if ticket.outer and ticket.outer.active:
            # All that wait for the outer one wait for this.
            self._waiting.appendleft(ticket)
            return
        if not self._waiting or self._waiting[-1].deadline <= ticket.deadline:
            self._waiting.append(ticket)
            return
        # Who comes from a pool that was closed has waited for longer than those who came here.
        waiting = self._waiting.copy()
        place = len(waiting)
        while place and waiting[place - 1].deadline > ticket.deadline:
            place -= 1
        self._waiting.insert(place, ticket)

    def _refuse_crowds(self, ticket: Ticket) -> None:
        # Who waits only until others have opened theirs does not count.
        room = 0 if self.suspended else max(0, self.bounds.limit - len(self._slots))
        others = len(self._waiting) - 1 - room
        # Nor is he refused who has waited elsewhere, and has his place ahead of others.
        if others >= self.bounds.max_waiting and not ticket.served and self._waiting[-1] is ticket:
            self._waiting.remove(ticket)
            raise QueueFull(f"{others} wait already.")

    def _patience_of(self, ticket: Ticket) -> float:
        """Seconds until it looks up. One look is for all: the more there are, the less often each."""
        patience = max(self._patience, len(self._waiting) / LOOKS_PER_SECOND)
        if self.bounds.unload_timeout and (unloading := self._unloading(ticket)) > 0:
            patience = min(patience, unloading)
        # Of those that wait for leave to open one, the first gets it.
        first = next(iter(self._waiting.copy()), None)
        if ticket is first and (delay := self.opening_delay(ticket)) > 0:
            patience = min(patience, delay)
        left = ticket.deadline - time.monotonic()
        return patience if patience < left else max(0.0, left)

    def _unloading(self, ticket: Ticket) -> float:
        """Seconds for which it still waits for what others give back, rather than have a session opened."""
        # Where there is none, nothing can come back. In the end better one is opened than none had.
        if len(self._slots) < max(1, self.bounds.core):
            return 0.0
        return min(ticket.joined + self.bounds.unload_timeout, ticket.deadline) - time.monotonic()

    def _may_open(self, ticket: Ticket) -> bool:
        if self._unloading(ticket) > 0 or self.opening_delay(ticket) > 0:
            return False
        # Who can't wait at all does not wait for other people's sessions to be opened either.
        few = self.opening < OPENINGS or ticket.deadline <= ticket.joined or ticket.outer is not None
        # Once more, and last: see _serve().
        return few and len(self._slots) < self.bounds.limit

    def _serve(self) -> None:
        """Give what is free to those who wait. Under the lock.

        At each call a signal's handler may come in, in this very thread, and do the same.
        """
        while self._waiting and not self.suspended:
            ticket = self._waiting[0]
            if not ticket.active or ticket.served:
                del self._waiting[0]
                continue
            if not self._free and (len(self._slots) >= self.bounds.limit or not self._may_open(ticket)):
                break
            if ticket.served or not ticket.active or self._waiting[0] is not ticket:
                continue
            # No call from here to the signal.
            if self._free:
                ticket.entry = self._free[-1]
                self._slots[ticket.entry] = ticket
                del self._free[-1]
            else:
                self._slots[ticket] = ticket
            ticket.served = True
            del self._waiting[0]
            if ticket.signal:
                ticket.signal.release()

    def _do_return_conn(self, entry: ConnectionPoolEntry) -> None:
        with self._lock:
            holder = self._slots.get(entry)
            if holder is None or not holder.active:
                return  # back already, or left to free(): what nobody has cleaned must not be handed out
            if isinstance(holder, Ticket):
                if holder.entry is not entry:
                    return  # it is being closed
                holder.entry, holder.served = None, False  # it could not be opened
            # An empty one is not kept: whether another may be opened is for its turn to decide.
            if entry.dbapi_connection is not None and len(self._slots) <= self.bounds.limit:
                self._slots[entry] = None
                self._free.append(entry)
                if self._waiting:
                    self._serve()
                return
        entry.close()
        with self._lock:
            self._slots.pop(entry, None)
            self._serve()

    def _is_lost(self, slot: ConnectionPoolEntry | Ticket, holder: Holder | None) -> bool:
        return slot not in self._free if holder is None else not holder.active

    def _close(self, which: Any) -> None:
        """Close what is in these slots, and free them only then: never a session more than the limit."""
        closing = Ticket()
        try:
            with self._lock:
                for slot in (slots := which()):
                    self._slots[slot] = closing
                self._free = [entry for entry in self._free if self._slots[entry] is None]
            for slot in slots:
                if not isinstance(slot, Ticket):
                    forget_handle(slot)
                    slot.close()
                with self._lock:
                    self._slots.pop(slot, None)
                    self._serve()
        finally:
            closing.active = False
