"""Tickets: checkouts that are under way."""

from __future__ import annotations

import math
import threading
from typing import Any, Protocol


class Postponed(Exception):
    """The error of a checkout that may not open a session yet: it waits in the queue, and asks again."""

    def __init__(self) -> None:
        super().__init__("another attempt to open a session comes first")


class Holder(Protocol):
    """The holder of a slot: a checkout under way, later a lease."""

    @property
    def active(self) -> bool:
        """True as long as it has the slot."""


class Queue(Protocol):
    """The queue that a ticket waits in."""

    def step_back(self, ticket: Ticket) -> None:
        """Have a ticket leave the queue until its thread asks again."""


class Ticket:
    """A checkout that is under way, or the closing of sessions."""

    __slots__ = (
        "__weakref__",
        "active",
        "borrower",
        "deadline",
        "entry",
        "joined",
        "observed",
        "outer",
        "queue",
        "served",
        "signal",
    )

    def __init__(self, borrower: Any = None, deadline: float = math.inf, outer: Ticket | None = None) -> None:
        #: Times on the monotonic clock: the end of the wait, and its beginning.
        self.deadline = deadline
        self.joined = -math.inf
        #: Whether the ticket may have a slot. Its owner unsets this in a ``finally``, where no exception can
        #: come between.
        self.active = True
        self.borrower = borrower
        #: The checkout in the middle of which this one began, in the same thread.
        self.outer = outer
        #: Whether the duration of the checkout is in the histogram: it queued, or opened a session.
        self.observed = False
        #: Whether it was given a slot, and the record in that slot, if there is one.
        self.served = False
        self.entry: Any = None
        #: The lock that its thread waits for, released when the ticket is served. None: no thread waits.
        self.signal: threading.Lock | None = None
        #: The queue in which it waits, until its thread has noticed that it was served there.
        self.queue: Queue | None = None

    def is_part_of(self, other: Ticket) -> bool:
        """Return whether the other ticket is this one, or goes on only when this one has ended."""
        ticket: Ticket | None = self
        while ticket is not None and ticket is not other:
            ticket = ticket.outer
        return ticket is other


class SpareTicket(Ticket):
    """The ticket of a session that is opened before a checkout asks for it."""

    __slots__ = ()


class Current(threading.local):
    """The current checkout of each thread."""

    ticket: Ticket | None = None

    @property
    def checkout(self) -> Ticket | None:
        """Ticket of the checkout that is under way; None: there is none.

        A ticket that an asynchronous exception has left here is not active any more.
        """
        ticket = self.ticket
        return ticket if ticket and ticket.active else None


current = Current()
