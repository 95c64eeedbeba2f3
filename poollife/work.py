"""The work that borrows: what a clock starts and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from asgiref.sync import sync_to_async

from poollife.executors import runs_sync_code
from poollife.process.guard import alive, process

P = ParamSpec("P")
T = TypeVar("T")


class Lease(Protocol):
    """A lease, as far as the work that it belongs to uses it. ``poollife.pools.lease`` has the real one."""

    thread: threading.Thread
    driver: Any
    open_cursors: int
    ends_with_work: bool
    automatic: bool
    shared_by_works: bool

    @property
    def returned(self) -> bool: ...
    @property
    def orphaned(self) -> bool: ...
    @property
    def outermost_block(self) -> Any: ...
    @property
    def pool(self) -> Any: ...
    def release(self, *, if_idle: bool = False) -> None: ...
    def reset_atomic_state(self) -> None: ...
    def join(self, work: Work | None, *, asynchronous_thread: bool = False) -> None: ...
    def hand_over(self, work: Work | None) -> None: ...
    def report_lost(self) -> None: ...


class ThreadLeases:
    """The leases of one thread. Only its thread-locals refer to this, so it goes when the thread does."""

    # A destructor needs what hangs on the class: at interpreter exit module globals are gone.
    _alive, _process = alive, process
    #: No process's, should an asynchronous exception come before it is known.
    pid: int | None = None

    def __init__(self) -> None:
        self.leases: set[Any] = set()
        self.thread = threading.current_thread()
        self.pid = process.pid

    def __del__(self) -> None:
        # In a child this runs for its lost threads, whose leases are the parent's.
        if self._alive[0] and self.pid == self._process.pid:
            # A waiting thread may be taking one of them back.
            for lease in self.leases.copy():
                lease.report_lost()


class _ThreadLocal(threading.local):
    """What there is one of for each thread, or greenlet."""

    leases: ThreadLeases | None = None


local = _ThreadLocal()


def enter_thread() -> ThreadLeases:
    """Return the calling thread's leases, in a thread that has none yet, or in a child."""
    local.leases = here = ThreadLeases()
    return here


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
        here = local.leases
        if here is None or here.pid != process.pid:
            here = enter_thread()
        #: Where it goes on, and ends.
        self.thread = here.thread
        #: Whether it has ended. Tasks and threads that outlive it keep it in their context.
        self.ended = False
        #: The one that it is a part of. Not when that has ended: it may be the last of an endless row.
        self.around = current_work.get()
        while self.around and self.around.ended:
            self.around = self.around.around

    def __str__(self) -> str:
        return self._describe()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function as a part of this work. The caller ends the work."""
        previous = current_work.get()
        try:
            current_work.set(self)
            return function(*args, **kwargs)
        finally:
            current_work.set(previous)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a coroutine function as a part of this work."""
        previous = current_work.get()
        try:
            current_work.set(self)
            return await function(*args, **kwargs)
        finally:
            current_work.set(previous)

    def add(self, lease: Lease) -> None:
        """Have a lease of the calling thread belong to this work, and end with it if that ends here."""
        lease.join(self, asynchronous_thread=self.asynchronous and runs_sync_code())
        self.leases.append(lease)

    def remove(self, lease: Lease) -> None:
        """Forget a lease that has ended, or that ends with other work."""
        try:
            self.leases.remove(lease)
        except ValueError:  # an asynchronous exception came before it got there
            pass

    def has_opened(self, block: Any) -> bool:
        """Whether an atomic block that is open on one of its connections was opened as a part of it."""
        return True

    def has_open_cursors(self) -> bool:
        """Return whether a cursor on one of its connections was not closed."""
        return any(lease.open_cursors for lease in self.leases.copy())

    def release(self) -> None:
        """End this thread's leases of it, at the end of this work.

        What is in an atomic block still is left to the code that opened the block: to the work that goes on
        around this one.
        """
        self.mark_ended()
        for lease in self._leases_of_this_thread():
            if not (lease.shared_by_works and lease.open_cursors):
                lease.release()
            if not lease.returned:
                # Where another work reads from it still, it goes back when the last cursor is closed.
                around = current_work.get()
                lease.hand_over(around if around and not around.ended else None)

    def mark_ended(self) -> None:
        """Note its end: what is borrowed from now on is not its own."""
        self.ended, self.around = True, None
        if self.leases:
            for lease in self.leases.copy():
                lease.ends_with_work = False
                lease.automatic = True

    def end(self, well: bool) -> None:
        """Give back what this thread has of it.

        :param well: False: an asynchronous exception may have come inside ``Atomic.__enter__`` or
            ``__exit__``, and then no code is left to end the blocks that this work opened.
        """
        if not well:
            for lease in self._leases_of_this_thread():
                if self.has_opened(lease.outermost_block):
                    lease.reset_atomic_state()
        self.release()

    async def end_async(self, well: bool) -> None:
        """Do the same for work whose sync code has threads of its own."""
        # A hop, made only where there is something to give back. After an error there may be soon, where a
        # task was cancelled in the middle of a borrowing: queue behind it.
        self.mark_ended()
        if self.leases or not well:
            await self.hop(partial(self.end, well))

    def release_closed(self) -> None:
        """End this thread's leases whose cursors are all closed."""
        for lease in self._leases_of_this_thread():
            if not lease.open_cursors:
                lease.release()

    def release_unread(self) -> None:
        """End this thread's leases with results that no code will read any more."""
        for lease in self._leases_of_this_thread():
            if lease.driver.unfit():
                lease.release()

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
                lease.pool.checkin(lease)

    def _leases_of_this_thread(self) -> list[Lease]:
        me = local.leases.thread if local.leases else threading.current_thread()
        return [lease for lease in self.leases.copy() if lease.thread is me]


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
