"""The lease: the hold of one borrower on one session."""

from __future__ import annotations

import threading
from typing import Any

from poollife import clock
from poollife.drivers.contract import (
    ABANDONED,
    CLAIMED,
    HELD,
    OPENING,
    RETURNED,
    Guarded,
    State,
)
from poollife.drivers.effects import SETS
from poollife.pools.base import NO_BORROWER, Borrower, BorrowerReference
from poollife.pools.liveness import LONGEST_PING
from poollife.pools.state import PoolState
from poollife.process.guard import process
from poollife.stacks import Stack
from poollife.work import Work, caller, current_work, enter_thread, local


class Lease:
    """The hold of one borrower on one session, from checkout to checkin.

    The pool alone keeps the lease until it has ended: each other reference may vanish before.

    ``state`` alone says how far the lease is. The borrower's thread reads it without a lock, at each use of a
    cursor or of the connection. It is written

    - under the pool's lock: HELD to CLAIMED, CLAIMED to HELD, and each change to RETURNING;
    - by the thread that has set RETURNING, without a lock: to RETURNED, or to INTERRUPTED;
    - by the checkout, before any other thread knows the lease: OPENING to HELD, or to RETURNED;
    - in a child, which has no other thread: to ABANDONED.

    The borrower's thread, or the code that gives the session back, writes all other fields.
    """

    __slots__ = (
        "_borrower",
        "_thread_leases",
        "automatic",
        "connection",
        "driver",
        "ends_with_work",
        "handle",
        "label",
        "open_cursors",
        "paused",
        "pool",
        "reported",
        "shared_by_works",
        "since",
        "stack",
        "state",
        "thread",
        "untracked_cursors",
        "work",
    )

    driver: Guarded

    def __init__(self, pool: PoolState, borrower: Borrower) -> None:
        """Begin the lease of a checkout that is under way; ``attach()`` gives it a session."""
        here = local.leases
        if here is None or here.pid != process.pid:
            here = enter_thread()
        self.pool = pool
        self.state: State = OPENING
        self.thread = here.thread
        self.label = here.label
        #: The end of the checkout, in seconds on the monotonic clock.
        self.since = 0.0
        #: SQLAlchemy's object for the session: a record, or a ``_ConnectionFairy``.
        self.handle: Any = None
        #: The object for ``wrapper.connection``: the result of the driver's ``connect()``, with APM proxies.
        self.connection: Any = None
        #: The number of cursors that were opened and not closed; and that of cursors that Django did not
        #: open: nothing is known of the statements that follow one of the latter.
        self.open_cursors = self.untracked_cursors = 0
        #: The end of a command's last statement, on the monotonic clock; None: the command runs a statement,
        #: or the lease is not a command's.
        self.paused: float | None = None
        #: The code that borrowed, if the pool keeps that.
        self.stack: Stack = ()
        #: Whether the log has reported that the lease is held for too long.
        self.reported = False
        #: The request, task or block that the lease belongs to.
        self.work: Work | None = None
        #: Whether the end of ``work`` ends the lease in its thread. A command in the main thread is a work.
        self.ends_with_work = False
        #: Whether the end of a statement or of a transaction may end the lease.
        self.automatic = True
        #: Whether another work has used the lease as well, in a thread that both share.
        self.shared_by_works = False
        self._borrower: BorrowerReference = borrower.reference
        self._thread_leases = here.leases

    def __repr__(self) -> str:
        return f"<Lease of {self.pool.key.alias!r} by {self.holder}, {self.age:.1f} s>"

    @property
    def holder(self) -> str:
        """The work and the thread that have the lease, for people."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread

    @property
    def session(self) -> int | None:
        """The number of the session at the server; None: it has none, or the lease has no session yet."""
        driver: Guarded | None = getattr(self, "driver", None)
        return driver.session if driver else None

    @property
    def age(self) -> float:
        """Seconds since the checkout."""
        return clock.monotonic() - self.since

    @property
    def active(self) -> bool:
        """True until the pool has the slot back. False also in a child, where the session is the parent's."""
        return not (self.state is RETURNED or self.state is ABANDONED)

    def is_held(self) -> bool:
        """Return whether the borrower may use the session. A claim of another thread is cancelled.

        Only for the borrower's thread.
        """
        if self.state is CLAIMED:
            self.pool.cancel_claim(self)
        return self.state is HELD or self.state is OPENING

    # --- the borrower ---------------------------------------------------------------------------------------

    @property
    def orphaned(self) -> bool:
        """True if nothing is left that may use the session: neither the wrapper nor the wrapper's thread.

        A wrapper that threads share may have been connected by a thread that has ended since. Nothing is
        known of threads that ``threading`` did not start: their leases end with their wrappers.
        """
        borrower = self._borrower()
        # Not is_alive(): up to Python 3.12, an asynchronous exception in it makes it note that the other
        # thread has ended.
        running = threading.enumerate()
        return borrower is None or not (
            self.thread in running or borrower.owner in running or borrower.allow_thread_sharing
        )

    @property
    def dropped(self) -> bool:
        """True if the borrower has lost the lease: an asynchronous exception came in its ``close()``."""
        borrower = self._borrower()
        return (
            self.state is not OPENING
            and borrower is not None
            and (borrower.lease is not self or borrower.connection is None)
        )

    def is_of(self, borrower: object) -> bool:
        """Return whether this wrapper is the borrower."""
        return self._borrower() is borrower

    def detach_borrower(self) -> None:
        """Remove the lease from its borrower, if that still exists and has it."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.detach_lease()

    def connection_params(self) -> Any:
        """Return the parameters with which the borrower would open a session now, None if it is gone.

        Calls the ``credentials`` function, if any.

        :raises LookupError: if that fails. The function's own message may have a secret in it, and this error
            is logged.
        """
        borrower = self._borrower()
        try:
            if borrower and self.thread is not threading.current_thread():
                # Its own thread may be using the borrower, which keeps the answer on itself during that call.
                borrower = borrower.opener()
            return borrower.get_connection_params() if borrower else None
        except Exception as error:
            raise LookupError(f"its password could not be asked for: {type(error).__name__}") from None

    @property
    def borrower_to_ask(self) -> Borrower | None:
        """The borrower from which the session may be taken back; None: other code ends the lease, or uses it.

        A cursor that is still open may be read by another thread, or by a generator that goes on in the next
        job.
        """
        borrower = self._borrower()
        if borrower is None or borrower.lease is not self or borrower.is_shared:
            return None
        return None if self.ends_with_work or self.open_cursors else borrower

    @property
    def outermost_block(self) -> Any:
        """The outermost ``transaction.atomic()`` that the borrower is in; None: there is none."""
        borrower = self._borrower()
        blocks = borrower.atomic_blocks if borrower and borrower.lease is self else []
        return blocks[0] if blocks else None

    def reset_atomic_state(self) -> None:
        """Have the borrower leave its atomic blocks: no code is left that could end them."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.reset_atomic_state()

    def release(self, *, if_idle: bool = False) -> None:
        """Have the borrower end this lease, unless it is in an atomic block.

        :param if_idle: the lease is idle (``is_idle``). Keep it as well in another thread than its own, if
            autocommit is off, and if other threads may use the wrapper.
        """
        borrower: Borrower | None = self._borrower()
        if borrower is None or borrower.lease is not self:
            return
        if not if_idle:
            borrower.release()
        elif self.thread is threading.current_thread():
            borrower.release(if_idle=True)

    # --- the session ----------------------------------------------------------------------------------------

    def attach(self, handle: Any, driver: Guarded, now: float) -> None:
        """Give the lease its session.

        :param handle: SQLAlchemy's object for the session.
        :param driver: the driver connection.
        :param now: the end of the checkout, on the monotonic clock.
        :raises InterfaceError: in a child that was forked in this checkout: the session is the parent's.
        """
        if driver.guard.pid != process.pid:
            driver.check_process()
        self.handle = handle
        self.connection = handle.dbapi_connection
        self.driver = driver
        self.since = now
        self._thread_leases.add(self)
        driver.lease = self
        driver.idle = driver.pinned = False
        driver.ran = 0 if self.pool.keeps_sessions and driver.initialised_with is not None else SETS

    def initialised(self, with_what: Any) -> None:
        """Note that the session now has the state that each borrower expects.

        :param with_what: see ``LeasePool.initialised()``.
        """
        # Django opens cursors of the driver's own for SET ROLE, and for a time zone.
        self.untracked_cursors = 0
        self.driver.initialised_with = with_what
        self.driver.mark_clean()
        self.driver.pinned = False
        self.driver.ran = 0 if self.pool.keeps_sessions else SETS

    @property
    def is_idle(self) -> bool:
        """True if another session would serve the borrower as well.

        That is not so with a transaction, an open cursor, or session state that the borrower may need.
        """
        if self.state is not HELD or not self.pool.keeps_sessions:
            return False
        driver = self.driver
        # In a broken session only open cursors count: code may still read from them.
        if self.open_cursors or (self.untracked_cursors and driver.failure is None):
            return False
        return not (driver.dirty or driver.pinned or driver.begun)

    @property
    def lost_when_idle(self) -> bool:
        """True if the session ended while the borrower had no state in it.

        A command may have paused since its last statement. Then the session is pinged, if its socket is
        readable or the pause was longer than ``ping_idle``. In the sessions of other borrowers only a
        statement finds out.
        """
        driver = self.driver
        if self.paused is None:
            return driver.failure is not None and self.is_idle
        idle_too_long = clock.monotonic() - self.paused > self.pool.options.ping_idle
        return (idle_too_long or driver.closed_by_server()) and not driver.answers(LONGEST_PING)

    # --- the work -------------------------------------------------------------------------------------------

    def join(self, work: Work | None, *, asynchronous_thread: bool = False) -> None:
        """Note the work that the lease belongs to. It ends with that if the work ends in this thread.

        :param work: None: the lease ends with the thread.
        :param asynchronous_thread: whether this thread runs the sync code of an asynchronous work.
        """
        self.work = work
        if work is None:
            self.ends_with_work = self.thread is threading.main_thread()
        else:
            self.ends_with_work = not work.ended and (self.thread is work.thread or asynchronous_thread)
        # The lease of a command is looked at after each statement, as the command may pause.
        self.automatic = work is None or not self.ends_with_work or self.pool.releases_early

    def hand_over(self, work: Work | None) -> None:
        """Have the lease belong to other work, or to its thread.

        :param work: None: to its thread.
        """
        before = self.work
        if before is work:
            return
        if work:
            work.add(self)
        else:
            self.join(None)
        if before:
            before.remove(self)
        if (row := self.driver.row) is not None and not self.driver.guard.foreign:  # in a child: the parent's
            row.show(self.since, work.label if work else b"", self.label)

    def must_go_first(self) -> bool:
        """Return whether the session has to be returned before the current work queries: it is other work's.

        A work that does not end in this thread may have left state in the session, which must not reach the
        next work. The same holds in a thread that several asynchronous works share. With an open cursor the
        session can't be returned: then the works share it until the cursor is closed.
        """
        work = current_work.get()
        if work is self.work or not self._is_of_other_work(work):
            return False
        if self.open_cursors:
            self.shared_by_works = True
            return False
        return True

    def _is_of_other_work(self, work: Work | None) -> bool:
        if self.ends_with_work and (self.work is None or not self.work.asynchronous):
            return False
        if self.thread is not threading.current_thread():  # Django is about to refuse the calling thread
            return False
        if self.work is None:
            # The lease is the thread's own. Work that the thread calls may use it; work that other threads
            # have it do may not.
            return work is not None and self.thread is not work.thread and caller.get() != self.thread.ident
        while work is not None and work is not self.work:
            work = work.around
        return work is None

    # --- the end --------------------------------------------------------------------------------------------

    def unlink(self) -> None:
        """Remove the lease from all collections except the pool's."""
        self._thread_leases.discard(self)
        if self._borrower.lease is self:
            self._borrower.lease = None
        self._borrower = NO_BORROWER
        if self.work:
            self.work.remove(self)

    def abandon(self) -> None:
        """Give up the session, in a child: the parent still has it. No I/O, no locks."""
        if self.active:
            self.detach_borrower()
        self.state = ABANDONED

    def report_lost(self) -> None:
        """Have the pool's next checkout look whether anything is left that may use the session.

        Runs at any moment, in any thread, maybe inside the cycle collector while a pool's lock is held: so no
        I/O, no lock, no logging.
        """
        # An asynchronous exception may have come after the return, before the pool removed the lease.
        if self.active or self in self.pool.leases:
            self.pool.lost.put(self)
            self.pool.has_lost = True
