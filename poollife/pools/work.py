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
    """One piece of work with an end, such as a request, and what was borrowed while it was the current one.

    It travels in a context variable: ``sync_to_async`` and ``asyncio.to_thread`` carry it into their threads.
    """

    __slots__ = ("_describe", "leases")

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        #: Those that are out. Several threads of one request may borrow at once: single operations only.
        self.leases: list[Lease] = []

    def __str__(self) -> str:
        return self._describe()

    def has_open_cursors(self) -> bool:
        return any(lease.cursors for lease in self.leases.copy())

    def give_back(self) -> None:
        """End this thread's leases of it, those in an atomic block excepted: the block's owner ends them."""
        for lease in self._leases_of_this_thread():
            lease.give_back()

    def give_back_idle(self) -> None:
        """The same for those that nothing is read from."""
        for lease in self._leases_of_this_thread():
            if not lease.cursors:
                lease.give_back()

    def give_back_unread(self) -> None:
        """The same for those with results that nobody will read any more."""
        for lease in self._leases_of_this_thread():
            if lease.driver.unfit():
                lease.give_back()

    def _leases_of_this_thread(self) -> list[Lease]:
        return [lease for lease in self.leases.copy() if lease.thread is threading.current_thread()]


current_work: ContextVar[Work | None] = ContextVar("poollife_work", default=None)


@contextmanager
def working(work: Work) -> Iterator[Work]:
    """Make this the current work; giving back stays the caller's."""
    token = current_work.set(work)
    try:
        yield work
    finally:
        current_work.reset(token)
