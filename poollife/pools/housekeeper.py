"""Background work of a pool: it closes the sessions that a burst has left, and opens some for the next one.

No invariant needs it. Where no other thread ever runs (uWSGI without threads) there are no bursts either.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from poollife import clock
from poollife.pools import log
from poollife.pools.background import Housekeeper
from poollife.pools.base import Borrower, Slots
from poollife.pools.state import PoolState
from poollife.pools.tickets import Postponed, SpareTicket, current

logger = logging.getLogger("poollife")


class Housekeeping:
    """The background work of one pool: it retires the surplus, and keeps ``min_idle`` sessions ready."""

    def __init__(self, pool: PoolState, slots: Slots) -> None:
        self._pool = pool
        self._slots = slots
        self._housekeeper = Housekeeper(f"poollife's housekeeper of {pool.key.alias!r}", self.do)
        #: The wrapper that opens sessions that no checkout has asked for yet.
        self.opener: Borrower | None = None
        self._next_retirement = math.inf
        #: The time until which no session is opened, after a failure.
        self._next_opening = -math.inf

    def call(self, borrower: Borrower | None = None) -> None:
        """Start the thread where there is a surplus, or where too few sessions are idle.

        :param borrower: of a checkout that has a session; None: of the one that is under way in this thread.
        """
        if borrower is None and (ticket := current.checkout):
            borrower = ticket.borrower
        if borrower and self._slots.shortage and clock.monotonic() >= self._next_opening:
            self.opener = self.opener or borrower.opener()
            self._housekeeper.hurry()
        elif not self._slots.surplus:
            return
        self._housekeeper.call()

    def hurry(self) -> None:
        """Wake the thread if it exists: the pool was closed."""
        self._housekeeper.hurry()

    def do(self) -> float | None:
        """Do what is due; return the seconds until more is due, None: nothing will be."""
        busy = self._warm() or self._slots.surplus
        if self._pool.closed_because:
            self._pool.close_idle()
            return None
        if not busy:
            return None
        options = self._pool.options
        now, interval = clock.monotonic(), options.retire_interval
        # Sessions that were returned just now were no surplus for a whole interval.
        self._next_retirement = min(self._next_retirement, now + interval)
        if now >= self._next_retirement:
            self._next_retirement = now + interval
            self._slots.retire(options.retire_quantity, lambda connection: self._is_old(connection, interval))
        return max(0.0, self._next_retirement - now)

    def _warm(self) -> bool:
        """Open sessions up to ``min_idle``; return whether there is more to do."""
        while self.opener and self._slots.shortage and not self._pool.closed_because:
            try:
                if not self.open(SpareTicket(self.opener)):
                    return True  # other threads are opening sessions
            except Exception as error:
                # Tried again after a pause, not with each checkout; and with the settings of that time.
                self._next_opening = clock.monotonic() + self._pool.options.retire_interval
                self.opener = None
                if not isinstance(error, Postponed):  # the log has the outage already
                    logger.info(
                        "Pool %r can't have min_idle ready: %s",
                        self._pool.key.alias,
                        error,
                        extra=log.about(self._pool.key.alias),
                    )
        return False

    def open(self, ticket: SpareTicket, *, spare: bool = False) -> bool:
        """Open a session ahead of its use; return whether there was need of one.

        :param ticket: of this opening.
        :param spare: open a session if there is room for it, however many are idle.
        :raises LookupError: if the opener's session would belong to another pool in this thread.
        """
        if not ticket.borrower.matches_key(self._pool.key):
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
