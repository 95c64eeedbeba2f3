"""Tickets: checkouts that are under way."""

from __future__ import annotations

import math
import threading
from typing import Any, Protocol


class Postponed(Exception):
    """No session may be opened for this checkout yet: it waits in the queue, and asks again."""

    def __init__(self) -> None:
        super().__init__("another attempt to open a session comes first")


class Holder(Protocol):
    """Who has a slot: a checkout under way, later a lease."""

    @property
    def active(self) -> bool:
        """Whether it still does."""


class Queue(Protocol):
    """The pool that a ticket waits in."""

    def step_back(self, ticket: Ticket) -> None:
        """Have a ticket leave the queue until its thread asks again."""


class Ticket:
    """A checkout under way, or whoever is about to close a session."""

    __slots__ = (
        "__weakref__",
        "active",
        "borrower",
        "deadline",
        "entry",
        "joined",
        "outer",
        "queue",
        "served",
        "signal",
    )

    def __init__(self, borrower: Any = None, deadline: float = math.inf, outer: Ticket | None = None) -> None:
        #: On the monotonic clock: how long it waits, and since when.
        self.deadline = deadline
        self.joined = -math.inf
        #: For the owner to unset in a ``finally``, where nothing can come between.
        self.active = True
        self.borrower = borrower
        #: The checkout in the middle of which this one began, in the same thread.
        self.outer = outer
        #: Whether a slot was found for it, and what is in there if there is something.
        self.served = False
        self.entry: Any = None
        #: Made by those who must wait, and released when they are served.
        self.signal: threading.Lock | None = None
        #: The pool in which it waits, until its thread has noticed that it was served there.
        self.queue: Queue | None = None

    def is_part_of(self, other: Ticket) -> bool:
        """Return whether the other checkout goes on only when this one has ended, or is this one."""
        ticket: Ticket | None = self
        while ticket is not None and ticket is not other:
            ticket = ticket.outer
        return ticket is other


class SpareTicket(Ticket):
    """The opening of a session that waits in the pool for whoever comes next."""

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
