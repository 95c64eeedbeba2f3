"""SQLAlchemy's QueuePool, changed so that an asynchronous exception can't lose one of its slots.

A task's time limit, Ctrl-C and ``PyThreadState_SetAsyncExc`` raise an exception at any point where Python
calls a function. In QueuePool that may leave a counter one too high for good, or a ``Condition`` locked for
ever. Here

- each slot has a name and a holder, so a slot whose holder is gone can be found and freed;
- locks are of the kind that ``with`` takes and releases without a call of Python code;
- changes that belong together are written by statements with no call in between.

A signal handler runs at the same points, and so does the cycle collector with the finalizers that it calls
(Python 3.11 also runs the collector where a list, tuple or dict is made). A handler may query, and wait. So
**nothing is called, looped over or made while the lock is held**. A change is planned without the lock. Under
the lock it is carried out, unless something else has changed meanwhile, and counted at the end. Then no
handler ever runs in a thread that has the lock, and no handler waits for what only the frame below it can
return. ``tests/invariants/inv6_waiting/test_reentrancy.py`` pins that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from poollife.board.layout import SUSPENDED
from poollife.conf import Bounds
from poollife.pools import log
from poollife.pools.slots import OPENINGS
from poollife.pools.sqlalchemy import forget_handle
from poollife.pools.tickets import Holder, Postponed, Ticket, current
from poollife.pools.waiting import TicketQueue


class FairQueuePool(TicketQueue):
    """The queue of a ``LeasePool`` that has no ``poolclass`` in its settings. First come, first served.

    Each change of a collection follows the rule at the top of this module.
    """

    #: Read by ``PoolOptions``, which does not import this module.
    is_fair = True

    def take(self, ticket: Ticket) -> Any:
        """Return SQLAlchemy's record of a session that is fit; ``put()`` takes it.

        SQLAlchemy's ``_ConnectionFairy`` is left out, which saves many calls: its finalizer must never act
        here anyway. It is made, and returned, only if there are listeners to the event ``checkout``.

        :param ticket: the calling thread's current ticket.
        :raises TimeoutError: SQLAlchemy's, if no slot became free for a while; the ticket keeps its place.
        :raises QueueFull: if ``max_waiting`` other checkouts wait.
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
                log.write()  # such as the reason of the wait
        if len(self._free) < self.bounds.min_idle:
            self.unbalanced()
        return handle

    def take_idle(self, lease: Holder) -> Any:
        """Give the session used last to a lease, and return its record; None: ``take()`` has to do it.

        That is so if no session is idle, a ticket waits, the pool is suspended, or there are listeners to the
        event ``checkout``. The caller looks whether the session is fit.
        """
        listeners = self.dispatch.checkout  # its truth value would cost a call
        if listeners.listeners or listeners.parent_listeners:
            return None
        entry = None
        with self._lock:
            if self._free and not self._waiting and not self.suspended:
                entry = self._free[-1]
                self._slots[entry] = lease
                del self._free[-1]
                self._changes += 1
        return entry

    def hand_to_ticket(self, entry: ConnectionPoolEntry, ticket: Ticket) -> None:
        """Have a ticket go on with a session that a lease was given: it has to be pinged, or replaced."""
        with self._lock:
            self._slots[entry] = ticket
            ticket.entry = entry
            ticket.served = True
            self._changes += 1

    def put(self, handle: Any) -> None:
        """Take back a session that is clean.

        :param handle: the result of ``take()`` or ``take_idle()``.
        """
        if handle in self._slots:  # a record
            listeners = self.dispatch.checkin
            if listeners.listeners or listeners.parent_listeners:
                self.dispatch.checkin(handle.dbapi_connection, handle)
            self._do_return_conn(handle)
        elif isinstance(handle, PoolProxiedConnection):
            handle.close()
        if len(self._slots) > self.bounds.core:
            self.unbalanced()

    def hold(self, ticket: Ticket, lease: Holder) -> None:
        """Note that the lease has the ticket's slot from now on."""
        # A single operation, and the ticket is still active: no thread takes this slot for lost.
        if ticket.entry is not None:
            self._slots[ticket.entry] = lease

    def free(self, handle: PoolProxiedConnection | None = None) -> None:
        """Free the slots whose holder is gone, and close the sessions in them.

        :param handle: not used: here the slots say which these are.
        """
        done = False
        while not done:
            seen, waiting = self._changes, self._waiting
            done = all(ticket.active for ticket in waiting) or self._shorten(
                seen, tuple(ticket for ticket in waiting if ticket.active)
            )
        # A checkout may hand its slot over to its lease at any moment: the holder that was looked at may be
        # the former one.
        self._close(
            lambda: [
                slot
                for slot, holder in self._slots.copy().items()
                if self._is_lost(slot, holder) and self._slots.get(slot) is holder
            ]
        )

    def dispose(self) -> None:
        """Close the idle sessions."""
        self._close(self._free.copy)

    def retire(self, most: int, is_old: Callable[[Any], bool]) -> None:
        """Close surplus sessions, beginning with the session that was idle for longest.

        :param most: the number of sessions to close, at most.
        :param is_old: returns whether a driver connection was idle for long enough.
        """

        def old() -> list[ConnectionPoolEntry]:
            number = min(most, self.surplus, len(self._free) - self.bounds.min_idle)
            return [entry for entry in self._free[: max(0, number)] if is_old(entry.dbapi_connection)]

        self._close(old)

    def prepare(self, ticket: Ticket, *, spare: bool = False) -> bool:
        """Open a session ahead of its use, if too few are idle; return whether that was so.

        :param ticket: the calling thread's current ticket.
        :param spare: open a session if there is room for it, however many are idle.
        """
        begun = False
        while not begun:
            seen = self._changes
            room = len(self._slots) < self.bounds.limit
            if self.suspended or not (room if spare else self.shortage and self.opening < OPENINGS):
                return False
            with self._lock:
                if begun := self._changes == seen:
                    self._slots[ticket] = ticket
                    self._changes += 1
        entry = self._open_slot(ticket)
        # The limit may be lower by now.
        self._do_return_conn(entry)
        return True

    def change(self, bounds: Bounds | None = None, *, suspended: bool | None = None) -> None:
        """Change the sizes, or suspend or resume the queue. Borrowed sessions stay out.

        :param bounds: the new sizes; None: as before.
        :param suspended: True: serve no ticket from now on. False: serve them again. None: as before.
        """
        with self._lock:
            if bounds:
                self.bounds = bounds
            if suspended is not None:
                self.suspended = suspended
                self.counters[SUSPENDED] = suspended
            self._changes += 1
        self.serve()
        self._close_excess()

    def _do_get(self) -> ConnectionPoolEntry:
        entry: ConnectionPoolEntry = self._fit_entry(current.checkout or Ticket())
        return entry

    def _fit_entry(self, ticket: Ticket) -> Any:
        """Return a record whose session is fit, or that has none: then ``get_connection()`` opens one."""
        entry = self._entry_for(ticket)
        connection = entry.dbapi_connection
        if connection is not None and self.reason_to_replace(connection):
            # Not invalidate(), which logs: a log handler that queries would wait for this slot.
            entry.close()
        return entry

    def _entry_for(self, ticket: Ticket) -> Any:
        with self._lock:
            if self._free and not self._waiting and not ticket.served and not self.suspended:
                # As in serve(), without a queue.
                ticket.entry = self._free[-1]
                self._slots[ticket.entry] = ticket
                del self._free[-1]
                ticket.served = True
                self._changes += 1
                return ticket.entry
            if ticket.served:
                ticket.queue = None
        if not ticket.served:
            self._wait(ticket)
        if ticket.entry is not None:
            return ticket.entry
        entry = self._open_slot(ticket)
        # The next ticket may begin to open a session.
        self.serve()
        return entry

    def _open_slot(self, ticket: Ticket) -> ConnectionPoolEntry:
        """Make SQLAlchemy's record for an empty slot; ``get_connection()`` opens the session."""
        entry = self._create_connection()
        with self._lock:
            self._slots[entry] = ticket
            ticket.entry = entry
            del self._slots[ticket]
            self._changes += 1
        return entry

    def _do_return_conn(self, entry: ConnectionPoolEntry) -> None:
        back, done = (entry,), False
        while not done:
            seen, holder = self._changes, self._slots.get(entry)
            if holder is None or not holder.active:
                return  # returned already, or left to free(): a session that is not clean must not be lent
            # A checkout that still goes on: the session could not be opened.
            ticket = holder if isinstance(holder, Ticket) else None
            if ticket and ticket.entry is not entry:
                return  # the session is being closed
            # An empty record is not kept: the queue decides when the next session may be opened.
            fits = entry.dbapi_connection is not None and len(self._slots) <= self.bounds.limit
            with self._lock:
                if done := self._changes == seen:
                    if ticket:
                        ticket.entry, ticket.served = None, False
                    if fits:
                        self._slots[entry] = None
                        self._free += back
                    self._changes += 1
        if fits:
            if self._waiting:
                self.serve()
            return
        entry.close()
        self._remove(entry)

    def _remove(self, slot: ConnectionPoolEntry | Ticket) -> None:
        """Free a slot whose session is closed."""
        holder = self._slots.get(slot)  # freed after the lock
        with self._lock:
            if slot in self._slots:
                del self._slots[slot]
            self._changes += 1
        del holder
        self.serve()

    def _close(self, which: Any) -> None:
        """Close the sessions in some slots, and free the slots only after that, so that the limit holds.

        :param which: returns the slots.
        """
        closing, done = Ticket(), False
        try:
            while not done:
                seen, slots = self._changes, which()
                if not slots:
                    return
                marks = dict.fromkeys(slots, closing)
                free = [entry for entry in self._free.copy() if entry not in marks]
                before = self._free, self._slots.copy()  # freed after the lock
                with self._lock:
                    if done := self._changes == seen:
                        self._slots |= marks
                        self._free = free
                        self._changes += 1
            del before
            for slot in slots:
                if not isinstance(slot, Ticket):
                    forget_handle(slot)
                    slot.close()
                self._remove(slot)
        finally:
            closing.active = False

    def _close_excess(self) -> None:
        """Close idle sessions beyond the limit, which has been lowered."""
        self._close(lambda: self._free[: max(0, len(self._slots) - self.bounds.limit)])
