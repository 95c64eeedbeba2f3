"""A background thread that exists only while there is something to do, for work that is due at a time."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from poollife.pools import log
from poollife.process import greenlets, uwsgi

logger = logging.getLogger("poollife")


def may_start_thread() -> bool:
    """Return whether a thread of the pools' own may begin in this process."""
    # With gevent, the start of a thread waits in the hub.
    copies_would_run = greenlets.are_copies() and greenlets.is_patched("threading")
    return not (copies_would_run or uwsgi.forks_in_c())


class Worker(threading.Thread):
    """The thread of a ``Housekeeper``. It ends by itself when it is no longer the current one."""

    def __init__(self, run: Callable[[Worker], None], name: str) -> None:
        super().__init__(target=run, args=(self,), name=name, daemon=True)
        # Implemented in C: an asynchronous exception in a call of it leaves no lock behind.
        self.calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def sleep(self, seconds: float) -> None:
        """Sleep until the time is over, or until a call arrives.

        :param seconds: the longest sleep.
        """
        if "gevent" in type(self.calls).__module__:
            # Not with the queue's own timeout: gevent.wait() would wait for that timer, too.
            with sys.modules["gevent"].Timeout(seconds, False, ref=False):
                self.calls.get()
        else:
            with suppress(queue.Empty):
                self.calls.get(timeout=seconds)


class Housekeeper:
    """A background thread that exists only while there is something to do. A child drops it, with its pool.

    ``_worker`` alone says which thread is the current one. Each change is one assignment, so there is no
    lock: of two threads that begin at the same time, the one that is not in the field ends. A thread that was
    stopped in the middle of its work goes on with it, and delays no other: ``call()`` starts the next thread
    beside it. ``_stopped`` is the thread that was stopped last: a second ``stop()`` waits for it, too.
    """

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        """
        :param name: of the thread, also for the log.
        :param work: does what is due. It returns the seconds until its next call; None: nothing more is due.
        """
        self._name = name
        self._work = work
        self._worker: Worker | None = None
        self._stopped: Worker | None = None

    @property
    def _awake(self) -> bool:
        return self._worker is not None

    def call(self) -> None:
        """Start the thread, as there may be something to do. If it exists, this costs almost nothing."""
        if self._worker or not may_start_thread():
            return
        worker = self._worker = Worker(self._run, self._name)
        try:
            worker.start()
        except RuntimeError as error:
            # Too many threads, or the interpreter ends: idle sessions stay open for longer.
            self._end(worker)
            logger.info("%s can't start: %s", self._name, error, extra=log.about(None))
        except BaseException:
            # The thread may run all the same: then it finds that it is not the current one, and ends.
            self._end(worker)
            raise

    def hurry(self) -> None:
        """Wake the thread if it exists: something has changed."""
        if (worker := self._worker) and worker.calls.empty():
            worker.calls.put(None)

    def stop(self, timeout: float) -> None:
        """End the thread, and wait for its end. ``call()`` starts another.

        :param timeout: seconds to wait, at most.
        """
        worker = self._worker or self._stopped
        if worker is None or worker is threading.current_thread():
            return
        self._stopped = worker
        self._worker = None
        worker.calls.put(None)
        for _ in range(2):
            with suppress(RuntimeError):
                worker.join(timeout)
                return
            # The thread has not begun yet. A greenlet begins now, before a fork copies it. There is no wait
            # for a thread that can't be started.
            time.sleep(0)

    def _run(self, worker: Worker) -> None:
        try:
            while self._worker is worker and (pause := self._pause(worker)) is not None:
                if self._worker is worker:
                    worker.sleep(pause)
        except Exception:
            logger.exception("%s gives up until the next burst", self._name, extra=log.about(None))
        finally:
            self._end(worker)

    def _pause(self, worker: Worker) -> float | None:
        if (pause := self._work()) is not None:
            return pause
        # The field is emptied first, and the last look follows: a call() before that moment found this thread
        # in the field, and started none.
        self._end(worker)
        if (pause := self._work()) is not None and self._worker is None:
            self._worker = worker
            return 0.0  # a thread that was started just now may have found this one in the field, and ended
        return None

    def _end(self, worker: Worker) -> None:
        if self._worker is worker:
            self._worker = None
