"""The frames of all threads; threads that wait for a job, or run an asynchronous work's sync code.

This module has the private names of ``concurrent.futures``, asgiref and AnyIO.
tests/compatibility/test_private_names.py pins them.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from concurrent.futures import thread as futures
from types import CodeType, FrameType

from asgiref.sync import SyncToAsync

#: The files whose code waits for an item that another thread puts into a queue.
WAITING = {threading.__file__, queue.__file__}
#: The loop of a worker of ``ThreadPoolExecutor``, and so of each event loop's default executor.
FUTURES_WORKER: CodeType = futures._worker.__code__
#: The function by which a call of ``sync_to_async()`` arrives in its thread.
SYNC_CALL: CodeType = SyncToAsync.thread_handler.__code__


if sys.version_info >= (3, 11, 9):
    current_frames = sys._current_frames
else:
    #: One object for each look that is under way: meanwhile the garbage collector is off.
    _looks: dict[object, None] = {}
    _switched_off = False

    def current_frames() -> dict[int, FrameType]:
        """Return the present frame of each thread, by its identifier, while the collector does not run.

        In these versions of Python, ``sys._current_frames()`` has the interpreter's list of threads locked
        while it makes its answer. If the garbage collector runs in the middle of that, a finalizer may let
        another thread run. If that thread starts a thread, it waits for the list, and all threads wait for
        the GIL that it has: the process stands still for ever. (CPython's issue 106883.)
        """
        global _switched_off
        look = object()
        try:
            _looks[look] = None
            if gc.isenabled():
                _switched_off = True
            gc.disable()
            return sys._current_frames()
        finally:
            # Nothing is called before enable(): so no other thread and no asynchronous exception comes first.
            if look in _looks:
                del _looks[look]  # noqa: RUF051  # pop() would be a call
            if _switched_off and not _looks:
                _switched_off = False
                gc.enable()

    def _enter_child() -> None:
        """Switch the collector on: the other threads, which may have been looking, are not here."""
        global _switched_off
        _looks.clear()
        if _switched_off:
            _switched_off = False
            gc.enable()

    os.register_at_fork(after_in_child=_enter_child)


def waits_for_job(thread: threading.Thread) -> bool:
    """Return whether a thread is a worker of an executor that is between two jobs.

    :param thread: any thread but the calling one. For a greenlet the answer is False: nothing is known of it.
    """
    frame: FrameType | None = current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename in WAITING:
        frame = frame.f_back
    return frame is not None and frame.f_code in (FUTURES_WORKER, anyio_worker())


def anyio_worker() -> CodeType | None:
    """Return the loop of AnyIO's worker threads (Starlette, FastAPI use them); None: AnyIO is not loaded."""
    backend = sys.modules.get("anyio._backends._asyncio")
    worker = getattr(backend, "WorkerThread", None)
    return worker.run.__code__ if worker else None


def runs_sync_code() -> bool:
    """Return whether the calling thread is in a thread-sensitive call of ``sync_to_async()``.

    All such calls of a context run in one thread. The threads of ``asyncio.to_thread`` have the context, too,
    but run no such call. (The executor is not asked: this may run before ``submit()`` has noted its thread.)
    """
    if getattr(SyncToAsync.threadlocal, "main_event_loop", None) is None:
        return False  # no such call was ever made in this thread
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not SYNC_CALL:
        frame = frame.f_back
    return frame is not None and bool(frame.f_locals["self"]._thread_sensitive)
