"""What nobody should have to wait for: closing what a burst has left, opening what the next one will find.

No law needs it. Where no other thread ever runs (uWSGI without threads) there are no bursts either.
"""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from poollife import clock
from poollife.drivers import uwsgi
from poollife.pools.queue import FairQueuePool, Postponed, SpareTicket, current

if TYPE_CHECKING:
    from poollife.pools.lease import Borrower
    from poollife.pools.pool import LeasePool
    from poollife.pools.poolclass import Counted

logger = logging.getLogger("poollife")


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
    """

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        """
        :param work: does what is due; returns the seconds until it should be called again, None: not at all.
        """
        self._name = name
        self._work = work
        self._worker: Worker | None = None

    @property
    def _awake(self) -> bool:
        return self._worker is not None

    def call(self) -> None:
        """There may be something to do. Takes no time where the thread is there."""
        if self._worker or uwsgi.in_master():
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
        worker = self._worker
        if worker is None or worker is threading.current_thread():
            return
        self._worker = None
        worker.calls.put(None)
        # Should the thread not have begun yet, or not be startable, there is nothing to wait for.
        with suppress(RuntimeError):
            worker.join(timeout)

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


class Housekeeping:
    """What there is to do in one pool: the surplus is retired, and ``min_idle`` is ready."""

    def __init__(self, pool: LeasePool, slots: FairQueuePool | Counted) -> None:
        self._pool = pool
        self._slots = slots
        self._housekeeper = Housekeeper(f"poollife's housekeeper of {pool.key.alias!r}", self.do)
        #: Opens what nobody has asked for yet.
        self.opener: Borrower | None = None
        self._next_retirement = math.inf
        #: Until when nothing is opened, because that went wrong.
        self._next_opening = -math.inf

    def call(self) -> None:
        """There may be a surplus, or too little idle."""
        ticket = current.checkout
        if ticket and self._slots.shortage and clock.monotonic() >= self._next_opening:
            self.opener = self.opener or ticket.borrower.opener()
            self._housekeeper.hurry()
        elif not self._slots.surplus:
            return
        self._housekeeper.call()

    def hurry(self) -> None:
        """The pool was closed."""
        self._housekeeper.hurry()

    def do(self) -> float | None:
        """What is due; returns the seconds until more is, None: nothing will be."""
        busy = self._warm() or self._slots.surplus
        if self._pool.closed_because:
            self._pool.close_idle()
            return None
        if not busy:
            return None
        options = self._pool.options
        now, interval = clock.monotonic(), options.retire_interval
        # Those that came back just now are not the surplus of a while ago.
        self._next_retirement = min(self._next_retirement, now + interval)
        if now >= self._next_retirement:
            self._next_retirement = now + interval
            self._slots.retire(options.retire_quantity, lambda connection: self._is_old(connection, interval))
        return max(0.0, self._next_retirement - now)

    def _warm(self) -> bool:
        """Have ``min_idle`` ready; whether there is more to do."""
        while self.opener and self._slots.shortage and not self._pool.closed_because:
            try:
                if not self.open(SpareTicket(self.opener)):
                    return True  # others are opening some
            except Exception as error:
                # Not with each checkout from now on; and then with the settings of that time.
                self._next_opening = clock.monotonic() + self._pool.options.retire_interval
                self.opener = None
                if not isinstance(error, Postponed):  # the log has told of an outage already
                    logger.info("Pool %r can't have min_idle ready: %s", self._pool.key.alias, error)
        return False

    def open(self, ticket: SpareTicket, *, spare: bool = False) -> bool:
        """Open a session for the next that comes; whether there was need of one.

        :param spare: open one if there is room for it, however many are idle.
        """
        if not ticket.borrower.leads_to(self._pool.key):
            raise LookupError("more than settings decides on its sessions")
        current.ticket = ticket
        try:
            return self._slots.prepare(ticket, spare=spare)
        finally:
            current.ticket = None
            ticket.active = False
            self._slots.free()

    def _is_old(self, connection: Any, age: float) -> bool:
        return connection is None or bool(
            clock.monotonic() - self._pool.driver.unwrap(connection).idle_since >= age
        )
