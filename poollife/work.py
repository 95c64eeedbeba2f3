"""Work: a piece of work with an end, such as a request, and its leases. The hooks start and end it."""

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
    """A lease, as far as the work that it belongs to uses it: ``poollife.pools.lease.Lease``."""

    thread: threading.Thread
    driver: Any
    open_cursors: int
    ends_with_work: bool
    automatic: bool
    shared_by_works: bool

    @property
    def active(self) -> bool: ...
    @property
    def is_idle(self) -> bool: ...
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
    """The leases of one thread. Only its thread-locals refer to this object, so it ends with the thread."""

    # The destructor needs these on the class: at interpreter exit module globals are gone.
    _alive, _process = alive, process
    #: The process; None: not known yet, as an asynchronous exception may come before.
    pid: int | None = None

    def __init__(self) -> None:
        self.leases: set[Any] = set()
        self.thread = threading.current_thread()
        #: Its name, for the board.
        name = self.thread.name
        self.label = name.encode(errors="replace") if isinstance(name, str) else b""
        self.pid = process.pid

    def __del__(self) -> None:
        # In a child this also runs for threads that exist in the parent only: their leases are the parent's.
        if self._alive[0] and self.pid == self._process.pid:
            # A copy: a waiting thread may be taking one of the leases back.
            for lease in self.leases.copy():
                lease.report_lost()


class _ThreadLocal(threading.local):
    """The data of each thread, or greenlet."""

    leases: ThreadLeases | None = None


local = _ThreadLocal()


def enter_thread() -> ThreadLeases:
    """Make and return the calling thread's ``ThreadLeases``, in a thread without, or in a child."""
    local.leases = here = ThreadLeases()
    return here


class Work:
    """A piece of work with an end, such as a request, and the leases that were borrowed while it was current.

    The current work is in a context variable: ``sync_to_async`` and ``asyncio.to_thread`` carry it into their
    threads.
    """

    __slots__ = ("around", "asynchronous", "ended", "label", "leases", "name", "thread")

    def __init__(self, name: str, asynchronous: bool = False) -> None:
        """
        :param name: for people, such as "GET /report/".
        :param asynchronous: whether it ends by ``end_async()`` or ``hop()``, and so returns its sessions in
            the thread of its sync code.
        """
        self.name = name
        #: The name, for the board. Encoded by position: a keyword would cost more than the encoding.
        self.label = name.encode("utf-8", "replace")
        self.asynchronous = asynchronous
        #: The leases that are out. Several threads of one request may borrow at the same time, so each change
        #: is a single operation.
        self.leases: list[Lease] = []
        here = local.leases
        if here is None or here.pid != process.pid:
            here = enter_thread()
        #: The thread in which the work goes on, and ends.
        self.thread = here.thread
        #: Whether the work has ended. Tasks and threads that outlive it keep it in their context.
        self.ended = False
        #: The work that this is a part of. Works that have ended are left out: they may be an endless chain.
        self.around = current_work.get()
        while self.around and self.around.ended:
            self.around = self.around.around

    def __str__(self) -> str:
        return self.name

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
        """Have a lease of the calling thread belong to this work, and end with it if that ends there."""
        lease.join(self, asynchronous_thread=self.asynchronous and runs_sync_code())
        self.leases.append(lease)

    def remove(self, lease: Lease) -> None:
        """Remove a lease that has ended, or that ends with other work."""
        try:
            self.leases.remove(lease)
        except ValueError:  # an asynchronous exception came before it was added
            pass

    def has_opened(self, block: Any) -> bool:
        """Return whether a block that is open in one of its sessions was opened as a part of the work.

        :param block: the outermost ``transaction.atomic()`` of a lease; None: no block is open.
        """
        return True

    def has_open_cursors(self) -> bool:
        """Return whether a cursor in one of its sessions is open."""
        return any(lease.open_cursors for lease in self.leases.copy())

    def release(self) -> None:
        """End the calling thread's leases of this work, at the end of the work.

        A lease in an atomic block is left to the code that opened the block: to the work that goes on around
        this one.
        """
        self.mark_ended()
        if not self.leases:
            return
        me = local.leases.thread if local.leases else threading.current_thread()
        for lease in self.leases.copy():
            if lease.thread is not me:
                continue
            if not (lease.shared_by_works and lease.open_cursors):
                lease.release()
            if lease.active:
                # If another work still reads from the session, it is returned when the last cursor is closed.
                around = current_work.get()
                lease.hand_over(around if around and not around.ended else None)

    def mark_ended(self) -> None:
        """Note the end of the work: a session that is borrowed from now on does not belong to it."""
        self.ended, self.around = True, None
        if self.leases:
            for lease in self.leases.copy():
                lease.ends_with_work = False
                lease.automatic = True

    def end(self, well: bool) -> None:
        """End the work, and return the calling thread's sessions of it.

        :param well: False: an asynchronous exception may have come inside ``Atomic.__enter__`` or
            ``__exit__``, and then no code is left to end the blocks that this work opened.
        """
        if not well:
            for lease in self._leases_of_this_thread():
                if self.has_opened(lease.outermost_block):
                    lease.reset_atomic_state()
        self.release()

    async def end_async(self, well: bool) -> None:
        """End a work whose sync code has threads of its own, and return its sessions in their thread.

        :param well: as for ``end()``.
        """
        # The hop is made only if there is a session to return. After an error there may be one soon, if a
        # task was cancelled in the middle of a checkout: the hop queues behind it.
        self.mark_ended()
        if self.leases or not well:
            await self.hop(partial(self.end, well))

    def release_closed(self) -> None:
        """End the calling thread's leases whose cursors are all closed."""
        for lease in self._leases_of_this_thread():
            if not lease.open_cursors:
                lease.release()

    def release_unread(self) -> None:
        """End the calling thread's leases with results that no code will read any more."""
        for lease in self._leases_of_this_thread():
            if lease.driver.reason_to_close():
                lease.release()

    async def hop(self, end: Callable[[], None]) -> None:
        """Call ``end`` in the thread where the sync code of this work has its leases.

        The call is made even if the task that awaits it is cancelled.

        :param end: returns the sessions.
        """
        # asgiref gives up a hop that is cancelled, so a task of its own makes it.
        task = asyncio.ensure_future(self._hop(end))
        _hops.add(task)
        task.add_done_callback(_hops.discard)
        await asyncio.shield(task)

    async def _hop(self, end: Callable[[], None]) -> None:
        try:
            await sync_to_async(end)()
        except RuntimeError:
            # The task has outlived its request, and asgiref has ended the request's thread.
            if not all(lease.orphaned for lease in self.leases.copy()):
                raise
        for lease in self.leases.copy():
            if lease.orphaned:
                lease.pool.checkin(lease)

    def _leases_of_this_thread(self) -> list[Lease]:
        me = local.leases.thread if local.leases else threading.current_thread()
        return [lease for lease in self.leases.copy() if lease.thread is me]


class GeneratorWork(Work):
    """The work of a generator. Between the steps its consumer may open atomic blocks of its own."""

    __slots__ = ("opened",)

    def __init__(self, name: str, *, asynchronous: bool = False) -> None:
        super().__init__(name, asynchronous=asynchronous)
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
            # Blocks that are closed are left out.
            self.opened = [block for block in self._blocks() if block in self.opened or block not in before]

    def _blocks(self) -> list[Any]:
        return [block for lease in self.leases.copy() if (block := lease.outermost_block)]


current_work: ContextVar[Work | None] = ContextVar("poollife_work", default=None)

#: The ident of the thread that has borrowed without a work in this context, or in the context that this is a
#: copy of.
caller: ContextVar[int | None] = ContextVar("poollife_caller", default=None)

#: Hops under way; asyncio itself holds tasks weakly.
_hops: set[asyncio.Future[None]] = set()
