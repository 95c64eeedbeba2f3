"""A thread that is there only while there is something to do: for all that waits for a time."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from poollife.process import greenlets, uwsgi

logger = logging.getLogger("poollife")


def may_start_thread() -> bool:
    """Return whether a thread of the pools' own may begin in this process."""
    return not (uwsgi.forks_in_c() or greenlets.are_copies())


class Worker(threading.Thread):
    """The thread of a ``Housekeeper``. It ends by itself as soon as it is not the current one any more."""

    def __init__(self, run: Callable[[Worker], None], name: str) -> None:
        super().__init__(target=run, args=(self,), name=name, daemon=True)
        # Of C, so whoever is struck by something from outside in there leaves no lock behind.
        self.calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def sleep(self, seconds: float) -> None:
        """Sleep, or until it is called."""
        if "gevent" in type(self.calls).__module__:
            # Not by the queue's own timeout: gevent.wait() would wait for that, too.
            with sys.modules["gevent"].Timeout(seconds, False, ref=False):
                self.calls.get()
        else:
            with suppress(queue.Empty):
                self.calls.get(timeout=seconds)


class Housekeeper:
    """A thread that is there only while there is something to do. A child forgets it, with its pool.

    ``_worker`` is all that says which thread that is. Each change is one assignment, so there is no lock: of
    two threads that begin at once the one that is not in the field ends. One that was stopped in the middle
    of its work goes on with that, and holds up no other: ``call()`` starts the next one beside it.
    ``_stopped`` is the thread that was stopped last: a second ``stop()`` waits for it, too.
    """

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        """
        :param work: does what is due; returns the seconds until it should be called again, None: not at all.
        """
        self._name = name
        self._work = work
        self._worker: Worker | None = None
        self._stopped: Worker | None = None

    @property
    def _awake(self) -> bool:
        return self._worker is not None

    def call(self) -> None:
        """There may be something to do. Takes no time where the thread is there."""
        if self._worker or not may_start_thread():
            return
        worker = self._worker = Worker(self._run, self._name)
        try:
            worker.start()
        except RuntimeError as error:
            # Too many threads, or the interpreter ends: sessions just stay for longer.
            self._end(worker)
            logger.info("%s can't start: %s", self._name, error)
        except BaseException:
            # Should it run all the same, it ends.
            self._end(worker)
            raise

    def hurry(self) -> None:
        """Look now: something has changed."""
        if (worker := self._worker) and worker.calls.empty():
            worker.calls.put(None)

    def stop(self, timeout: float) -> None:
        """End the thread, and wait for that for ``timeout`` seconds at most; ``call()`` starts another."""
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
            # It has not begun yet. A greenlet does so now, before a fork copies it. What can't be started is
            # nothing to wait for.
            time.sleep(0)

    def _run(self, worker: Worker) -> None:
        try:
            while self._worker is worker and (pause := self._pause(worker)) is not None:
                if self._worker is worker:
                    worker.sleep(pause)
        except Exception:
            logger.exception("%s gives up until the next burst", self._name)
        finally:
            self._end(worker)

    def _pause(self, worker: Worker) -> float | None:
        if (pause := self._work()) is not None:
            return pause
        # First the word, then a last look: who called before the word was told that somebody is there.
        self._end(worker)
        if (pause := self._work()) is not None and self._worker is None:
            self._worker = worker
            return 0.0  # whoever called just now may have ended for this one
        return None

    def _end(self, worker: Worker) -> None:
        if self._worker is worker:
            self._worker = None
