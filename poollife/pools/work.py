"""The work that borrows: what a clock starts and ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poollife.pools.lease import Lease


class Work:
    """One piece of work with an end, such as a request, and the leases taken out while it was current.

    It travels in a context variable: ``sync_to_async`` and ``asyncio.to_thread`` carry it into their threads.
    """

    __slots__ = ("_describe", "leases")

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        self.leases: list[Lease] = []

    def __str__(self) -> str:
        return self._describe()

    def add(self, lease: Lease) -> None:
        # A long request may borrow many times; those that it gave back are of no interest.
        self.leases = [*self.outstanding(), lease]

    def outstanding(self) -> list[Lease]:
        return [lease for lease in self.leases if not lease.returned]

    def has_open_cursors(self) -> bool:
        return any(lease.cursors for lease in self.outstanding())

    def give_back(self) -> None:
        """End this thread's leases of it, those in an atomic block excepted: the block's owner ends them."""
        for lease in self.outstanding():
            if lease.thread is threading.current_thread():
                lease.give_back()


current_work: ContextVar[Work | None] = ContextVar("poollife_work", default=None)


@contextmanager
def working(work: Work) -> Iterator[Work]:
    """Make this the current work; giving back stays the caller's."""
    token = current_work.set(work)
    try:
        yield work
    finally:
        current_work.reset(token)
