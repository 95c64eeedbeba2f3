"""The lease: what one borrower holds."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
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
from poollife.pools.base import BasePool, Borrower
from poollife.pools.liveness import LONGEST_PING
from poollife.process.guard import alive, process
from poollife.stacks import Stack
from poollife.work import Work, caller, current_work, enter_thread, local


def no_borrower() -> None:
    """In place of a reference to the borrower, once the lease is over."""


class Lease:
    """One borrower's hold on one physical connection, from checkout to checkin.

    The pool is the only owner that keeps it: every other reference may vanish until it has ended.

    ``state`` is the one thing that says how far it is. The borrower's thread reads it without a lock, at each
    use of a cursor or of the connection. It is written

    - under the pool's lock: HELD to CLAIMED, CLAIMED to HELD, and all that leads to RETURNING;
    - by the thread that has set RETURNING, without a lock: to RETURNED, or to INTERRUPTED;
    - by the checkout, before any other thread knows the lease: OPENING to HELD, or to RETURNED;
    - in a child, which has no other thread: to ABANDONED.

    The borrower's thread, or the code that gives the session back, writes all other fields.
    """

    __slots__ = (
        "_alive",
        "_borrower",
        "_thread_leases",
        "automatic",
        "connection",
        "driver",
        "ends_with_work",
        "handle",
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

    def __init__(self, pool: BasePool, borrower: Borrower) -> None:
        """Begin the lease of a checkout that is under way; ``attach()`` gives it a session."""
        here = local.leases
        if here is None or here.pid != process.pid:
            here = enter_thread()
        self.pool = pool
        self.state: State = OPENING
        self.thread = here.thread
        #: When the checkout ended; seconds on the monotonic clock.
        self.since = 0.0
        #: SQLAlchemy's side of the session: its record, or its handle.
        self.handle: Any = None
        #: What ``wrapper.connection`` gets: what the driver's ``connect()`` returned, APM proxies included.
        self.connection: Any = None
        #: Cursors that were opened and not closed; and cursors that Django did not open: of what follows one
        #: of these nothing is known.
        self.open_cursors = self.untracked_cursors = 0
        #: When a command has ended its last statement; None: it is in one, or this is not a command's.
        self.paused: float | None = None
        #: Where in the code it was borrowed, if that is kept.
        self.stack: Stack = ()
        #: Whether the log has told that it is held for too long.
        self.reported = False
        #: The request, task or block that it belongs to.
        self.work: Work | None = None
        #: Whether its thread gives it back when ``work`` ends; a command in the main thread counts as one.
        self.ends_with_work = False
        #: Whether the end of a statement or of a transaction may give it back.
        self.automatic = True
        #: Whether another work has used it as well, in a thread that both share.
        self.shared_by_works = False
        # Finalizers run when module globals may be gone.
        self._alive = alive
        self._borrower: Callable[[], Borrower | None] = weakref.ref(borrower, self._borrower_died)
        self._thread_leases = here.leases

    def __repr__(self) -> str:
        return f"<Lease of {self.pool.key.alias!r} by {self.holder}, {self.age:.1f} s>"

    @property
    def holder(self) -> str:
        """The work and the thread that have it, for people."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread

    @property
    def age(self) -> float:
        """Seconds since the checkout."""
        return clock.monotonic() - self.since

    @property
    def active(self) -> bool:
        """Whether the pool does not have the slot back."""
        return not (self.state is RETURNED or self.state is ABANDONED)

    @property
    def returned(self) -> bool:
        """Whether the pool has the slot back, or the parent process has the session."""
        return self.state is RETURNED or self.state is ABANDONED

    def is_held(self) -> bool:
        """Return whether the borrower may use it, for the borrower's side. A claim of another thread ends."""
        if self.state is CLAIMED:
            self.pool.cancel_claim(self)
        return self.state is HELD or self.state is OPENING

    # --- the borrower ---------------------------------------------------------------------------------------

    @property
    def orphaned(self) -> bool:
        """Whether nothing is left that may use it: neither its wrapper nor the wrapper's thread.

        A wrapper that threads share may have been connected by one of them that has ended since. Of threads
        that ``threading`` did not start nothing is known: theirs end with their wrappers.
        """
        borrower = self._borrower()
        # Not is_alive(): up to Python 3.12, interrupted by an asynchronous exception, it ends by noting that
        # the other thread has.
        running = threading.enumerate()
        return borrower is None or not (
            self.thread in running or borrower.owner in running or borrower.allow_thread_sharing
        )

    @property
    def dropped(self) -> bool:
        """Whether its borrower does not have it any more: an asynchronous exception came as it was closed."""
        borrower = self._borrower()
        return (
            self.state is not OPENING
            and borrower is not None
            and (borrower.lease is not self or borrower.connection is None)
        )

    def is_of(self, borrower: object) -> bool:
        """Return whether this wrapper has it."""
        return self._borrower() is borrower

    def detach_borrower(self) -> None:
        """Have the borrower, should it still exist, go on without it."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.detach_lease()

    def connection_params(self) -> Any:
        """Return what its borrower would open a connection with now, None if the borrower is gone.

        The function that knows the password is called.

        :raises LookupError: if that fails. Its own message may have a secret in it, and this one is logged.
        """
        borrower = self._borrower()
        try:
            if borrower and self.thread is not threading.current_thread():
                # Its own thread may be using it, and it keeps an answer on itself for the time of that call.
                borrower = borrower.opener()
            return borrower.get_connection_params() if borrower else None
        except Exception as error:
            raise LookupError(f"its password could not be asked for: {type(error).__name__}") from None

    @property
    def borrower_to_ask(self) -> Borrower | None:
        """The borrower to take this back from; None: something else ends it, or uses it.

        A cursor that was not closed, and that is still there, may be read by another thread, or by a
        generator that goes on in the next job.
        """
        borrower = self._borrower()
        if borrower is None or borrower.lease is not self or borrower.is_shared:
            return None
        return None if self.ends_with_work or self.open_cursors else borrower

    @property
    def outermost_block(self) -> Any:
        """The ``transaction.atomic()`` that its borrower is in, if any."""
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

        :param if_idle: only if another session would do for the borrower as well: see ``is_idle``.
        """
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            if not if_idle:
                borrower.release()
            elif self.is_idle and self.thread is threading.current_thread():
                borrower.release(if_idle=True)

    # --- the session ----------------------------------------------------------------------------------------

    def attach(self, handle: Any, driver: Guarded, now: float) -> None:
        """Give it a session.

        :param handle: SQLAlchemy's record of it, or its handle.
        :param now: on the monotonic clock.
        :raises InterfaceError: in a child that was forked inside of this checkout: it is the parent's.
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
        """Note that the physical connection now has the state that each borrower expects."""
        self.driver.initialised_with = with_what
        self.driver.mark_clean()
        self.driver.pinned = False
        self.driver.ran = 0 if self.pool.keeps_sessions else SETS

    @property
    def is_idle(self) -> bool:
        """Whether another session would do for its borrower as well.

        Not with a transaction, an open cursor, or something in the session that the borrower may need.
        """
        if self.state is not HELD or not self.pool.keeps_sessions:
            return False
        driver = self.driver
        # Of a session that broke it matters only whether something is read from it still.
        if self.open_cursors or (self.untracked_cursors and driver.broken is None):
            return False
        return not (driver.dirty or driver.pinned or driver.begun)

    @property
    def lost_when_idle(self) -> bool:
        """Whether its session ended while its borrower had nothing in it.

        A command may have paused since its last statement: the socket then tells of a goodbye, and after
        ``ping_idle`` the server is asked. In other borrowers' sessions only a statement finds out.
        """
        driver = self.driver
        if self.paused is None:
            return driver.broken is not None and self.is_idle
        idle_too_long = clock.monotonic() - self.paused > self.pool.options.ping_idle
        return (idle_too_long or driver.closed_by_server()) and not driver.answers(LONGEST_PING)

    # --- the work -------------------------------------------------------------------------------------------

    def join(self, work: Work | None, *, asynchronous_thread: bool = False) -> None:
        """Belong to a work, and end with it if that ends in this thread; without one, with the thread.

        :param asynchronous_thread: whether this thread runs the sync code of an asynchronous work.
        """
        self.work = work
        if work is None:
            self.ends_with_work = self.thread is threading.main_thread()
        else:
            self.ends_with_work = not work.ended and (self.thread is work.thread or asynchronous_thread)
        # What is kept by a command is looked at after each statement, as it may pause.
        self.automatic = work is None or not self.ends_with_work or self.pool.releases_early

    def hand_over(self, work: Work | None) -> None:
        """End with other work, or with the thread."""
        before = self.work
        if before is work:
            return
        if work:
            work.add(self)
        else:
            self.join(None)
        if before:
            before.remove(self)

    def must_go_first(self) -> bool:
        """Return whether this has to go back before the current work queries: it is nothing for that.

        What a work has left in a session, in a thread that it does not end in, is nothing for the next. Nor
        is it in a thread that several asynchronous works share. With a cursor open it can't go: then they
        share it, until that is closed.
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
        if self.thread is not threading.current_thread():  # about to be told that it may not use this
            return False
        if self.work is None:
            # The thread's own, and so for what that calls as well; not for what others have it do.
            return work is not None and self.thread is not work.thread and caller.get() != self.thread.ident
        while work is not None and work is not self.work:
            work = work.around
        return work is None

    # --- the end --------------------------------------------------------------------------------------------

    def unlink(self) -> None:
        """Leave the collections that it is in, but for the pool's."""
        self._thread_leases.discard(self)
        # Its callback refers to this: a cycle that only the collector would free.
        self._borrower = no_borrower
        if self.work:
            self.work.remove(self)

    def abandon(self) -> None:
        """Forget the session, in a child: the parent has it still. No I/O, no locks."""
        if not self.returned:
            self.detach_borrower()
        self.state = ABANDONED

    def report_lost(self) -> None:
        """Have the pool's next checkout look whether anything is left that may use it.

        Runs at any moment, in any thread, maybe inside the cycle collector while a pool's lock is held: so no
        I/O, no lock, no logging.
        """
        # An asynchronous exception may have come after its return, before the pool had forgotten it.
        if not self.returned or self in self.pool.leases:
            self.pool.lost.put(self)
            self.pool.has_lost = True

    def _borrower_died(self, _: object) -> None:
        # In a child this runs for its lost threads.
        if self._alive[0]:
            self.report_lost()
