"""A server that is out of reach: a short outage is waited out, a long one is refused at once.

All pools of a process that lead to one server share what is known of it: where each database or tenant has a
pool of its own, they would be many to try.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from poollife.drivers.guard import WeakRegistry
from poollife.errors import remembered
from poollife.pools.housekeeper import Housekeeper
from poollife.pools.queue import Postponed, SpareTicket, Ticket

logger = logging.getLogger("poollife")

#: Seconds between two attempts while the server is down, the first and the longest: the pause doubles.
FIRST_PAUSE, LONGEST_PAUSE = 0.3, 1.2
#: The least part of a pause after which the next attempt is made: processes shall not all come together.
JITTER = 0.8
#: Sessions that have to be cut off in a row, as they are opened, to make an outage: a server may be told to
#: end one of them.
CONFIRMATIONS = 3
#: Seconds by which the probe may be late before a checkout makes its attempt: there may be no thread for it.
GRACE = 1.2
#: Seconds without another probe, where one found out that it can't make any attempt.
PROBE_RETRY = 5.0


class ProbeTicket(SpareTicket):
    """An attempt of the probe."""

    __slots__ = ()


class Waiters(Protocol):
    """A pool's queue."""

    def serve(self) -> None:
        """Give what there is to those that wait."""


class State(Enum):
    """What is known of a server; see ``Outage``."""

    REACHABLE = 1
    DOUBTFUL = 2
    DOWN = 3


class Outage:
    """What this process knows of one server, and so when a session may be opened there.

    - REACHABLE: sessions are opened freely. A session that was lost leads to DOUBTFUL, and so does one that
      was cut off while it was opened. One that could not be opened for want of a server leads to DOWN.
    - DOUBTFUL: sessions are opened one at a time. The first that is opened leads to REACHABLE. An attempt for
      want of a server leads to DOWN; so do CONFIRMATIONS of them that are cut off, one after the other.
    - DOWN: one attempt at a time, after pauses that grow. The first that succeeds leads to REACHABLE. For the
      first ``outage_wait`` seconds checkouts wait, and the first in a queue makes the attempt. After that
      checkouts are refused with the last error, and the probe makes the attempts: a thread that is there
      until the server is back. An attempt that is overdue by GRACE is made by the next checkout, and then
      the others wait for what comes of it: there is no probe, and so the last error may be an old one.

    A checkout asks with its ticket and its pool's ``outage_wait``. It may belong to the attempt that is under
    way, in the same thread: a handler of a signal may query, or whoever has wrapped the driver's
    ``connect()``. Then it is let through.

    The lock guards all changes of ``_state``, ``_prober``, ``_awaited``, ``_cut_off``, ``_next_attempt``,
    ``_pause``, ``_since``, ``error`` and ``attempts``. They are read without it: a thread that reads them in
    the middle of a change waits in vain for a moment, or asks again under the lock. No I/O happens under it,
    no log, no call of a pool. It is reentrant, for handlers of signals, and assignments that belong together
    have no call between them, so that no exception from outside comes between. ``_attempt`` and
    ``_no_probe_until`` are set by one assignment each, and need no lock.
    """

    def __init__(self, name: str = "") -> None:
        """
        :param name: of the server, for people.
        """
        self.name = name
        self._lock = threading.RLock()
        self._state = State.REACHABLE
        #: The ticket of the attempt that is under way, unless that has come to an end without a word.
        self._prober: Ticket | None = None
        #: Whether all wait for what comes of that, however long the outage.
        self._awaited = False
        #: Attempts in a row that were cut off.
        self._cut_off = 0
        #: On the monotonic clock: when the next attempt is due, and when the server went away.
        self._next_attempt = self._since = -math.inf
        self._pause = FIRST_PAUSE
        #: What the last attempt came to, while the server is DOWN.
        self.error: Exception | None = None
        #: Attempts that have come to an end.
        self.attempts = 0
        #: The queues of the pools that lead there.
        self.waiters: WeakRegistry[Waiters] = WeakRegistry()
        #: Makes an attempt of the probe.
        self._attempt: Callable[[], object] | None = None
        self._no_probe_until = -math.inf
        self._thread = self._make_thread()

    def abandon(self) -> None:
        """Forget, in a child, threads that no longer exist: they may have the lock, or be at an attempt."""
        self._lock = threading.RLock()
        self._prober = self._attempt = None
        self.waiters.forget()
        self._thread = self._make_thread()

    # --- what a checkout asks -----------------------------------------------------------------------------

    def delay(self, ticket: Ticket, outage_wait: float) -> float:
        """Return the seconds for which a checkout should wait before it asks to be admitted; 0: none."""
        if self._state is State.REACHABLE:
            return 0.0
        now = time.monotonic()
        return max(0.0, min(self._turn(ticket, outage_wait, now), self._end(ticket, outage_wait)) - now)

    def check(self, ticket: Ticket, outage_wait: float) -> None:
        """Say without any claim what ``admit()`` would.

        :raises Postponed: as ``admit()``.
        :raises Exception: as ``admit()``.
        """
        if self._state is not State.REACHABLE:
            now = time.monotonic()
            if self._turn(ticket, outage_wait, now) > now:
                self.refuse(ticket, outage_wait)

    def admit(self, ticket: Ticket, outage_wait: float) -> bool:
        """Let a checkout open a session; False: its time is over, and nothing is known of the server.

        :raises Postponed: it has to wait.
        :raises Exception: what the last attempt came to, where it waits no longer.
        """
        if self._state is State.REACHABLE:
            return True
        with self._lock:
            now = time.monotonic()
            if self._turn(ticket, outage_wait, now) <= now:
                overdue = self._is_long(outage_wait, now) and not isinstance(ticket, ProbeTicket)
                self._awaited, self._prober = overdue, ticket
                return True
        self.refuse(ticket, outage_wait)
        return False

    def refuse(self, ticket: Ticket, outage_wait: float) -> None:
        """Have a checkout wait, or tell it what the last attempt came to; return where none came to an end.

        :raises Postponed: as ``admit()``.
        :raises Exception: as ``admit()``.
        """
        if self.is_worth_waiting(ticket, outage_wait):
            raise Postponed
        if error := self.error:
            raise remembered(error)

    def is_worth_waiting(self, ticket: Ticket, outage_wait: float) -> bool:
        """Return whether a checkout has time for another attempt."""
        return time.monotonic() < self._end(ticket, outage_wait)

    def is_long(self, outage_wait: float) -> bool:
        """Return whether the server has been down for longer than that."""
        return self._is_long(outage_wait, time.monotonic())

    def _is_long(self, outage_wait: float, now: float) -> bool:
        return self.error is not None and now >= self._since + outage_wait

    def _is_trying(self) -> bool:
        prober = self._prober
        return prober is not None and prober.active

    def _turn(self, ticket: Ticket, outage_wait: float, now: float) -> float:
        """Return when this ticket may make an attempt, as far as that is known."""
        prober = self._prober
        if prober and prober.active and not ticket.is_part_of(prober):
            return math.inf
        due = self._next_attempt
        if isinstance(ticket, ProbeTicket):
            return due
        if isinstance(ticket, SpareTicket):
            return math.inf  # nobody waits for what it would open
        return due + GRACE if self._is_long(outage_wait, now) else due

    def _end(self, ticket: Ticket, outage_wait: float) -> float:
        """Return until when this ticket waits. Where nothing is known yet, for what comes of the attempt."""
        if isinstance(ticket, SpareTicket):
            return math.inf
        if self.error is None or (self._awaited and self._is_trying()):
            return ticket.deadline
        return min(ticket.deadline, self._since + outage_wait)

    # --- what a pool tells --------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Note that a session was lost: the next one is opened alone."""
        with self._lock:
            if self._state is State.REACHABLE:
                self._state = State.DOUBTFUL

    def failed(self, ticket: Ticket, error: Exception, certain: bool = True) -> None:
        """Note that a session could not be opened.

        :param certain: whether no other can be opened either; otherwise that has to happen several times in
            a row.
        """
        with self._lock:
            self.attempts += 1
            kept, now = remembered(error), time.monotonic()
            pause = self._pause * random.SystemRandom().uniform(JITTER, 1)
            first = self.error is None
            mine = ticket is self._prober
            if first and not certain and self._cut_off + 1 < CONFIRMATIONS:
                self._state, self._cut_off = State.DOUBTFUL, self._cut_off + 1
                if mine:
                    self._prober = None
                return
            if not (first or mine):
                return  # it began before the first one failed: no attempt of now
            if first:
                self._since = now
            self._next_attempt = now + pause
            self._pause = 2 * self._pause if 2 * self._pause < LONGEST_PAUSE else LONGEST_PAUSE
            self.error, self._state, self._prober = kept, State.DOWN, None
        if first:
            logger.warning("%s is out of reach, and new connections wait for it: %s", self.name, kept)

    def over(self) -> None:
        """Note that a session was opened, or that the server has answered."""
        if self._state is State.REACHABLE:
            return
        with self._lock:
            self.attempts += 1
            was_down, lasted = self.error is not None, time.monotonic() - self._since
            self._next_attempt, self._pause, self._cut_off = -math.inf, FIRST_PAUSE, 0
            self.error, self._state, self._prober = None, State.REACHABLE, None
        for waiters in self.waiters.hold():
            waiters.serve()
        # Last: a handler of the user's may query.
        if was_down:
            logger.info("%s is back after %.1f s", self.name, lasted)

    # --- the probe ----------------------------------------------------------------------------------------

    def call_probe(self, make: Callable[[], Callable[[], object]]) -> None:
        """Have a thread make the attempts from now on.

        :param make: makes what makes one, unless there is such a thing already.
        """
        if time.monotonic() >= self._no_probe_until:
            if self._attempt is None:
                self._attempt = make()
            self._thread.call()

    def probe(self) -> float | None:
        """Make an attempt if it is time to; return the seconds until the next, None: there will be none."""
        attempt = self._attempt
        if not self.error or attempt is None:
            self._attempt = None
            return None
        if (left := self._turn(ProbeTicket(), 0.0, time.monotonic()) - time.monotonic()) > 0:
            return min(left, LONGEST_PAUSE)  # a checkout may be at one, and come to an end without a word
        before = self.attempts
        attempt()
        if self.attempts == before and self._turn(ProbeTicket(), 0.0, time.monotonic()) < math.inf:
            # Its pool was closed, say, or has no room. The next checkout that is refused may bring another.
            self._no_probe_until = time.monotonic() + PROBE_RETRY
            self._attempt = None
            return None
        return 0.0

    def _make_thread(self) -> Housekeeper:
        return Housekeeper(f"poollife's probe of {self.name}", self.probe)


_outages: dict[tuple[Any, ...], Outage] = {}


def outage_of(server: tuple[Any, ...], name: str = "") -> Outage:
    """Return what this process knows of that server.

    :param server: what leads there, all of it.
    :param name: of the server, for people.
    """
    return _outages.setdefault(server, Outage(name))


def forget_outages() -> None:
    """Forget, in a child, its parent's: threads may be at an attempt there that no longer exist."""
    _outages.clear()
