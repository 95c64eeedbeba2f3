"""A pool that lends sessions by leases: SQLAlchemy's pool inside, the life cycle around it."""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from django.db import OperationalError
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool

from poollife import clock
from poollife.conf import PoolOptions
from poollife.drivers.contract import (
    CLAIMED,
    HELD,
    INTERRUPTED,
    OPENING,
    RETURNED,
    RETURNING,
    Driver,
    Guarded,
)
from poollife.errors import PoolTimeout, remembered
from poollife.executors import waits_for_job
from poollife.pools import log
from poollife.pools.base import BasePool, Borrower, PoolClosed, PoolKey
from poollife.pools.collector import OWN_SHARE, collector
from poollife.pools.exhaustion import overload_of, timeout_of
from poollife.pools.fair_queue import FairQueuePool, QueueFull
from poollife.pools.gate import Gate
from poollife.pools.housekeeper import Housekeeping
from poollife.pools.leaks import watch_for
from poollife.pools.lease import Lease
from poollife.pools.live import closed_pools, live_pools
from poollife.pools.liveness import OUTDATED, REFUSED, SHORTEST_LIFETIME, Liveness
from poollife.pools.meters import Meters
from poollife.pools.outage import outage_of
from poollife.pools.poolclass import pool_class, slots_of
from poollife.pools.sqlalchemy import detach_finalizer
from poollife.pools.tickets import SpareTicket, Ticket, current
from poollife.process.atfork import at_fork
from poollife.process.guard import alive
from poollife.work import caller, current_work

logger = logging.getLogger("poollife")
Fact = TypeVar("Fact")

#: Seconds after which a waiting checkout looks for leases whose borrower is gone.
RECLAIM_INTERVAL = 0.25


def server_name(key: PoolKey) -> str:
    """Return the name of the server that a key leads to, for people."""
    # An ENGINE with a key of its own may leave out the server.
    host, *port = map(str, key.server or ("",))
    return f"Server {host or 'localhost'}" + "".join(f":{number}" for number in port if number)


class LeasePool(BasePool):
    """The sessions of one ``PoolKey`` in this process, and the checkouts that wait for them.

    The lock guards the counters and the end of a lease. Nothing is called while it is held, so no signal
    handler and no finalizer ever runs in a thread that has it (see fair_queue.py). A child never touches it:
    there the whole pool is abandoned.
    """

    def __init__(self, key: PoolKey, options: PoolOptions, driver: Driver) -> None:
        self.key = key
        self.options = options
        self.driver = driver
        self.leases: set[Lease] = set()
        #: Leases whose borrower is gone. Finalizers put them there, and SimpleQueue is made for that.
        self.lost: queue.SimpleQueue[Lease] = queue.SimpleQueue()
        #: Whether ``lost`` may have leases in it: this costs a checkout no call.
        self.has_lost = False
        self.releases_early = options.release == "statement"
        #: The reason why no session is kept any more, for people; None: the pool is not closed.
        self.closed_because: str | None = None
        #: Whether borrowed sessions must not be used any more either.
        self.disposed = False
        self.opened = 0
        self.closed = 0
        self.checkouts = 0
        self.resets = 0
        #: Times on the monotonic clock: the pool was made, and a session was last borrowed or returned.
        self.made = self.last_used = clock.monotonic()
        #: The error of the last session that could not be opened; None: a session was opened since.
        self.connect_error: Exception | None = None
        self._lock = threading.RLock()
        self.meters = Meters(options.stats)
        self._next_look = -math.inf
        #: The key of all that is known of the server. The driver is part of it, as drivers don't know each
        #: other's errors. The options are, as init_command may set the session's own limit of idleness.
        self._server = (id(driver), *key.server, key.options)
        self._outage = outage_of(self._server, server_name(key))
        self.liveness = Liveness(key.alias, options, driver, self._outage, self._count_replaced)
        self._resets = options.resets
        self._facts: dict[str, Any] = {}
        self._sessions = self._make_sessions()
        #: Whether returned sessions are kept for the next checkout.
        self.keeps_sessions = isinstance(self._sessions, QueuePool)
        self._slots = slots_of(self._sessions, options.bounds)
        self._slots.unfit = self.liveness.unfit
        self._is_fair = isinstance(self._slots, FairQueuePool)
        #: The class of the driver connection, if no proxy is around it.
        self._driver_class: type | None = None
        self._gate = Gate(self, self._outage)
        self._slots.opening_delay = self._gate.delay
        self._slots.out_of_reach = self._gate.is_closed
        self._outage.waiters.add(self._slots)
        self.housekeeping = Housekeeping(self, self._slots)
        self._slots.unbalanced = self.housekeeping.call
        #: The borrowers' stacks; None: neither the options nor ``tracing()`` ask for them.
        self._watch = watch_for(self)
        live_pools.add(self)

    def __repr__(self) -> str:
        return f"<LeasePool {self.key.alias!r}: {self.out} out, {self.idle} idle, {self.opened} opened>"

    @property
    def out(self) -> int:
        """Number of borrowed sessions."""
        return len(self.leases)

    @property
    def idle(self) -> int:
        """Number of sessions that wait for a checkout."""
        return self._slots.idle

    @property
    def opening(self) -> int:
        """Number of sessions that are being opened or pinged."""
        return self._slots.preparing

    @property
    def waiting(self) -> int:
        """Number of checkouts that wait for a session."""
        return self._slots.waiting

    @property
    def exhausted(self) -> bool:
        """True if no session is idle and no slot is empty."""
        return self._slots.exhausted

    @property
    def suspended(self) -> bool:
        """True while no checkout is served."""
        return self._slots.suspended

    @property
    def in_use(self) -> bool:
        """True if a session is borrowed, or a checkout is under way."""
        return bool(self.leases or self.opening or self.waiting)

    def quiet_for(self, now: float) -> float:
        """Return the seconds since a session was last borrowed or returned.

        :param now: on the monotonic clock.
        """
        return max(0.0, now - self.last_used)

    @property
    def counting(self) -> threading.RLock:
        """Lock to hold while several counters are read as of one moment. No call may be made under it."""
        return self._lock

    def checkout(self, borrower: Borrower, deadline: float | None = None) -> Lease:
        """Borrow a session, waiting for one if need be; return the lease.

        After an asynchronous exception (Ctrl-C, a time limit) either the borrower has the session, or the
        pool.

        :param borrower: the wrapper that is to have the session.
        :param deadline: on the monotonic clock, for a checkout that has waited in another pool; None:
            ``timeout`` seconds from now on.
        :raises PoolTimeout: after ``timeout`` seconds.
        :raises PoolOverloaded: at once, if ``max_waiting`` checkouts wait already.
        :raises PoolClosed: if the pool was closed before it was the borrower's turn.
        :raises Error: the driver's, if a session had to be opened and could not be.
        """
        began, ticket, handle = clock.monotonic(), None, None
        lease = Lease(self, borrower)
        try:
            # Flat: the usual case, an idle session and no queue, has few calls and no ticket.
            if self._is_fair and not self.has_lost and (handle := self._slots.take_idle(lease)) is not None:
                driver = handle.dbapi_connection
                if type(driver) is not self._driver_class:  # proxies of APM tools are around it
                    driver = self.driver.unwrap(driver)
                if self.liveness.is_fit(driver, began):
                    self.leases.add(lease)
                    lease.attach(handle, driver, began)
                    if self.options.min_idle:
                        self.housekeeping.call(borrower)
                else:
                    ticket = self._slots.hand_to_ticket(handle, Ticket(borrower, self._deadline(began)))
                    handle = None
            if handle is None:
                ticket = ticket or Ticket(borrower, deadline or self._deadline(began))
                handle = self._wait_for_session(lease, ticket, began)
            with self._lock:
                self.checkouts += 1
                self.last_used = lease.since
            if self.closed_because:
                closed_pools.add(self)
            if (work := current_work.get()) is None:
                lease.join(None)
                caller.set(lease.thread.ident)
            elif lease.thread is work.thread and not (work.ended or self.releases_early):
                # As work.add() does it.
                lease.work, lease.ends_with_work, lease.automatic = work, True, False
                work.leases.append(lease)
            else:
                work.add(lease)
            if watch := self._watch:
                watch.borrowed(lease)
            if ticket is not None:
                self._slots.hold(ticket, lease)
            if borrower.lease:  # a signal handler, or a handler of the user's logs, has queried meanwhile
                self.checkin(borrower.lease)
            borrower.lease = lease
            return lease
        except BaseException as error:
            lease.state = RETURNED
            if ticket is not None:
                ticket.active = False
            # A session that was being opened must not stay open in the frames of a traceback: it would be
            # one beyond the limit.
            traceback.clear_frames(error.__traceback__)
            self._undo(handle, lease)
            raise
        finally:
            if ticket is not None:
                ticket.active = False
                if log.pending and borrower.lease is None:
                    log.write()

    def _deadline(self, began: float) -> float:
        return began + self.options.timeout

    def _wait_for_session(self, lease: Lease, ticket: Ticket, began: float) -> Any:
        """Give a lease a session that had to be waited for, pinged or opened; return its handle."""
        previous, handle = current.ticket, None
        ticket.outer = previous if previous and previous.active else None
        try:
            # Opening may itself borrow (a password that is kept in a database), so the ticket that was here
            # is put back at the end.
            current.ticket = ticket
            handle = self._get(ticket)
            self.leases.add(lease)
            lease.attach(handle, self.driver.unwrap(handle.dbapi_connection), clock.monotonic())
            # The duration does not decide: the durations of other checkouts include waits for Python's lock.
            if ticket.joined >= began or lease.driver.born >= began:
                self.meters.wait_time.observe(lease.since - began)
            return handle
        except BaseException:
            ticket.active = False
            self._undo(handle, lease)
            raise
        finally:
            current.ticket = previous

    def dispose(self, reason: str) -> None:
        """Drain the pool, because the database behind its alias has changed: borrowers get another session.

        :param reason: as for ``drain()``.
        """
        self.disposed = True
        self.drain(reason)

    def drain(self, reason: str) -> None:
        """Close the idle sessions now, and each borrowed session when it is returned.

        :param reason: for people. The first reason stays, and is logged once.
        """
        closes, self.closed_because = self.closed_because is None, self.closed_because or reason
        closed_pools.add(self)
        self.reclaim(thoroughly=True)
        if closes and self.keeps_sessions:
            logger.info("Pool %r is closed: %s", self.key.alias, reason)
        self.housekeeping.hurry()
        self._wind_up()
        self._slots.wake()

    def _wind_up(self) -> None:
        """Close the idle sessions of a closed pool, and wake its watch."""
        self.close_idle()
        if watch := self._watch:
            watch.hurry()

    def close_idle(self) -> None:
        """Close the idle sessions."""
        self._sessions.dispose()

    def resize(self, options: PoolOptions) -> None:
        """Change the sizes. Borrowed sessions beyond the new limit are closed when they are returned.

        :param options: all options of the pool, with the new sizes.
        :raises NotSupportedError: with a ``poolclass`` that can't do that.
        """
        self._slots.change(options.bounds)
        self.options = options
        self.housekeeping.call()

    def suspend(self, suspended: bool = True) -> None:
        """Have checkouts wait from now on, or serve them again.

        :param suspended: False: serve them again.
        :raises NotSupportedError: as for ``resize()``.
        """
        self._slots.change(suspended=suspended)

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
        if lease.returned:
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

    def leases_of_this_thread(self) -> list[Lease]:
        """Return the calling thread's leases in this pool."""
        me = threading.current_thread()
        return [lease for lease in self.leases.copy() if lease.thread is me]

    def forget(self) -> None:
        """Leave all registries: another pool of this key was made first, and this one has no session."""
        live_pools.remove(self)
        self._outage.waiters.remove(self._slots)

    def abandon(self) -> None:
        """Give up the whole pool, in a child: it is the parent's. No I/O, no locks."""
        # A thread that forked inside a checkout may go on in this pool; threads that do not exist here may
        # have the locks.
        self._lock = threading.RLock()
        self._slots.abandon()
        self._outage.abandon()
        self.closed_because = "its process was forked"  # for wrappers that know the pool
        for lease in self.leases:
            detach_finalizer(lease.handle)
            lease.abandon()

    def fact(self, name: str, ask: Callable[[], Fact]) -> Fact:
        """Return an answer of the server, for which it is asked once for the whole pool.

        :param name: of the fact.
        :param ask: asks the server.
        """
        if name not in self._facts:
            self._facts[name] = ask()
        fact: Fact = self._facts[name]
        return fact

    def initialised(self, lease: Lease, with_what: Any) -> None:
        """Note that a session has the state that each borrower expects.

        :param lease: of the session.
        :param with_what: the settings and the receivers of ``connection_created`` that took part in that. If
            they have changed at a later checkout, the session is initialised anew.
        """
        self.liveness.learn(lease.driver, self._server)
        lease.initialised(with_what)

    def _make_sessions(self) -> Pool:
        options: dict[str, Any] = {}
        if self.options.pooled:
            options = {
                "pool_size": self.options.pool_size,
                "max_overflow": self.options.max_overflow,
                # A finalizer can't wake a waiting thread, so that thread looks from time to time.
                "timeout": min(self.options.timeout, RECLAIM_INTERVAL),
                # The session used last is the least likely to be dead, and the others stay idle.
                "use_lifo": True,
            }
        # checkin() cleans returned sessions, by what is known of them. Liveness looks after the rest.
        sessions = pool_class(self.options)(self._open, reset_on_return=None, **options)
        event.listen(sessions, "close", self._note_close)
        return sessions

    def _get(self, ticket: Ticket) -> Any:
        if (full := self._slots.exhausted) or self.has_lost:
            self._look(thoroughly=full)
            if full and self._slots.exhausted and self.leases_of_this_thread():
                # Most likely, the lease of a wrapper that this thread has dropped.
                self._collect()
        last = False
        while True:
            try:
                return self._slots.take(ticket)
            except QueueFull as error:
                self._count_timeout()
                raise overload_of(self, str(error)) from None
            except exc.TimeoutError:
                if last and self._slots.withdraw(ticket):
                    # This also holds for a checkout that began to wait in a pool that was closed.
                    if failed := self._gate.error(ticket):
                        raise remembered(failed) from None
                    raise self._timeout(ticket) from self.connect_error
                if self.closed_because and self._slots.withdraw(ticket):
                    # The next pool of the key may have a free session.
                    raise PoolClosed(ticket.deadline) from None
            except exc.SQLAlchemyError as error:
                raise OperationalError(f"Pool {self.key.alias!r}: {error}") from error
            left = ticket.deadline - clock.monotonic()
            if self._slots.exhausted or self._gate.full:
                self._collect(last=left <= 0)  # not in an outage: a slot would not help
            if last := left <= 0:
                self.reclaim(needed=True)
            else:
                self._look(thoroughly=True)

    def _look(self, *, thoroughly: bool) -> None:
        """Reclaim.

        :param thoroughly: look at each lease, unless another waiting checkout did so a moment ago, which was
            for all of them.
        """
        if thoroughly and (thoroughly := clock.monotonic() >= self._next_look):
            self._next_look = clock.monotonic() + RECLAIM_INTERVAL
        self.reclaim(thoroughly=thoroughly, needed=True)

    def _collect(self, *, last: bool = False) -> None:
        """Have the cycle collector look for borrowers that are gone, if it is time to.

        DatabaseWrappers are parts of reference cycles. A wrapper that was dropped, or whose thread is not
        known to ``threading``, is noticed only when it is collected.

        :param last: the checkout fails after this.
        """
        if self.leases_of_this_thread():
            collector.run(interval=0.0, share=OWN_SHARE)
        elif last:
            collector.run(interval=0.0)
        else:
            collector.run()
        if self.has_lost:
            self.reclaim(thoroughly=False)

    def _undo(self, handle: Any, lease: Lease) -> None:
        """Free the slot of a checkout that has failed."""
        lease.state = RETURNED
        self._forget(lease)
        self.last_used = clock.monotonic()
        self._slots.free(handle)

    def _open(self) -> Any:
        ticket = current.checkout
        assert ticket, "a session is opened for a borrower"
        self._gate.check(ticket)
        # Before admit(): asking for a password may take time, or need a session at the same server.
        params = self._parameters(ticket.borrower)
        if not self._gate.admit(ticket):
            raise self._timeout(ticket, admitted=False) from self.connect_error
        began = clock.monotonic()
        try:
            connection = ticket.borrower.open_connection(params)
        except Exception as error:
            self._note_failure(error)
            # Any other error, such as a time limit's exception, says nothing of the server.
            if isinstance(error, ticket.borrower.Database.Error):
                if self.driver.refused(error):
                    self.liveness.note_refusal()
                self._gate.failed(ticket, error)
            raise
        self.connect_error = None
        self._gate.opened()
        # Drawn from the system: children of one parent must not all draw the same.
        driver = self.driver.unwrap(connection)
        driver.lifetime = random.SystemRandom().uniform(SHORTEST_LIFETIME, 1)
        driver.idle = isinstance(ticket, SpareTicket)
        self._driver_class = type(driver) if driver is connection else None
        self.meters.create_time.observe(driver.born - began)
        with self._lock:
            self.opened += 1
        return connection

    def _parameters(self, borrower: Borrower) -> Any:
        try:
            return borrower.get_connection_params()
        except Exception as error:
            self._note_failure(error)
            raise

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            self.meters.connect_errors += 1
        self.connect_error = remembered(error)
        if isinstance(error, exc.TimeoutError):
            # Another pool is exhausted (a password that is kept in a database): no timeout of this pool.
            raise OperationalError(f"Pool {self.key.alias!r}: {error}") from error

    def _note_close(self, connection: Any, record: ConnectionPoolEntry) -> None:
        with self._lock:
            self.closed += 1

    def checkin(self, lease: Lease, reason: str | None = None) -> None:
        """End a lease: clean its session and keep it, or close it. Does nothing if that was done already.

        :param lease: of this pool.
        :param reason: close the session, for this reason, for people; None: keep it if it can be cleaned.
        """
        if not alive[0]:
            at_fork.ensure_process()
        if lease.state is not HELD:
            # In a child all leases are abandoned; a thread that exists only in the parent may have the lock.
            if lease.returned:
                self._forget(lease)
                return
            lease.is_held()  # cancels a claim of another thread
        mine = again = False
        try:
            with self._lock:
                state = lease.state
                if state is HELD or state is OPENING or state is INTERRUPTED:
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
        if driver.lost or driver.failed_over:
            self.liveness.note_end(driver)
        reason = reason or self.closed_because or self._clean(lease)
        now = clock.monotonic()
        self.last_used = now
        if reason:
            self._count_replaced(reason)
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
            logger.info("Pool %r closes a session: %s", self.key.alias, reason)

    def _count_replaced(self, reason: str) -> None:
        self.meters.replace(reason)

    def watch(self) -> None:
        """Keep the borrowers' stacks from now on, or no longer, as settings and ``tracing()`` ask."""
        self._watch = watch_for(self, self._watch)

    def claim_report(self, lease: Lease) -> bool:
        """Return whether the caller is the first to report this lease, and so has to do it."""
        with self._lock:
            first, lease.reported = not lease.reported, True
        return first

    def _forget(self, lease: Lease) -> None:
        self.leases.discard(lease)
        lease.unlink()

    def _clean(self, lease: Lease) -> str | None:
        """Make the session of a lease clean; return the reason if that could not be done, else None."""
        driver = lease.driver
        if driver.born <= self.liveness.renewed:
            return OUTDATED
        try:
            if reason := driver.unfit():
                return reason
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
            self.resets += 1
        lease.driver.initialised_with = None
        lease.driver.reset(lease.connection_params)

    def _note_unclean(self, driver: Guarded, error: Exception) -> None:
        """Note what the failed cleaning of a session says of the other sessions."""
        if self.driver.refused(error):
            self.liveness.note_refusal()
        elif not isinstance(error, driver.NotSupportedError):  # that says only what the driver can't do
            driver.note_failure(error)
            if driver.lost or driver.failed_over:
                self.liveness.note_end(driver)

    def _close(self, lease: Lease) -> None:
        lease.state = RETURNED
        # After an interrupted return the session may belong to another lease already.
        self._slots.free(lease.handle if lease.driver.lease is None else None)

    def _timeout(self, ticket: Ticket, admitted: bool = True) -> PoolTimeout:
        self._count_timeout()
        waited = clock.monotonic() - (ticket.deadline - self.options.timeout)
        return timeout_of(self, waited, admitted)

    def _count_timeout(self) -> None:
        with self._lock:
            self.meters.timeouts += 1
