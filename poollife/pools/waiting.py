"""The queue of a pool: tickets wait in it, and are served in their order.

Each change of a collection follows the rule of fair_queue.py: nothing is called, looped over or made while
the lock is held.
"""

from __future__ import annotations

import threading
from abc import abstractmethod

from sqlalchemy import exc

from poollife import clock
from poollife.board.layout import MAX_WAITING, WAITING
from poollife.pools.slots import NamedSlots
from poollife.pools.tickets import Ticket


class QueueFull(exc.TimeoutError):
    """The error of a checkout that may not wait, as ``max_waiting`` others do."""


def release(signal: threading.Lock) -> None:
    """Wake the thread that waits for this signal; another thread may have done so already."""
    try:
        signal.release()
    except RuntimeError:
        pass


class TicketQueue(NamedSlots):
    """The part of ``FairQueuePool`` that has tickets wait. First come, first served."""

    @abstractmethod
    def _close_excess(self) -> None:
        """Close idle sessions beyond the limit, which has been lowered."""

    def withdraw(self, ticket: Ticket) -> bool:
        """End a ticket's wait; return False if it was given a slot in the last moment."""
        with self._lock:
            ticket.active = ticket.served
        return not ticket.active

    def wake(self) -> None:
        """Wake all waiting threads, so that each looks at its pool."""
        for ticket in self._waiting:
            if signal := ticket.signal:
                release(signal)

    def step_back(self, ticket: Ticket) -> None:
        """Have a ticket leave the queue until its thread asks again, and free the slot that it was given.

        Its thread is about to wait for something else, in a signal handler. Meanwhile a session that was
        given to this ticket would be idle, and the handler might wait for just that session.
        """
        done = False
        while not done:
            seen, entry = self._changes, ticket.entry
            waiting = self._waiting
            shorter = tuple(each for each in waiting if each is not ticket)
            back, left = (entry,) if entry is not None else (), len(shorter)
            with self._lock:
                if done := self._changes == seen:
                    self._waiting = shorter
                    self.counters[WAITING] = left
                    if entry is not None:
                        self._slots[entry] = None
                        self._free += back
                    elif ticket.served:
                        del self._slots[ticket]
                    ticket.entry, ticket.queue = None, None
                    ticket.served = False
                    self._changes += 1
        if signal := ticket.signal:
            release(signal)
        self.serve()
        self._close_excess()

    def _rejoin(self, ticket: Ticket) -> None:
        """Have a ticket wait again, in its old place: no session may be opened in the slot that it has."""
        slot = ticket.entry or ticket
        with self._lock:
            ticket.entry, ticket.queue = None, None
            ticket.served = False
            if slot in self._slots:
                del self._slots[slot]
            self._changes += 1
        self.serve()

    def _wait(self, ticket: Ticket) -> None:
        """Queue for a slot.

        :raises TimeoutError: SQLAlchemy's, after ``_patience_of()`` seconds; the ticket keeps its place.
        :raises QueueFull: if ``max_waiting`` other checkouts wait.
        """
        outer = ticket.outer
        while outer:
            if outer.queue:
                outer.queue.step_back(outer)
            outer = outer.outer
        # A ticket that asks again after a while has kept its place.
        new = ticket.joined < 0
        if ticket.queue is not self:
            self._join(ticket)
        self.serve()
        if new and len(self._waiting) > self.bounds.max_waiting:
            self._refuse_crowds(ticket)
        signal = threading.Lock()
        signal.acquire()
        number = len(self._waiting)
        with self._lock:
            # Not if it was served meanwhile, or if a signal handler in this thread had it step back.
            if waits := ticket.queue is self and not ticket.served:
                ticket.signal = signal
                if number > self.counters[MAX_WAITING]:
                    self.counters[MAX_WAITING] = number
        if waits:
            signal.acquire(timeout=self._patience_of(ticket))
        with self._lock:
            if served := ticket.served:
                ticket.queue = None
        if not served:
            raise exc.TimeoutError(f"None of {len(self._slots)} became free.")

    def _join(self, ticket: Ticket) -> None:
        if ticket.joined < 0:
            ticket.joined = clock.monotonic()
        # All tickets that wait for the checkout around this one wait for this one, too.
        first = ticket.outer is not None and ticket.outer.active and ticket.outer.served
        done = False
        while not done:
            seen, waiting = self._changes, self._waiting
            place = 0 if first else len(waiting)
            # A ticket from a pool that was closed, or that was here before, has waited for longer.
            while place and waiting[place - 1].deadline > ticket.deadline:
                place -= 1
            longer = (*waiting[:place], ticket, *waiting[place:])
            number = len(longer)
            with self._lock:
                if done := self._changes == seen:
                    self._waiting = longer
                    self.counters[WAITING] = number
                    ticket.queue = self
                    self._changes += 1

    def _shorten(self, seen: int, shorter: tuple[Ticket, ...]) -> bool:
        """Replace the queue, unless something has changed since; return whether that was done.

        The caller refers to the old queue until the lock is free: a ticket may have the last reference to its
        borrower.

        :param seen: the number of changes when the new queue was planned.
        :param shorter: the new queue.
        """
        left = len(shorter)
        with self._lock:
            if done := self._changes == seen:
                self._waiting = shorter
                self.counters[WAITING] = left
                self._changes += 1
        return done

    def _refuse_crowds(self, ticket: Ticket) -> None:
        refused = False
        while not refused:
            seen, waiting = self._changes, self._waiting
            # A ticket that has room, and only waits for its turn to open a session, does not count.
            closed = self.suspended or self.out_of_reach()
            room = 0 if closed else max(0, self.bounds.limit - len(self._slots))
            others = len(waiting) - 1 - room
            # A ticket that has its place ahead of others is not refused either.
            if others < self.bounds.max_waiting or ticket.served or waiting[-1] is not ticket:
                return
            refused = self._shorten(seen, waiting[:-1])
        raise QueueFull(f"{others} wait already.")

    def serve(self) -> None:
        """Give free slots to the tickets that wait."""
        # A signal handler may run between the lock and the signal below. If the handler waits here, it first
        # wakes the tickets that were served.
        for ticket in self._due.copy() if self._due else ():
            if due := ticket.signal:
                release(due)
            self._due.pop(ticket, None)
        while True:
            seen, waiting = self._changes, self._waiting
            if not waiting or self.suspended:
                return
            ticket, rest, left = waiting[0], waiting[1:], len(waiting) - 1
            if ticket.active and not ticket.served and not self._free and not self._may_open(ticket):
                return
            with self._lock:
                if self._changes == seen:
                    self._waiting = rest
                    self.counters[WAITING] = left
                    if ticket.active and not ticket.served:
                        if self._free:
                            ticket.entry = self._free[-1]
                            self._slots[ticket.entry] = ticket
                            del self._free[-1]
                        else:
                            self._slots[ticket] = ticket
                        ticket.served = True
                        if ticket.signal:
                            self._due[ticket] = ticket.signal
                    self._changes += 1
            if signal := self._due.get(ticket):
                try:  # as in release(): one call less for each waiting ticket
                    signal.release()
                except RuntimeError:
                    pass
                self._due.pop(ticket, None)
