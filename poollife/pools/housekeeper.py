"""What nobody should have to wait for: closing what a burst has left, opening what the next one will find.

No law needs it. Where no other thread ever runs (uWSGI without threads) there are no bursts either.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger("poollife")


class Housekeeper:
    """A thread that is there only while there is something to do. A child forgets it, with its pool."""

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        """
        :param work: does what is due; returns the seconds until it should be called again, None: not at all.
        """
        self._name = name
        self._work = work
        self._awake = False
        # Of C, so whoever is struck by something from outside in there leaves no lock behind.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def call(self) -> None:
        """There may be something to do. Takes no time where the thread is there."""
        if self._awake:
            return
        self._awake = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError as error:
            # Too many threads, or the interpreter ends: sessions just stay for longer.
            self._awake = False
            logger.info("%s can't start: %s", self._name, error)
        except BaseException:
            # Should it run all the same, there are two for a while, which does no harm.
            self._awake = False
            raise

    def hurry(self) -> None:
        """Look now: something has changed."""
        if self._awake:
            self._calls.put(None)

    def _run(self) -> None:
        try:
            while (pause := self._pause()) is not None:
                self._sleep(pause)
        except Exception:
            logger.exception("%s gives up until the next burst", self._name)
        finally:
            self._awake = False

    def _pause(self) -> float | None:
        if (pause := self._work()) is not None:
            return pause
        # First the word, then a last look: who called before the word was told that somebody is there.
        self._awake = False
        if (pause := self._work()) is not None:
            self._awake = True
        return pause

    def _sleep(self, seconds: float) -> None:
        try:
            self._calls.get(timeout=seconds)
        except queue.Empty:
            pass
