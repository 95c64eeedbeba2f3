"""The work that borrows: what a clock starts and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from asgiref.sync import sync_to_async

from poollife.executors import runs_sync_code

P = ParamSpec("P")
T = TypeVar("T")


class Lease(Protocol):
    """A lease, as far as the work that it belongs to uses it. ``poollife.pools.lease`` has the real one."""

    work: Work | None
    ends_with_work: bool
    shared_by_works: bool
    thread: threading.Thread
    driver: Any
    cursors: Any

    @property
    def returned(self) -> bool: ...
    @property
    def orphaned(self) -> bool: ...
    @property
    def has_open_cursors(self) -> bool: ...
    @property
    def outermost_block(self) -> Any: ...
    def give_back(self) -> None: ...
    def give_back_at_rest(self) -> None: ...
    def forget_blocks(self) -> None: ...
    def hand_over(self, work: Work | None) -> None: ...
    def checkin(self) -> None: ...


class Work:
    """One piece of work with an end, such as a request, and what was borrowed while it was the current one.

    It travels in a context variable: ``sync_to_async`` and ``asyncio.to_thread`` carry it into their threads.
    """

    __slots__ = ("_describe", "around", "asynchronous", "ended", "leases", "thread")

    def __init__(self, describe: Callable[[], str], *, asynchronous: bool = False) -> None:
        """
        :param describe: returns its name for people, such as "GET /report/".
        :param asynchronous: whether it ends by ``end_async()`` or ``hop()``, and so gives back in the thread
            of its sync code.
        """
        self._describe = describe
        self.asynchronous = asynchronous
        #: Those that are out. Several threads of one request may borrow at once: single operations only.
        self.leases: list[Lease] = []
        #: Where it goes on, and ends.
        self.thread = threading.current_thread()
        #: Whether it has ended. Tasks and threads that outlive it keep it in their context.
        self.ended = False
        #: The one that it is a part of. Not when that has ended: it may be the last of an endless row.
        self.around = current_work.get()
        while self.around and self.around.ended:
            self.around = self.around.around

    def __str__(self) -> str:
        return self._describe()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it as a part of this work; giving back stays the caller's."""
        previous = current_work.get()
        try:
            current_work.set(self)
            return function(*args, **kwargs)
        finally:
            current_work.set(previous)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a coroutine function."""
        previous = current_work.get()
        try:
            current_work.set(self)
            return await function(*args, **kwargs)
        finally:
            current_work.set(previous)

    def add(self, lease: Lease) -> None:
        """Have a lease of the calling thread belong to this work, and end with it if that ends here."""
        lease.work = self
        lease.ends_with_work = lease.thread is self.thread or (self.asynchronous and runs_sync_code())
        self.leases.append(lease)

    def drop(self, lease: Lease) -> None:
        """It has ended, or will with other work."""
        with suppress(ValueError):  # something from outside struck before it got there
            self.leases.remove(lease)

    def has_opened(self, block: Any) -> bool:
        """Whether an atomic block that is open on one of its connections was opened as a part of it."""
        return True

    def has_open_cursors(self) -> bool:
        return any(lease.cursors for lease in self.leases.copy())

    def give_back(self) -> None:
        """End this thread's leases of it, at the end of this work.

        What is in an atomic block still is left to whoever opened that: to the work that goes on around this.
        """
        self.mark_ended()
        for lease in self._leases_of_this_thread():
            if not (lease.shared_by_works and lease.has_open_cursors):
                lease.give_back()
            if not lease.returned:
                # Where another work reads from it still, it goes back when the last cursor is closed.
                around = current_work.get()
                lease.hand_over(around if around and not around.ended else None)

    def mark_ended(self) -> None:
        """Nothing that is borrowed from now on is its own."""
        self.ended, self.around = True, None

    def end(self, well: bool) -> None:
        """Give back what this thread has of it.

        :param well: False: something from outside may have struck inside ``Atomic.__enter__`` or
            ``__exit__``, and then nobody is left to end the blocks that this work opened.
        """
        if not well:
            for lease in self._leases_of_this_thread():
                if self.has_opened(lease.outermost_block):
                    lease.forget_blocks()
        self.give_back()

    async def end_async(self, well: bool) -> None:
        """The same for work whose sync code has threads of its own."""
        # A hop, made only where there is something to give back. After an error there may be soon, where a
        # task was cancelled in the middle of a borrowing: queue behind it.
        self.mark_ended()
        if self.leases or not well:
            await self.hop(partial(self.end, well))

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

    async def hop(self, end: Callable[[], None]) -> None:
        """Have ``end`` give back in the thread where the sync code of this work has its leases.

        It comes to its end even if whoever waits for it is cancelled.
        """
        # asgiref gives a hop up when it is cancelled, so that is left to a task of its own.
        task = asyncio.ensure_future(self._hop(end))
        _hops.add(task)
        task.add_done_callback(_hops.discard)
        await asyncio.shield(task)

    async def _hop(self, end: Callable[[], None]) -> None:
        try:
            await sync_to_async(end)()
        except RuntimeError:
            # A task that has outlived its request, whose thread asgiref has ended.
            if not all(lease.orphaned for lease in self.leases.copy()):
                raise
        for lease in self.leases.copy():
            if lease.orphaned:
                lease.checkin()

    def _leases_of_this_thread(self) -> list[Lease]:
        return [lease for lease in self.leases.copy() if lease.thread is threading.current_thread()]


class GeneratorWork(Work):
    """The work of a generator, between whose steps its consumer may open atomic blocks of its own."""

    __slots__ = ("opened",)

    def __init__(self, describe: Callable[[], str], *, asynchronous: bool = False) -> None:
        super().__init__(describe, asynchronous=asynchronous)
        self.opened: list[Any] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._noting_blocks():
            return super().run(function, *args, **kwargs)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._noting_blocks():
            return await super().run_async(function, *args, **kwargs)

    def has_opened(self, block: Any) -> bool:
        return block is None or block in self.opened

    @contextmanager
    def _noting_blocks(self) -> Iterator[None]:
        before = self._blocks()
        try:
            yield
        finally:
            # Those that are closed need not be known any more.
            self.opened = [block for block in self._blocks() if block in self.opened or block not in before]

    def _blocks(self) -> list[Any]:
        return [block for lease in self.leases.copy() if (block := lease.outermost_block)]


current_work: ContextVar[Work | None] = ContextVar("poollife_work", default=None)

#: The thread that has borrowed for no work in this context, or in the one that it is a copy of.
caller: ContextVar[int | None] = ContextVar("poollife_caller", default=None)

#: Hops under way; asyncio itself holds tasks weakly.
_hops: set[asyncio.Future[None]] = set()
