"""A server that is out of reach: a short outage is waited out, a long one is refused at once.

All pools of a process that lead to one server share what is known of it: where each database or tenant has a
pool of its own, they would be many to try.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from enum import Enum
from typing import Any, Protocol

from poollife import clock
from poollife.errors import remembered
from poollife.pools import log
from poollife.pools.probe import Probe
from poollife.pools.tickets import Postponed, SpareTicket, Ticket
from poollife.process.guard import WeakRegistry

#: Seconds between two attempts while the server is down, the first and the longest: the pause doubles.
FIRST_PAUSE, LONGEST_PAUSE = 0.3, 1.2
#: The least part of a pause after which the next attempt is made: processes shall not all come together.
JITTER = 0.8
#: Sessions that have to be cut off in a row, as they are opened, to make an outage: a server may be told to
#: end one of them.
CONFIRMATIONS = 3
#: Seconds by which the probe may be late before a checkout makes its attempt: there may be no thread for it.
#: For as long the checkouts that wait may wait for the last attempt, which ends their wait.
GRACE = 1.2
NEVER = -math.inf


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


# To look one up in the class is a call.
REACHABLE, DOUBTFUL, DOWN = State


class Outage:
    """What this process knows of one server, and so when a session may be opened there.

    - REACHABLE: sessions are opened freely. A session that was lost leads to DOUBTFUL, and so does one that
      was cut off while it was opened. One that could not be opened for want of a server leads to DOWN.
    - DOUBTFUL: sessions are opened one at a time, one for ``min_idle`` too. The first that is opened leads to
      REACHABLE. An attempt for
      want of a server leads to DOWN; so do CONFIRMATIONS of them that are cut off, one after the other.
    - DOWN: one attempt at a time, after pauses that grow. The first that succeeds leads to REACHABLE. For the
      first ``outage_wait`` seconds checkouts wait, and the first in a queue makes the attempt. The end of
      that time cuts the pause short: one last attempt is made, and all that wait get what comes of it. After
      that checkouts are refused with the last error, and the probe makes the attempts: a thread that is there
      until the server is back. An attempt that is overdue by GRACE is made by the next checkout, and then
      the others wait for what comes of it: there is no probe, and so the last error may be an old one.

    A checkout asks with its ticket and its pool's ``outage_wait``. It may belong to the attempt that is under
    way, in the same thread: a handler of a signal may query, or a tool that has wrapped the driver's
    ``connect()``. Then it is let through.

    The lock guards all changes of ``_state``, ``_prober``, ``_awaited``, ``_cut_off``, ``_next_attempt``,
    ``_pause``, ``_since``, ``_tried``, ``error`` and ``attempts``; each change counts itself in
    ``_changes``. They are read without it: a thread that reads them in the middle of a change waits in vain
    for a moment, or asks again. Nothing is called while it is held, so no handler of a signal, no finalizer
    and no exception from outside comes between.
    """

    def __init__(self, name: str = "") -> None:
        """
        :param name: of the server, for people.
        """
        self.name = name
        self._lock = threading.RLock()
        self._changes = 0
        self._state = REACHABLE
        #: The ticket of the attempt that is under way, unless that has come to an end without a word.
        self._prober: Ticket | None = None
        #: Whether all wait for what comes of that, however long the outage.
        self._awaited = False
        #: Attempts in a row that were cut off.
        self._cut_off = 0
        #: On the monotonic clock: when the next attempt is due, when the server went away, and when the last
        #: attempt since then came to its end.
        self._next_attempt = self._since = self._tried = -math.inf
        self._pause = FIRST_PAUSE
        #: What the last attempt came to, while the server is DOWN.
        self.error: Exception | None = None
        #: Attempts that have come to an end.
        self.attempts = 0
        #: The queues of the pools that lead there.
        self.waiters: WeakRegistry[Waiters] = WeakRegistry()
        #: Makes the attempts when checkouts do so no longer.
        self.probe = Probe(self, f"poollife's probe of {name}")

    def abandon(self) -> None:
        """Forget, in a child, threads that no longer exist: they may have the lock, or be at an attempt."""
        self._lock = threading.RLock()
        self._prober = None
        self.waiters.forget()
        self.probe.abandon()

    # --- what a checkout asks -----------------------------------------------------------------------------

    def delay(self, ticket: Ticket, outage_wait: float) -> float:
        """Return the seconds for which a checkout should wait before it asks to be admitted; 0: none."""
        if self._state is REACHABLE:
            return 0.0
        now = clock.monotonic()
        return max(0.0, min(self._turn(ticket, outage_wait, now), self._end(ticket, outage_wait)) - now)

    def check(self, ticket: Ticket, outage_wait: float) -> None:
        """Say without any claim what ``admit()`` would.

        :raises Postponed: as ``admit()``.
        :raises Exception: as ``admit()``.
        """
        if self._state is not REACHABLE:
            now = clock.monotonic()
            if self._turn(ticket, outage_wait, now) > now:
                self.refuse(ticket, outage_wait)

    def admit(self, ticket: Ticket, outage_wait: float) -> bool:
        """Let a checkout open a session; False: its time is over, and nothing is known of the server.

        :raises Postponed: it has to wait.
        :raises Exception: what the last attempt came to, where it waits no longer.
        """
        while self._state is not REACHABLE:
            seen, now = self._changes, clock.monotonic()
            if self._turn(ticket, outage_wait, now) > now:
                self.refuse(ticket, outage_wait)
                return False
            overdue = self._is_long(outage_wait, now) and not isinstance(ticket, ProbeTicket)
            before = self._prober  # freed after the lock
            with self._lock:
                if mine := self._changes == seen:
                    self._awaited = overdue
                    self._prober = ticket
                    self._changes += 1
            del before
            if mine:
                break
        return True

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
        return clock.monotonic() < self._end(ticket, outage_wait)

    def is_long(self, outage_wait: float) -> bool:
        """Return whether checkouts have waited for the server for as long as they should."""
        return self._is_long(outage_wait, clock.monotonic())

    def _is_long(self, outage_wait: float, now: float) -> bool:
        return self.error is not None and now >= self._limit(outage_wait)

    def _limit(self, outage_wait: float) -> float:
        """Return until when checkouts wait: until an attempt has ended after that time, or soon after."""
        limit = self._since + outage_wait
        return limit if self._tried >= limit else limit + GRACE

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
        if isinstance(ticket, SpareTicket) and self.error is not None:
            return math.inf  # no checkout waits for what it would open
        return due + GRACE if self._is_long(outage_wait, now) else min(due, self._since + outage_wait)

    def _end(self, ticket: Ticket, outage_wait: float) -> float:
        """Return until when this ticket waits. Where nothing is known yet, for what comes of the attempt."""
        if isinstance(ticket, SpareTicket):
            return math.inf
        if self.error is None or (self._awaited and self._is_trying()):
            return ticket.deadline
        return min(ticket.deadline, self._limit(outage_wait))

    # --- what a pool tells --------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Note that a session was lost: the next one is opened alone."""
        with self._lock:
            if self._state is REACHABLE:
                self._state = DOUBTFUL
                self._changes += 1

    def failed(self, ticket: Ticket, error: Exception, certain: bool = True) -> None:
        """Note that a session could not be opened.

        :param certain: whether no other can be opened either; otherwise that has to happen several times in
            a row.
        """
        kept, now, part = remembered(error), clock.monotonic(), random.SystemRandom().uniform(JITTER, 1)
        before = self.error, self._prober  # freed after the lock
        with self._lock:
            self.attempts += 1
            mine, first = ticket is self._prober, self.error is None
            declared = first and (certain or self._cut_off + 1 >= CONFIRMATIONS)
            if first and not declared:
                self._state = DOUBTFUL
                self._cut_off += 1
            elif first or mine:  # otherwise it began before the first one failed: no attempt of now
                if first:
                    self._since = now
                self._tried = now
                self._next_attempt = now + part * self._pause
                self._pause = 2 * self._pause if 2 * self._pause < LONGEST_PAUSE else LONGEST_PAUSE
                self.error = kept
                self._state = DOWN
            if mine:
                self._prober = None
            self._changes += 1
        del before
        if declared:
            log.note(
                logging.WARNING, "%s is out of reach, and new connections wait for it: %s", self.name, kept
            )

    def over(self) -> None:
        """Note that a session was opened, or that the server has answered."""
        if self._state is REACHABLE:
            return
        now, before = clock.monotonic(), (self.error, self._prober)  # freed after the lock
        with self._lock:
            self.attempts += 1
            was_down, lasted = self.error is not None, now - self._since
            self._next_attempt = NEVER
            self._pause = FIRST_PAUSE
            self._cut_off = 0
            self.error = None
            self._prober = None
            self._state = REACHABLE
            self._changes += 1
        del before
        for waiters in self.waiters.hold():
            waiters.serve()
        if was_down:
            log.note(logging.INFO, "%s is back after %.1f s", self.name, lasted)

    def probe_delay(self) -> float | None:
        """Return the seconds until the probe should make an attempt, None: no outage."""
        now = clock.monotonic()
        return max(0.0, self._turn(ProbeTicket(), 0.0, now) - now) if self.error else None


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
