"""The way back of a session: a lease ends, by its borrower's hand or because the borrower is gone."""

from __future__ import annotations

import logging
import queue
from contextlib import suppress
from typing import Any

from sqlalchemy.pool import Pool

from poollife import clock
from poollife.board.layout import RESETS
from poollife.drivers.contract import (
    CLAIMED,
    HELD,
    INTERRUPTED,
    OPENING,
    RETURNED,
    RETURNING,
    Guarded,
)
from poollife.executors import waits_for_job
from poollife.pools import log
from poollife.pools.leaks import Watch
from poollife.pools.lease import Lease
from poollife.pools.liveness import OUTDATED, REFUSED, Liveness
from poollife.pools.outage import Outage
from poollife.pools.state import PoolState
from poollife.process.atfork import at_fork
from poollife.process.guard import alive

logger = logging.getLogger("poollife")


class ReturningPool(PoolState):
    """A pool that takes sessions back. ``LeasePool`` lends them."""

    liveness: Liveness
    _outage: Outage
    _sessions: Pool
    #: Whether a returned session is reset: if it is clean, and if something may have been left in it.
    _resets: tuple[bool, bool]
    #: The borrowers' stacks; None: neither the options nor ``tracing()`` ask for them.
    _watch: Watch | None

    def checkin(self, lease: Lease, reason: str | None = None) -> None:
        """End a lease: clean its session and keep it, or close it. Does nothing if that was done already.

        :param lease: of this pool.
        :param reason: close the session, for this reason, for people; None: keep it if it can be cleaned.
        """
        if not alive[0]:
            at_fork.ensure_process()
        # In a child all leases are abandoned; a lost thread may hold the lock.
        if lease.state is not HELD and not lease.active:
            self._forget(lease)
            return
        mine = again = False
        try:
            with self._lock:
                state = lease.state
                # A claim is void with this: the claiming thread looks once more, under the lock.
                if state is HELD or state is CLAIMED or state is OPENING or state is INTERRUPTED:
                    mine, again = True, state is INTERRUPTED
                    lease.state = RETURNING
            if mine:
                self._end(lease, "its return was interrupted" if again else reason)
        finally:
            if mine and lease.state is RETURNING:
                lease.state = INTERRUPTED
        if log.pending:
            log.write()
        # After each return: it may have been under way while drain() looked.
        if self.closed_because:
            self._wind_up()

    def _end(self, lease: Lease, reason: str | None) -> None:
        driver = lease.driver
        # Not on a second try, after the session was lent to the next borrower.
        if driver.lease is lease:
            if lease.open_cursors:
                driver.end_cursors()
            driver.idle = True
            driver.lease = None
            if (row := driver.row) is not None:
                row.held[0] = 0
        if driver.lost or driver.failed_over or driver.has_new_types:
            self.liveness.note_end(driver)
        reason = reason or self.closed_because or self._clean(lease)
        now = clock.monotonic()
        self.last_used = now
        if reason:
            self.meters.replace(reason)
            session = lease.session
            self._close(lease)
        else:
            driver.idle_since = now
            self._slots.put(lease.handle)
        lease.state = RETURNED
        self._forget(lease)
        if uses := self.meters.use_time:
            uses.observe(now - lease.since)
        if watch := self._watch:
            watch.returned(lease)
        if reason:
            # Last: a handler of the user's logs may query, and the slot is free for that now.
            extra = log.about(self.key.alias, session)
            logger.info("Pool %r closes a session: %s", self.key.alias, reason, extra=extra)

    def _close(self, lease: Lease) -> None:
        lease.state = RETURNED
        # After an interrupted return the session may belong to another lease already.
        self._slots.free(lease.handle if lease.driver.lease is None else None)

    def _forget(self, lease: Lease) -> None:
        self.leases.discard(lease)
        lease.unlink()

    def _clean(self, lease: Lease) -> str | None:
        """Make the session of a lease clean; return the reason if that could not be done, else None."""
        driver = lease.driver
        if driver.born <= self.liveness.renewed:
            return OUTDATED
        try:
            if reason := driver.reason_to_close():
                return reason
            if driver.failed_over:
                self.liveness.note_end(driver)
                if driver.born <= self.liveness.renewed:
                    return OUTDATED
            elif self._outage.accepts_any_role:
                self.liveness.note_return(driver)
            if self._resets[driver.dirty]:
                if driver.born <= self.liveness.refused:
                    return REFUSED
                self._reset(lease)
            else:
                driver.clean()
        except Exception as error:
            self._note_unclean(driver, error)
            return f"it could not be cleaned: {error}"
        return None

    def _reset(self, lease: Lease) -> None:
        with self._lock:
            self.counters[RESETS] += 1
        lease.driver.initialised_with = None
        lease.driver.reset_session(lease.connection_params)

    def _note_unclean(self, driver: Guarded, error: Exception) -> None:
        """Note what the failed cleaning of a session says of the other sessions."""
        if self.driver.refused(error):
            self.liveness.note_refusal()
        elif not isinstance(error, driver.NotSupportedError):  # that says only what the driver can't do
            driver.note_failure(error)
            if driver.lost or driver.failed_over:
                self.liveness.note_end(driver)

    def initialised(self, lease: Lease, with_what: Any) -> None:
        """Note that a session has the state that each borrower expects.

        :param lease: of the session.
        :param with_what: the settings and the receivers of ``connection_created`` that took part in that. If
            they have changed at a later checkout, the session is initialised anew.
        """
        self.liveness.learn(lease.driver)
        lease.initialised(with_what)

    def _wind_up(self) -> None:
        """Close the idle sessions of a closed pool, and wake its watch."""
        self.close_idle()
        if watch := self._watch:
            watch.hurry()

    def close_idle(self) -> None:
        """Close the idle sessions."""
        self._sessions.dispose()

    def reclaim(self, *, thoroughly: bool = True, needed: bool = False) -> None:
        """End the leases whose borrower is gone.

        :param thoroughly: look at each lease, and free the slots whose holder is gone; False: look only at
            the leases that were reported.
        :param needed: take back sessions from executors' threads, too, that wait for a job.
        """
        self.has_lost = False
        while not self.lost.empty():
            with suppress(queue.Empty):
                self._reclaim(self.lost.get_nowait(), needed=False)
        if thoroughly:
            for lease in self.leases.copy():
                self._reclaim(lease, needed=needed)
            self._slots.free()

    def _reclaim(self, lease: Lease, *, needed: bool) -> None:
        """Keep a lease, check it in, or close its session."""
        if not lease.active:
            self._forget(lease)
        elif lease.orphaned:
            lease.detach_borrower()
            self.checkin(lease)
        elif lease.dropped:
            self.checkin(lease, "its borrower lost it")
        elif lease.state is INTERRUPTED:
            self.checkin(lease)
        elif needed:
            self._take_back(lease)

    def _take_back(self, lease: Lease) -> None:
        """Take back the session of a thread that waits for a job, and close it.

        Such a thread is between two jobs of an executor: no code returns to the state that it has left in its
        session. It may wake up at any moment. So its lease is claimed first, and the thread is looked at only
        then. A thread that wakes up after the look finds the claim at its first use of a cursor or of the
        connection, and cancels it. (The session is not used again: a job may have got the driver connection a
        moment ago.)
        """
        borrower = lease.borrower_to_ask
        if borrower is None:
            return
        claimed = mine = False
        try:
            # Neither block has a call in it: no signal handler, and no other thread, comes in between.
            with self._lock:
                if lease.state is HELD:
                    claimed = True
                    lease.state = CLAIMED
            # The cursors once more: from the claim on, a thread that opens a cursor cancels the claim.
            waits = claimed and waits_for_job(lease.thread) and not lease.open_cursors
            with self._lock:
                if waits and lease.state is CLAIMED and borrower.lease is lease:
                    mine = True
                    lease.state = RETURNING
                    # As detach_lease() does.
                    borrower.lease = borrower.connection = None
                    if borrower.in_atomic_block:
                        borrower.closed_in_transaction = borrower.needs_rollback = True
            if mine:
                self._end(lease, "its thread waits for a job, and others need it")
        finally:
            if mine:
                if lease.state is RETURNING:
                    lease.state = INTERRUPTED
            elif claimed:
                self.cancel_claim(lease)

    def cancel_claim(self, lease: Lease) -> None:
        """Leave a claimed lease to its thread, which has woken up. Does nothing if it was taken back."""
        with self._lock:
            if lease.state is CLAIMED:
                lease.state = HELD
