"""Threads of executors: threads that wait for a job, and threads that run an asynchronous work's sync code.

This module has the private names of ``concurrent.futures``, asgiref and AnyIO.
tests/compatibility/test_private_names.py pins them.
"""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import thread as futures
from types import CodeType, FrameType

from asgiref.sync import SyncToAsync

from poollife.stacks import current_frames

#: The files whose code waits for an item that another thread puts into a queue.
WAITING = {threading.__file__, queue.__file__}
#: The loop of a worker of ``ThreadPoolExecutor``, and so of each event loop's default executor.
FUTURES_WORKER: CodeType = futures._worker.__code__
#: The function by which a call of ``sync_to_async()`` arrives in its thread.
SYNC_CALL: CodeType = SyncToAsync.thread_handler.__code__


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
