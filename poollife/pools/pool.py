"""A pool that lends sessions by leases: SQLAlchemy's pool inside, the life cycle around it."""

from __future__ import annotations

import logging
import math
import threading
import traceback
from collections.abc import Callable
from typing import Any

from django.db import OperationalError
from sqlalchemy import event, exc
from sqlalchemy.pool import Pool, QueuePool

from poollife import clock
from poollife.board.layout import LENT, ORDERS, PINGED, TICKETED
from poollife.board.page import page
from poollife.conf import PoolOptions
from poollife.drivers.contract import RETURNED, Driver
from poollife.errors import remembered
from poollife.pools import log
from poollife.pools.base import Borrower, PoolClosed, PoolKey
from poollife.pools.collector import OWN_SHARE, collector
from poollife.pools.exhaustion import noted, overload_of
from poollife.pools.gate import Gate
from poollife.pools.housekeeper import Housekeeping
from poollife.pools.leaks import watch_for
from poollife.pools.lease import Lease
from poollife.pools.live import closed_pools, live_pools
from poollife.pools.liveness import Liveness, RoleLiveness
from poollife.pools.meters import Meters
from poollife.pools.opening import OpeningPool
from poollife.pools.outage import outage_of
from poollife.pools.poolclass import pool_class, slots_of
from poollife.pools.sqlalchemy import detach_finalizer
from poollife.pools.tickets import Ticket, current
from poollife.pools.waiting import QueueFull
from poollife.work import caller, current_work

logger = logging.getLogger("poollife")

#: Seconds after which a waiting checkout looks for leases whose borrower is gone.
RECLAIM_INTERVAL = 0.25


def server_name(key: PoolKey) -> str:
    """Return the name of the server that a key leads to, for people."""
    # An ENGINE with a key of its own may leave out the server.
    host, *port = map(str, key.server or ("",))
    return f"Server {host or 'localhost'}" + "".join(f":{number}" for number in port if number)


class LeasePool(OpeningPool):
    """The sessions of one ``PoolKey`` in this process, and the checkouts that wait for them."""

    def __init__(self, key: PoolKey, options: PoolOptions, driver: Driver) -> None:
        super().__init__(key, options, driver)
        self._next_look = -math.inf
        #: The key of all that is known of the server. The driver is part of it, as drivers don't know each
        #: other's errors. The options are, as init_command may set the session's own limit of idleness.
        server = (id(driver), *key.server, key.options)
        # A read-only server is out of reach for a pool that waits for the primary, and not for others.
        self._outage = outage_of((*server, options.role, options.waits_for_primary), server_name(key))
        self.liveness = (RoleLiveness if options.role and driver.asks_for_role else Liveness)(
            # A child has other meters.
            *(key.alias, options, driver, server, self._outage, lambda reason: self.meters.replace(reason))
        )
        self._resets = options.resets
        self._sessions = self._make_sessions()
        #: Whether returned sessions are kept for the next checkout.
        self.keeps_sessions = isinstance(self._sessions, QueuePool)
        self._slots = slots_of(self._sessions, options.bounds, self._lock, self.counters)
        self._slots.reason_to_replace = self.liveness.reason_to_replace
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
        began, ticket = clock.monotonic(), None
        if page.orders[0] != self.counters[ORDERS]:
            self.obey()
        lease = Lease(self, borrower)
        try:
            # Flat: the usual case, an idle session and no queue, has few calls and no ticket.
            if not self.has_lost and (handle := self._slots.take_idle(lease)) is not None:
                driver = handle.dbapi_connection
                if type(driver) is not self._driver_class:  # proxies of APM tools are around it
                    driver = self.driver.unwrap(driver)
                if self.liveness.is_fit(driver, began):
                    # Not before: a session that is pinged now is lent later, and a counter never falls.
                    with self._lock:
                        self.counters[LENT] += 1
                    self.leases.add(lease)
                    lease.attach(handle, driver, began)
                    if self.options.min_idle:
                        self.housekeeping.call(borrower)
                else:
                    # Assigned before the slot is the ticket's: after an exception, the code below ends both.
                    ticket = Ticket(borrower, deadline or self._deadline(began))
                    self._slots.hand_to_ticket(handle, ticket)
            if lease.handle is None:
                ticket = ticket or Ticket(borrower, deadline or self._deadline(began))
                self._wait_for_session(lease, ticket, began)
            self.last_used = lease.since
            if self.closed_because:
                closed_pools.add(self)
            if (work := current_work.get()) is None:
                lease.join(None)
                caller.set(lease.thread.ident)
            elif lease.thread is work.thread and not (work.ended or self.releases_early):
                # work.add(), written out: that saves two calls.
                lease.work, lease.ends_with_work, lease.automatic = work, True, False
                work.leases.append(lease)
            else:
                work.add(lease)
            if (row := lease.driver.row) is not None:
                row.show(lease.since, work.label if work else b"", lease.label)
            if watch := self._watch:
                watch.borrowed(lease)
            if ticket is not None:
                self._slots.hold(ticket, lease)
                with self._lock:
                    self.counters[TICKETED if ticket.observed else PINGED] += 1
            if borrower.lease:  # a signal handler, or a handler of the user's logs, has queried meanwhile
                self.checkin(borrower.lease)
            borrower.reference.lease = borrower.lease = lease
            return lease
        except BaseException as error:
            lease.state = RETURNED
            if ticket is not None:
                ticket.active = False
            # A session that was being opened must not stay open in the frames of a traceback: it would be
            # one beyond the limit.
            traceback.clear_frames(error.__traceback__)
            self._undo(lease)
            raise
        finally:
            if ticket is not None:
                ticket.active = False
                if log.pending and borrower.lease is None:
                    log.write()

    def _deadline(self, began: float) -> float:
        return began + self.options.timeout

    def _wait_for_session(self, lease: Lease, ticket: Ticket, began: float) -> None:
        """Give a lease a session that had to be waited for, pinged or opened."""
        previous = current.ticket
        ticket.outer = previous if previous and previous.active else None
        try:
            # Opening may itself borrow (a password that is kept in a database), so the ticket that was here
            # is put back at the end.
            current.ticket = ticket
            lease.handle = handle = self._get(ticket)
            self.leases.add(lease)
            lease.attach(handle, self.driver.unwrap(handle.dbapi_connection), clock.monotonic())
            # The duration does not decide: the durations of other checkouts include waits for Python's lock.
            if ticket.joined >= began or lease.driver.born >= began:
                ticket.observed = True
                self.meters.wait_time.observe(lease.since - began)
        finally:
            current.ticket = previous

    def looks_reachable(self, opener: Callable[[], Borrower]) -> bool:
        """Return whether the server has answered the last time, as far as this process knows.

        :param opener: returns a wrapper by which the probe opens a session, if the server has not.
        """
        return self._gate.looks_reachable(opener)

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
            logger.info("Pool %r is closed: %s", self.key.alias, reason, extra=log.about(self.key.alias))
        self.housekeeping.hurry()
        self._wind_up()
        self._slots.wake()

    def forget(self) -> None:
        """Leave all registries: another pool of this key was made first, and this one has no session."""
        live_pools.remove(self)
        page.leave_pool(self)
        self._outage.waiters.remove(self._slots)

    def abandon(self) -> None:
        """Give up the whole pool, in a child: it is the parent's. No I/O, no locks."""
        # A thread that forked inside a checkout may go on in this pool; threads that do not exist here may
        # have the locks.
        self._lock = threading.RLock()
        self.cells = self.cells.copy()  # those that were here go on in the parent
        self.counters = self.cells.counters
        self.meters = Meters(self.options.stats, self.cells)
        self._slots.abandon(self.counters)
        self._outage.abandon()
        self.closed_because = "its process was forked"  # for wrappers that know the pool
        for lease in self.leases:
            detach_finalizer(lease.handle)
            lease.abandon()

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
        if self._slots.suspended:
            self.obey()
        if (full := self._slots.exhausted) or self.has_lost:
            self._look(thoroughly=full)
            if full and self._slots.exhausted and self.leases_of_this_thread():
                # Most likely, the lease of a wrapper that this thread has dropped.
                self._collect()
        last = False
        while True:
            try:
                handle = self._slots.take(ticket)
                # With listeners to SQLAlchemy's events there is another object around the record.
                if handle is not ticket.entry or not self._is_overtaken(ticket):
                    return handle
                continue
            except QueueFull as error:
                self._count_timeout()
                raise noted(overload_of(self, str(error))) from None
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
            self.obey()
            if last := left <= 0:
                self.reclaim(needed=True)
            else:
                self._look(thoroughly=True)

    def _is_overtaken(self, ticket: Ticket) -> bool:
        """Give a session back if the pool was suspended or renewed meanwhile; return whether that was so.

        :param ticket: a checkout that has opened or pinged the session.
        """
        self.obey()
        born = self.driver.unwrap(ticket.entry.dbapi_connection).born
        if not (outdated := born <= self.liveness.renewed) and not self._slots.suspended:
            return False
        self._slots.step_back(ticket)
        if outdated:
            self.close_idle()
        return True

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

    def _undo(self, lease: Lease) -> None:
        """Free the slot of a checkout that has failed."""
        lease.state = RETURNED
        self._forget(lease)
        self.last_used = clock.monotonic()
        self._slots.free(lease.handle)

    def watch(self) -> None:
        """Keep the borrowers' stacks from now on, or no longer, as settings and ``tracing()`` ask."""
        self._watch = watch_for(self, self._watch)
