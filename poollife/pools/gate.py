"""The gate of a pool: it decides when the pool may open a session at its server."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable
from functools import partial

from poollife import clock
from poollife.errors import UselessSession, WrongRole, remembered
from poollife.pools import log
from poollife.pools.base import Borrower
from poollife.pools.outage import FIRST_PAUSE, JITTER, LONGEST_PAUSE, Outage, ProbeTicket
from poollife.pools.state import PoolState
from poollife.pools.tickets import Postponed, SpareTicket, Ticket
from poollife.process.guard import WeakRegistry

logger = logging.getLogger("poollife")


class Gate:
    """The rules by which one pool opens sessions. The pool asks before it opens one, and reports the outcome.

    The outage is shared with all pools that lead to the server. Each pool has its own gate, which knows
    whether the server refuses more sessions than there are. Then checkouts wait while a session of the pool
    may be returned, or is being opened, and no other is opened before a pause is over. (The server counts a
    session from its first packet on, the pool only when it is open.) The three fields for that are set by
    single assignments, and need no lock: a thread that reads an old value opens a session too early, or waits
    for one pause more.
    """

    def __init__(self, pool: PoolState, outage: Outage) -> None:
        self._pool = pool
        self._outage = outage
        #: The time until which no other session is asked for, on the monotonic clock.
        self._full_until = -math.inf
        self._full_pause = FIRST_PAUSE
        #: The error with which the server refused the last session.
        self._full_error: Exception | None = None
        #: The checkouts that were admitted, until they have failed or come to an end.
        self._admitted: WeakRegistry[Ticket] = WeakRegistry()

    @property
    def _outage_wait(self) -> float:
        """Seconds for which checkouts wait in an outage.

        Without an end but their deadline, if each new session is of no use, and the pool has others: a
        balancer leads the new ones to a lost node, and those at other nodes go on, and are returned.
        """
        wait, pool = self._pool.options.outage_wait, self._pool
        if wait and isinstance(self._outage.error, UselessSession) and pool.opened > pool.closed:
            return math.inf
        return wait

    def delay(self, ticket: Ticket) -> float:
        """Return the seconds until a session may be opened for a checkout that waits."""
        delay = self._outage.delay(ticket, self._outage_wait)
        if self._is_full(now := clock.monotonic(), ticket):
            return max(delay, min(self._full_until, ticket.deadline) - now)
        return delay

    @property
    def full(self) -> bool:
        """True if the server has refused a session for want of room, and none was opened since."""
        return self._full_error is not None

    def is_closed(self) -> bool:
        """Return whether no session can be opened now: the server does not answer, or has no room."""
        return self._outage.error is not None or self._is_full(clock.monotonic(), None)

    def looks_reachable(self, opener: Callable[[], Borrower]) -> bool:
        """Return False from the first failed attempt on, until the server is back.

        The probe makes attempts meanwhile: a caller that goes elsewhere makes none.

        :param opener: returns a wrapper for them.
        """
        if self._outage.error is None:
            return True
        self._outage.probe.call(lambda: partial(self._probe, opener()))
        return False

    def check(self, ticket: Ticket) -> None:
        """Raise as ``admit()`` would, before the checkout asks for a password, which may take time.

        :raises Postponed: the checkout has to wait.
        :raises Exception: the error of the last attempt, if the checkout waits no longer.
        """
        if (error := self._full_error) and self._is_full(now := clock.monotonic(), ticket):
            raise Postponed if now < ticket.deadline else remembered(error)
        try:
            self._outage.check(ticket, self._outage_wait)
        except Exception as error:
            self._call_probe(ticket, error)
            raise

    def admit(self, ticket: Ticket) -> bool:
        """Let a checkout open a session; return False if its time is over and nothing is known of the server.

        :raises Postponed: as ``check()``.
        :raises Exception: as ``check()``.
        """
        try:
            admitted = self._outage.admit(ticket, self._outage_wait)
        except Exception as error:
            self._call_probe(ticket, error)
            raise
        if admitted:
            self._admitted.add(ticket)
        return admitted

    @property
    def doubts(self) -> bool:
        """True if a session that was opened now may be of no use: its server has to answer a statement first.

        A Galera node out of its cluster accepts logins, and refuses all that comes after them.
        """
        return self._outage.in_doubt

    def opened(self) -> None:
        """Note that a session was opened."""
        if self._full_error:
            self._full_until, self._full_pause, self._full_error = -math.inf, FIRST_PAUSE, None
        self._outage.over()

    def failed(self, ticket: Ticket, error: Exception) -> None:
        """Note that a session could not be opened. After a return the checkout gets the driver's error.

        :param ticket: of the checkout.
        :param error: the driver's.
        :raises Postponed: if another attempt makes sense, and the checkout has time for that.
        """
        driver = self._pool.driver
        if (unreachable := driver.unreachable(error)) is not False:
            self._note_unreachable(ticket, error, certain=bool(unreachable))
            self._call_probe(ticket, error)
            return
        self._admitted.remove(ticket)
        self._outage.over()
        if driver.is_full(error):
            self._wait_for_return(ticket, error)

    def unfit(self, ticket: Ticket, error: Exception) -> None:
        """Note that a session was opened that is of no use: no ping is answered, or the role is wrong.

        A return means that it is to be lent all the same: checkouts have waited for a server with the role
        for as long as they should, and this one can be read.

        :param error: the pool's own, a ``WrongRole`` in the latter case.
        :raises Postponed: if another attempt makes sense, and the checkout has time for that.
        :raises Exception: this error otherwise.
        """
        wrong_role = isinstance(error, WrongRole)
        self._note_unreachable(ticket, error, certain=wrong_role)
        if not (wrong_role and self._outage.is_long(self._outage_wait)):
            self._call_probe(ticket, error)
            raise error
        self._outage.accepts_any_role = True

    def _note_unreachable(self, ticket: Ticket, error: Exception, *, certain: bool) -> None:
        self._admitted.remove(ticket)
        self._outage.failed(ticket, error, certain=certain)
        wait = self._outage_wait
        if wait and not isinstance(ticket, SpareTicket) and self._outage.is_worth_waiting(ticket, wait):
            raise Postponed

    def error(self, ticket: Ticket) -> Exception | None:
        """Return the error of the server because of which a checkout got no session; None: there is none."""
        if self._pool.exhausted or self._pool.suspended:
            return None
        # A refusal before the checkout began may not be the reason why it waited.
        was_full = self._full_until >= ticket.deadline - self._pool.options.timeout
        return self._outage.error or (self._full_error if was_full else None)

    def _is_full(self, now: float, ticket: Ticket | None) -> bool:
        pool = self._pool
        return now < self._full_until and (pool.opened > pool.closed or self._others_open(ticket))

    def _others_open(self, ticket: Ticket | None) -> bool:
        """Return whether sessions are being opened for other threads than that of this checkout."""
        return any(
            other.active and not (ticket and ticket.is_part_of(other))
            for other in self._admitted.strong_references()
        )

    def _wait_for_return(self, ticket: Ticket, error: Exception) -> None:
        """Have a checkout wait for a session that is open, or about to be, unless its thread has all of them.

        :raises Postponed: to have it wait.
        """
        now, me, pool = clock.monotonic(), threading.current_thread(), self._pool
        mine = sum(lease.thread is me for lease in pool.leases.copy())
        others = pool.opened - pool.closed > mine or self._others_open(ticket)
        if isinstance(ticket, SpareTicket) or ticket.deadline <= now or not others:
            return
        pause = self._full_pause * random.SystemRandom().uniform(JITTER, 1)
        self._full_pause = min(2 * self._full_pause, LONGEST_PAUSE)
        self._full_error = remembered(error)
        self._full_until = now + pause
        raise Postponed

    def _call_probe(self, ticket: Ticket, error: Exception) -> None:
        """Have the probe make the attempts, if this checkout waits no longer."""
        if isinstance(error, Postponed) or isinstance(ticket, SpareTicket):
            return
        if self._outage.is_long(self._outage_wait):
            self._outage.probe.call(lambda: partial(self._probe, ticket.borrower.opener()))

    def _probe(self, opener: Borrower) -> None:
        """Open a session ahead of its use, in the thread of the probe, to find out if the server answers."""
        pool = self._pool
        try:
            if not pool.closed_because:
                pool.housekeeping.open(ProbeTicket(opener), spare=True)
        except Postponed:
            pass  # a checkout was quicker
        except Exception as error:
            # Not above debug: it comes once for each attempt.
            logger.debug(
                "Pool %r is still without its server: %s",
                pool.key.alias,
                error,
                extra=log.about(pool.key.alias),
            )
        finally:
            log.write()
            if pool.closed_because:
                pool.close_idle()
        pool.housekeeping.call()
