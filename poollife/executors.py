"""Threads of executors: which of them waits for a job, and which one runs an asynchronous work's sync code.

The private names of ``concurrent.futures``, asgiref and AnyIO are pinned by
tests/compatibility/test_private_names.py.
"""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import thread as futures
from types import CodeType, FrameType

from asgiref.sync import SyncToAsync

#: Where a thread of Python's own waits for what another one puts into a queue.
WAITING = {threading.__file__, queue.__file__}
#: Where a worker of ``ThreadPoolExecutor`` goes round, and so of each event loop's default executor.
FUTURES_WORKER: CodeType = futures._worker.__code__
#: Where ``sync_to_async()`` comes into a thread.
SYNC_CALL: CodeType = SyncToAsync.thread_handler.__code__


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
    """Return whether this thread is in a thread-sensitive call of ``sync_to_async()``.

    All such calls of a context come into one thread. The threads of ``asyncio.to_thread`` have the context,
    too, but are not it. (The executor does not tell: this may run before ``submit()`` has noted its thread.)
    """
    if getattr(SyncToAsync.threadlocal, "main_event_loop", None) is None:
        return False  # no call ever came here
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not SYNC_CALL:
        frame = frame.f_back
    return frame is not None and bool(frame.f_locals["self"]._thread_sensitive)
