"""Threads of executors: which of them waits for a job, and which one runs an asynchronous work's sync code.

The private names of ``concurrent.futures``, and AnyIO's classes; tests/test_private_names.py pins them.
"""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import thread as futures
from types import CodeType, FrameType

from asgiref.sync import AsyncToSync, SyncToAsync

#: Where a thread of Python's own waits for what another one puts into a queue.
WAITING = {threading.__file__, queue.__file__}
#: Where a worker of ``ThreadPoolExecutor`` goes round, and so of each event loop's default executor.
FUTURES_WORKER: CodeType = futures._worker.__code__


def waits_for_job(thread: threading.Thread) -> bool:
    """Return whether a thread is a worker of an executor that is between two jobs.

    :param thread: any but the calling one; of greenlets nothing is known, so False.
    """
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename in WAITING:
        frame = frame.f_back
    return frame is not None and frame.f_code in (FUTURES_WORKER, anyio_worker())


def anyio_worker() -> CodeType | None:
    """Return where AnyIO's worker threads go round: those of Starlette and FastAPI; None: not loaded."""
    backend = sys.modules.get("anyio._backends._asyncio")
    worker = getattr(backend, "WorkerThread", None)
    return worker.run.__code__ if worker else None


def runs_sync_code() -> bool:
    """Return whether ``sync_to_async()`` brings the sync code of the current context into this thread.

    False in the threads of ``asyncio.to_thread``, which have the context, too.
    """
    if getattr(AsyncToSync.executors, "current", None) is not None:
        return True  # it waits in async_to_sync(), and meanwhile runs what comes back
    if context := SyncToAsync.thread_sensitive_context.get(None):
        executor = SyncToAsync.context_to_thread_executor.get(context)
    else:
        executor = SyncToAsync.single_thread_executor
    return threading.current_thread() in getattr(executor, "_threads", ())
