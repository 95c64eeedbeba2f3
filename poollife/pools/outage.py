"""A server that is out of reach: who comes is told at once, and one at a time tries again.

All pools of a process that lead to one server share what is known of it: where each database or tenant has a
pool of its own, they would be many to try.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from poollife import clock
from poollife.errors import remembered
from poollife.pools.queue import Ticket

#: Seconds between two attempts while it is down, the first and the longest: it doubles in between.
FIRST_PAUSE, LONGEST_PAUSE = 0.3, 1.2
#: The least part of that after which somebody tries: processes shall not all come at the same moment.
JITTER = 0.8
#: Sessions that have to be cut off in a row, as they are opened, to make an outage: a server may be told to
#: end one of them.
CONFIRMATIONS = 3
#: Seconds between two looks whether the one who tries has come through: they grow, as many may look.
INTERVAL, LONGEST_INTERVAL = 0.005, 0.1


class Outage:
    """Whether a server can be reached, as far as that is known.

    While there is doubt (a session was lost, or could not be opened) new sessions are opened one at a time.
    The lock guards who that is; no I/O happens under it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: Who tries, unless he has come to an end without telling; and in which thread.
        self._prober: Ticket | None = None
        self._thread = 0
        self._doubtful = False
        #: Failures in a row that may have hit one session only.
        self._uncertain = 0
        self._until = 0.0
        self._pause = FIRST_PAUSE
        #: What the last attempt came to, if it failed.
        self.error: Exception | None = None

    def abandon(self) -> None:
        """In a child: a thread that no longer exists may have the lock, or be the one who tries."""
        self._lock = threading.RLock()
        self._prober = None

    @property
    def _closed(self) -> bool:
        """Whether nobody else may try now. Who tries may need another session in the middle of it."""
        return clock.monotonic() < self._until or bool(
            self._prober and self._prober.active and self._thread != threading.get_ident()
        )

    def tell(self) -> None:
        """:raises Exception: what the last attempt came to, as long as another makes no sense."""
        if (error := self.error) and self._closed:
            raise remembered(error)

    def admit(self, ticket: Ticket) -> bool:
        """Wait for leave to open a session; False: not within the ticket's time.

        :raises Exception: as ``tell()``.
        """
        interval = INTERVAL
        while self._doubtful and not self._is_prober(ticket):
            self.tell()
            if (left := ticket.deadline - clock.monotonic()) <= 0:
                return False
            time.sleep(min(interval, left))
            interval = min(2 * interval, LONGEST_INTERVAL)
        return True

    def _is_prober(self, ticket: Ticket) -> bool:
        # No call while the lock is held; see queue.py.
        me, before = threading.get_ident(), self._prober
        if self._closed:
            return False
        with self._lock:
            if mine := self._prober is before:
                self._prober, self._thread = ticket, me
        return mine

    def doubt(self) -> None:
        """A session was lost: the next one is opened by one alone."""
        self._doubtful = True

    def failed(self, error: Exception, certain: bool = True) -> None:
        """A session could not be opened.

        :param certain: whether nobody else can open one; otherwise that has to happen several times in a row.
        """
        kept, now, jitter = remembered(error), clock.monotonic(), random.SystemRandom().uniform(JITTER, 1)
        with self._lock:
            self._doubtful, self._prober = True, None
            self._uncertain = 0 if certain else self._uncertain + 1
            if not 0 < self._uncertain < CONFIRMATIONS:
                pause = self._pause
                self._pause = 2 * pause if 2 * pause < LONGEST_PAUSE else LONGEST_PAUSE
                self._until = now + pause * jitter
                self.error = kept

    def over(self) -> None:
        """A session was opened."""
        if self._doubtful:
            with self._lock:
                self.error = self._prober = None
                self._doubtful, self._until, self._pause = False, 0.0, FIRST_PAUSE
                self._uncertain = 0


_outages: dict[tuple[Any, ...], Outage] = {}


def outage_of(server: tuple[Any, ...]) -> Outage:
    """What this process knows of that server.

    :param server: what leads there, all of it.
    """
    return _outages.setdefault(server, Outage())


def forget_outages() -> None:
    """In a child: its parent's, in which threads may be trying that no longer exist."""
    _outages.clear()
