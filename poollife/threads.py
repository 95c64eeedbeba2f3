"""Thread hooks: the sessions of a task, a block or a thread return to their pools when it ends.

An asynchronous exception (a task's time limit, Ctrl-C) may come at each point where Python calls a function.
So the end of a work is tried again after an exception: in a ``finally`` of the frame that did the work, and
with no call before it.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, overload

from asgiref.sync import SyncToAsync, iscoroutinefunction

from poollife.work import GeneratorWork, Work, current_work

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound="classmethod[Any, ..., Any]")
Wrapper = Callable[..., Any]

#: A function that ends a work. Its argument is False after an error.
End = Callable[[bool], None]


@overload
def auto_close_db() -> Block: ...
@overload
def auto_close_db(function: M, /) -> M: ...
@overload
def auto_close_db(function: F, /) -> F: ...
def auto_close_db(function: Any = None, /) -> Any:
    """Return the sessions that a function or a block borrows when it ends: for work outside of requests.

    Use it as a decorator, with or without parentheses, for functions, methods, generators, coroutine
    functions and async generators, or as a context manager: ``with auto_close_db():``, in coroutines
    ``async with auto_close_db():``. An inner block returns no session that was borrowed outside of it. Inside
    of an atomic block it does not return the session of that block.

    - **Generators**: the work is the code of the generator's body. It ends when the generator is exhausted,
      closed, or raises. Decorate a generator: a ``with`` block around a ``yield`` also counts the consumer's
      code as its own work.
    - **Works that take turns in one thread** share its session. The work that borrowed it returns it.
    - **Threads that the work starts** are not a part of it: wrap the functions that they run.
    - **Coroutines**: only ``async with`` reaches the thread in which ``sync_to_async`` borrows.

    :param function: the function to wrap. A ``staticmethod`` or ``classmethod`` is wrapped underneath. A
        plain function that returns a coroutine or a generator is wrapped as a plain function.
    :returns: a function of the same kind and signature; without an argument a ``Block``, which is a context
        manager and a decorator.
    :raises TypeError: the argument is not a function, but a class or another object that can't be called.
    """
    if function is None:
        code = sys._getframe(1).f_code
        return Block(f"a block in {code.co_qualname}")
    if isinstance(function, staticmethod | classmethod):
        return type(function)(auto_close_db(function.__func__))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"auto_close_db wraps functions, not {function!r}")
    return _wrapper_for(function)(function)


class Block:
    """The result of ``auto_close_db()``: a context manager for one block at a time, and a decorator."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: _BlockWork | None = None

    def __call__(self, function: F) -> F:
        """Wrap a function as ``auto_close_db`` does."""
        return auto_close_db(function)

    def __enter__(self) -> None:
        """Begin the block.

        :raises RuntimeError: the object is in use for another block.
        """
        self._begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._end(error is None)
        except BaseException:
            self._end(error is None)
            raise

    async def __aenter__(self) -> None:
        """Begin the block in a coroutine.

        :raises RuntimeError: the object is in use for another block.
        """
        self._begin(asynchronous=True)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if work := self._leave():
            await work.end_async(error is None)

    def _begin(self, *, asynchronous: bool = False) -> None:
        if self._work:
            raise RuntimeError("This block is in use already: call auto_close_db() anew for each block.")
        previous = _outer_work()
        try:
            self._work = _BlockWork(self._name, self, previous, asynchronous)
            current_work.set(self._work)
        except BaseException:
            self._work = None
            current_work.set(previous)
            raise

    def _end(self, well: bool) -> None:
        if self._work:
            self._work.leave()
            self._work.end(well)
            self._work.over = True
            self._work = None

    def _leave(self) -> Work | None:
        work, self._work = self._work, None
        if work:
            work.over = True
            work.leave()
        return work


class _BlockWork(Work):
    """The work of a block."""

    __slots__ = ("block", "over", "previous")

    def __init__(self, name: str, block: Block, previous: Work | None, asynchronous: bool) -> None:
        super().__init__(name, asynchronous=asynchronous)
        #: The block, which lives as long as its ``with`` statement. If it is gone and this work is not over,
        #: an asynchronous exception came in the call of ``__exit__`` itself.
        self.block = weakref.ref(block)
        self.over = False
        self.previous = previous

    def leave(self) -> None:
        """Make the work around this one current, unless blocks end in another order than they began."""
        previous = self.previous
        while isinstance(previous, _BlockWork) and previous.over:
            previous = previous.previous
        # Blocks that are over are skipped: a loop of blocks would otherwise keep all of them alive.
        self.previous = previous
        if current_work.get() is self:
            current_work.set(previous)


class PooledThread(threading.Thread):
    """A ``threading.Thread`` that returns its sessions when its ``run()`` ends, with or without an error.

    It takes the arguments of ``threading.Thread``. A subclass may override ``run()``.
    """

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: the thread was started before.
        """
        if self.ident is None:
            # On the instance, around the run() of a subclass, and only until the thread calls it.
            self.run = partial(self._run_and_give_back, self.run)  # type: ignore[method-assign]
        try:
            super().start()
        except BaseException:
            if self.ident is None:
                vars(self).pop("run", None)
            raise

    def _run_and_give_back(self, run: Callable[[], None]) -> None:
        vars(self).pop("run", None)
        work = Work(type(self).__name__)
        _run(work, partial(_end_thread, work), run)


class PooledThreadPoolExecutor(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` whose jobs, and whose initializer, return their sessions when they end.

    A job sees the context variables of the code that submitted it. When its future is done, its sessions have
    been returned.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **kwargs: Any,
    ) -> None:
        """Create the executor, with the arguments and errors of ``ThreadPoolExecutor``.

        :param max_workers: the most threads. Default: that of ``ThreadPoolExecutor``.
        :param thread_name_prefix: the begin of the threads' names. Default: that of ``ThreadPoolExecutor``.
        :param initializer: a function that each thread calls at its start. Default: none.
        :param initargs: the arguments of ``initializer``.
        :raises ValueError: ``max_workers`` is 0 or less.
        :raises TypeError: ``initializer`` can't be called.
        """
        if callable(initializer):
            initializer = partial(_run_job, initializer)
        super().__init__(max_workers, thread_name_prefix, initializer, initargs, **kwargs)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker thread call a function, in a copy of the present context.

        :param fn: the function, called with ``args`` and ``kwargs``.
        :returns: the future of its result.
        :raises RuntimeError: the executor was shut down.
        """
        context = copy_context()
        # The job must not see the thread that asgiref has chosen for the submitting code. That thread may
        # wait for the job, and sync code of the job would wait for that thread.
        context.run(SyncToAsync.thread_sensitive_context.set, None)  # type: ignore[arg-type]  # counts as unset
        context.run(SyncToAsync.deadlock_context.set, False)
        return super().submit(partial(context.run, _run_job, fn, *args, **kwargs))


# --- running work -------------------------------------------------------------------------------------------


def _outer_work() -> Work | None:
    """Return the current work, after ending blocks whose ``__exit__`` did not run."""
    work = current_work.get()
    while isinstance(work, _BlockWork) and (work.over or work.block() is None):
        if not work.over:
            work.end(False)
            work.over = True
        work = work.previous
    return work


def _run(work: Work, end: End, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function as a work, end the work, and return the function's result."""
    well = False
    _outer_work()
    try:
        result = work.run(function, *args, **kwargs)
        well = True
        return result
    finally:
        try:
            end(well)
        except BaseException:
            end(well)
            raise


def _run_job(job: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    work = Work(_name(job))
    return _run(work, partial(_end_thread, work), job, *args, **kwargs)


def _end_thread(work: Work, well: bool) -> None:
    work.mark_ended()
    # Imported here: `import poollife` needs neither Django nor SQLAlchemy.
    from poollife.pools import live

    # All leases, whichever work they belong to: asyncio.to_thread() runs in a copy of its caller's context.
    live.end_thread()


# --- a wrapper for each kind of function --------------------------------------------------------------------


def _wrapper_for(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Wrapper]:
    while isinstance(function, partial):
        function = function.func
    # An object may be callable by a __call__ of any of these kinds.
    for called in (function, type(function).__call__):
        if inspect.isasyncgenfunction(called):
            return _wrap_async_generator
        if iscoroutinefunction(called):
            return _wrap_coroutine
        if inspect.isgeneratorfunction(called):
            return _wrap_generator
    return _wrap_function


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    # Not repr(): that of an object may query, or fail.
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def _wrap_function(function: Callable[..., Any]) -> Wrapper:
    name = _name(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        work = Work(name)
        return _run(work, work.end, function, *args, **kwargs)

    return call


def _wrap_generator(function: Callable[..., Generator[Any, Any, Any]]) -> Wrapper:
    name = _name(function)

    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        work, well = GeneratorWork(name), False
        try:
            body = function(*args, **kwargs)
            item = work.run(next, body)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    work.run(body.close)
                    well = True
                    raise
                except BaseException as error:
                    item = work.run(body.throw, error)
                else:
                    item = work.run(body.send, sent)
        except StopIteration as stop:
            well = True
            return stop.value
        finally:
            try:
                work.end(well)
            except BaseException:
                work.end(well)
                raise

    return generate


def _wrap_coroutine(function: Callable[..., Awaitable[Any]]) -> Wrapper:
    name = _name(function)

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        work = Work(name, asynchronous=True)
        try:
            result = await work.run_async(function, *args, **kwargs)
        except GeneratorExit:
            # Closed, and not cancelled: no code can await here. Borrowed sessions return when their thread
            # ends.
            raise
        except BaseException:
            await work.end_async(False)
            raise
        await work.end_async(True)
        return result

    return call


def _wrap_async_generator(function: Callable[..., AsyncGenerator[Any, Any]]) -> Wrapper:
    name = _name(function)

    @wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        work, well = GeneratorWork(name, asynchronous=True), False
        try:
            body = function(*args, **kwargs)
            item = await work.run_async(anext, body)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await work.run_async(body.aclose)
                    well = True
                    raise
                except BaseException as error:
                    item = await work.run_async(body.athrow, error)
                else:
                    item = await work.run_async(body.asend, sent)
        except StopAsyncIteration:
            well = True
        finally:
            await work.end_async(well)

    return generate
