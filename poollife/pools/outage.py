"""A server that does not answer: checkouts wait during a short outage, and fail at once in a long one.

All pools of a process that lead to one server share the outage. Where each database or tenant has a pool of
its own, attempts of each pool would be too many.
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
#: The least part of a pause after which the next attempt is made, so that processes do not try all at once.
JITTER = 0.8
#: The number of sessions in a row that have to be cut off while they are opened, to make an outage: an
#: administrator may end a single one.
CONFIRMATIONS = 3
#: Seconds by which the probe may be late before a checkout makes its attempt: there may be no thread for it.
#: Waiting checkouts wait for so many seconds more for the last attempt, which ends their wait.
GRACE = 1.2
#: Seconds after a loss for which each new session has to answer a ping. Behind one address may be several
#: servers: one session that answers says nothing of the next.
DOUBT = 60.0
NEVER = -math.inf


class ProbeTicket(SpareTicket):
    """The ticket of an attempt by the probe."""

    __slots__ = ()


class Waiters(Protocol):
    """The queue of a pool."""

    def serve(self) -> None:
        """Give free slots to the tickets that wait."""


class State(Enum):
    """The state of a server, as far as it is known; see ``Outage``."""

    REACHABLE = 1
    DOUBTFUL = 2
    DOWN = 3


# A look-up in the class would be a call.
REACHABLE, DOUBTFUL, DOWN = State


class Outage:
    """The state of one server, as this process knows it. It decides when a session may be opened there.

    - REACHABLE: sessions are opened freely. A session that was lost leads to DOUBTFUL, and so does a session
      that was cut off while it was opened. A session that could not be opened because the server did not
      answer leads to DOWN.
    - DOUBTFUL: sessions are opened one at a time, for ``min_idle`` too. The first that is opened and answers
      a ping leads to REACHABLE, and each one that is opened within DOUBT seconds is pinged as well. An
      attempt that the server does not answer leads to DOWN. So do CONFIRMATIONS attempts in a row that are
      cut off, or whose ping is not answered.
    - DOWN: one attempt at a time, after pauses that grow. The first that succeeds leads to REACHABLE. For the
      first ``outage_wait`` seconds checkouts wait, and the first in a queue makes the attempt. The end of
      that time cuts the pause short: one last attempt is made, and all waiting checkouts get its outcome. It
      is made a little earlier, by as much as another pause may be shorter: each process draws its own.
      After that, checkouts are refused with the last error, and the probe makes the attempts: a thread that
      exists until the server is back. If an attempt is overdue by GRACE seconds, there is no probe, and the
      last error may be an old one. So the next checkout makes the attempt, and the others wait for its
      outcome.

    A checkout asks with its ticket and its pool's ``outage_wait``. It may belong to the attempt that is under
    way, in the same thread: a signal handler may query, or a tool that has wrapped the driver's
    ``connect()``. Then it is let through.

    The lock guards all changes of ``_state``, ``_prober``, ``_awaited``, ``_cut_off``, ``_next_attempt``,
    ``_pause``, ``_since``, ``_haste``, ``_tried``, ``error`` and ``attempts``; each change counts itself in
    ``_changes``. They are read without the lock: a thread that reads in the middle of a change waits in vain
    for a moment, or asks again. Nothing is called while the lock is held, so no signal handler, no finalizer
    and no asynchronous exception comes between. ``_doubted`` and ``accepts_any_role`` are set by single
    assignments.
    """

    def __init__(self, name: str = "") -> None:
        """
        :param name: of the server, for people.
        """
        self.name = name
        self._lock = threading.RLock()
        self._changes = 0
        self._state = REACHABLE
        #: The ticket of the attempt that is under way. If it is not active, it has ended without a report.
        self._prober: Ticket | None = None
        #: Whether all checkouts wait for the outcome of that attempt, however long the outage.
        self._awaited = False
        #: The number of attempts in a row that were cut off.
        self._cut_off = 0
        #: Times on the monotonic clock: the next attempt, the beginning of the outage, and the end of the
        #: last attempt in it.
        self._next_attempt = self._since = self._tried = -math.inf
        #: The time of the last loss: of a session, or while one was opened.
        self._doubted = NEVER
        #: Whether new sessions are lent at a server that is not the primary that is wanted: checkouts have
        #: waited for the primary, and it was not found since. One pool has waited for all.
        self.accepts_any_role = False
        self._pause = FIRST_PAUSE
        #: The part of a pause by which the last attempt is early that checkouts wait for.
        self._haste = 0.0
        #: The error of the last attempt, while the server is DOWN.
        self.error: Exception | None = None
        #: The number of attempts that have ended.
        self.attempts = 0
        #: The queues of the pools that lead to the server.
        self.waiters: WeakRegistry[Waiters] = WeakRegistry()
        #: The thread that makes the attempts when checkouts make none any more.
        self.probe = Probe(self, f"poollife's probe of {name}")

    def abandon(self) -> None:
        """Give up, in a child, the parent's threads: one may have the lock, or be at an attempt."""
        self._lock = threading.RLock()
        self._prober = None
        self.waiters.forget()
        self.probe.abandon()

    # --- questions of a checkout --------------------------------------------------------------------------

    def delay(self, ticket: Ticket, outage_wait: float) -> float:
        """Return the seconds for which a checkout should wait before it asks to be admitted; 0: none."""
        if self._state is REACHABLE:
            return 0.0
        now = clock.monotonic()
        return max(0.0, min(self._turn(ticket, outage_wait, now), self._end(ticket, outage_wait)) - now)

    def check(self, ticket: Ticket, outage_wait: float) -> None:
        """Raise as ``admit()`` would, without making the attempt this ticket's own.

        :raises Postponed: as ``admit()``.
        :raises Exception: as ``admit()``.
        """
        if self._state is not REACHABLE:
            now = clock.monotonic()
            if self._turn(ticket, outage_wait, now) > now:
                self.refuse(ticket, outage_wait)

    def admit(self, ticket: Ticket, outage_wait: float) -> bool:
        """Let a checkout open a session; return False if its time is over and nothing is known of the server.

        :param outage_wait: of its pool, in seconds.
        :raises Postponed: the checkout has to wait.
        :raises Exception: the error of the last attempt, if the checkout waits no longer.
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
        """Have a checkout wait, or raise the error of the last attempt. Return if no attempt has failed yet.

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
        """Return the time until which checkouts wait: ``outage_wait``, and GRACE for the last attempt."""
        limit = self._last_attempt(outage_wait)
        return limit if self._tried >= limit else limit + GRACE

    def _last_attempt(self, outage_wait: float) -> float:
        """Return when the last attempt is due that checkouts wait for."""
        longest = outage_wait if outage_wait < LONGEST_PAUSE else LONGEST_PAUSE
        return self._since + outage_wait - self._haste * longest

    def _is_trying(self) -> bool:
        prober = self._prober
        return prober is not None and prober.active

    def _turn(self, ticket: Ticket, outage_wait: float, now: float) -> float:
        """Return the time from which this ticket may make an attempt, as far as that is known."""
        prober = self._prober
        if prober and prober.active and not ticket.is_part_of(prober):
            return math.inf
        due = self._next_attempt
        if isinstance(ticket, ProbeTicket):
            return due
        if isinstance(ticket, SpareTicket) and self.error is not None:
            return math.inf  # no checkout waits for the session that it would open
        return due + GRACE if self._is_long(outage_wait, now) else min(due, self._last_attempt(outage_wait))

    def _end(self, ticket: Ticket, outage_wait: float) -> float:
        """Return the time until which this ticket waits: its deadline, while no attempt has failed yet."""
        if isinstance(ticket, SpareTicket):
            return math.inf
        if self.error is None or (self._awaited and self._is_trying()):
            return ticket.deadline
        return min(ticket.deadline, self._limit(outage_wait))

    # --- reports of a pool --------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Note that a session was lost: the next one is opened alone."""
        self._doubted = clock.monotonic()
        with self._lock:
            if self._state is REACHABLE:
                self._state = DOUBTFUL
                self._changes += 1

    def failed(self, ticket: Ticket, error: Exception, certain: bool = True) -> None:
        """Note that a session could not be opened.

        :param ticket: of the attempt.
        :param error: the driver's.
        :param certain: True: no other session can be opened either. False: only CONFIRMATIONS such failures
            in a row make an outage.
        """
        kept, now, dice = remembered(error), clock.monotonic(), random.SystemRandom()
        self._doubted = now
        part, haste = dice.uniform(JITTER, 1), dice.uniform(0, 1 - JITTER)
        before = self.error, self._prober  # freed after the lock
        with self._lock:
            self.attempts += 1
            mine, first = ticket is self._prober, self.error is None
            declared = first and (certain or self._cut_off + 1 >= CONFIRMATIONS)
            if first and not declared:
                self._state = DOUBTFUL
                self._cut_off += 1
            elif first or mine:  # otherwise it began before the first failure, and says nothing new
                if first:
                    self._since = now
                    self._haste = haste
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
        for waiters in self.waiters.strong_references():
            waiters.serve()
        if was_down:
            end = "takes no writes, and is used for reads" if self.accepts_any_role else "is back"
            log.note(logging.INFO, "%s %s after %.1f s", self.name, end, lasted)

    def role_found(self) -> None:
        """Note that a session has found the wanted role: checkouts wait in the next failover as well."""
        if self.accepts_any_role:
            self.accepts_any_role = False
            log.note(logging.INFO, "%s takes writes again", self.name)

    @property
    def in_doubt(self) -> bool:
        """True for DOUBT seconds after a loss, and until a session was opened."""
        return self._state is not REACHABLE or clock.monotonic() < self._doubted + DOUBT

    def probe_delay(self) -> float | None:
        """Return the seconds until the probe should make an attempt; None: no outage."""
        now = clock.monotonic()
        return max(0.0, self._turn(ProbeTicket(), 0.0, now) - now) if self.error else None


_outages: dict[tuple[Any, ...], Outage] = {}


def outage_of(server: tuple[Any, ...], name: str = "") -> Outage:
    """Return the outage object of a server, made if there is none yet.

    :param server: all values that decide on the server.
    :param name: of the server, for people.
    """
    return _outages.setdefault(server, Outage(name))


def forget_outages() -> None:
    """Give up, in a child, the parent's outages: threads that do not exist here may be at an attempt."""
    _outages.clear()
