"""The lease: what one borrower holds."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from poollife import clock
from poollife.drivers.connection import CLAIMED, Claimed, Guarded
from poollife.drivers.effects import SETS
from poollife.pools.base import BasePool, Borrower
from poollife.pools.liveness import LONGEST_PING
from poollife.process.guard import getpid
from poollife.stacks import Stack
from poollife.work import Work, caller, current_work


class Borrowings:
    """The leases of one thread. Only its thread-locals refer to this, so it goes when the thread does."""

    # A destructor needs what hangs on the class: at interpreter exit module globals are gone.
    _getpid = staticmethod(getpid)
    #: Nobody's, should something from outside strike before it is known.
    pid: int | None = None

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self.pid = getpid()

    def __del__(self) -> None:
        # In a child this runs for its lost threads, whose leases are the parent's.
        if self.pid == self._getpid():
            # A waiter may be taking one of them back.
            for lease in self.leases.copy():
                lease.lose()


class Here(threading.local):
    """What there is one of for each thread, or greenlet."""

    borrowings: Borrowings | None = None


here = Here()


#: Among the ids of open cursors: one of the driver's connection itself, which is nobody's to take back.
RAW = 0


def nobody() -> None:
    """What a lease that has ended has in place of a reference to its borrower."""


class Lease:
    """One borrower's hold on one physical connection, from checkout to checkin.

    Every reference to it but the pool's may vanish: the pool keeps it until it has ended.
    """

    __slots__ = (
        "_borrower",
        "_borrowings",
        "connection",
        "cursors",
        "driver",
        "ended",
        "ends_with_work",
        "handle",
        "of_django",
        "open_cursors",
        "paused",
        "pid",
        "pool",
        "reported",
        "returned",
        "returning",
        "settled",
        "shared_by_works",
        "since",
        "stack",
        "thread",
        "work",
    )

    def __init__(self, pool: BasePool, handle: Any, borrower: Borrower) -> None:
        self.pool = pool
        #: SQLAlchemy's side of it: its record of the session, or its handle.
        self.handle = handle
        #: What ``wrapper.connection`` gets: what ``connect()`` returned, APM proxies included.
        self.connection: Any = handle.dbapi_connection
        #: The guarded driver connection.
        self.driver: Guarded = pool.driver.unwrap(self.connection)
        #: Those that have executed something and were not closed since.
        self.cursors = self.driver.cursors
        #: The ids of those that may execute something still, and RAW.
        self.open_cursors: set[int] = set()
        #: Whether Django opens one just now.
        self.of_django = False
        #: Since when a command has made no query; None: it is at one, or this is nothing of a command's.
        self.paused: float | None = None
        #: This process, then: what another one opened is not handed out.
        self.pid = self.driver.guard.pid
        self.thread = threading.current_thread()
        self.since = clock.monotonic()
        #: Where it was borrowed, if that is kept.
        self.stack: Stack = ()
        #: Whether somebody was warned that it is held for too long.
        self.reported = False
        #: What it ends with.
        self.work: Work | None = None
        #: Whether its thread gives it back when ``work`` ends.
        self.ends_with_work = False
        #: Whether another work has used it as well, in a thread that both share.
        self.shared_by_works = False
        #: Whether its cursors are dead: from the moment that somebody begins to give the connection back. The
        #: pool's lock guards it. ``CLAIMED``: another thread would take it, unless this one wakes up.
        self.ended: bool | Claimed = False
        #: Whether ``wrapper.connection`` was set.
        self.settled = False
        #: Whether somebody is giving the connection back; the pool's lock guards it.
        self.returning = False
        #: Whether the pool has the slot back.
        self.returned = False
        self._borrower: Callable[[], Borrower | None] = weakref.ref(borrower, self._borrower_died)
        self._borrowings = self._borrowings_here()
        self._borrowings.add(self)
        self.driver.lease = self
        self.driver.idle = self.driver.pinned = False
        self.driver.ran = 0 if pool.keeps_sessions and self.driver.initialised_with is not None else SETS

    def __repr__(self) -> str:
        return f"<Lease of {self.pool.key.alias!r} by {self.holder}, {self.age:.1f} s>"

    @property
    def holder(self) -> str:
        """Who has it, for people."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread

    @property
    def age(self) -> float:
        """Seconds since the checkout."""
        return clock.monotonic() - self.since

    @property
    def orphaned(self) -> bool:
        """Whether nobody is left who may use it.

        A wrapper that threads share may have been connected by one of them that has ended since. Of threads
        that ``threading`` did not start nothing is known: theirs end with their wrappers.
        """
        borrower = self._borrower()
        # Not is_alive(): up to Python 3.12, struck by an exception from outside, it ends by noting that the
        # other thread has.
        running = threading.enumerate()
        return borrower is None or not (
            self.thread in running or borrower.owner in running or borrower.allow_thread_sharing
        )

    def sever(self) -> None:
        """Make its borrower forget it, should that be somewhere still."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.lose_lease()

    @property
    def dropped(self) -> bool:
        """Whether its borrower does not have it any more: something from outside struck as it was closed."""
        borrower = self._borrower()
        return (
            self.settled
            and borrower is not None
            and (borrower.lease is not self or borrower.connection is None)
        )

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

    def is_of(self, borrower: object) -> bool:
        """Whether this wrapper has it."""
        return self._borrower() is borrower

    @property
    def active(self) -> bool:
        """Whether the pool does not have the slot back."""
        return not self.returned

    def initialised(self, with_what: Any) -> None:
        """The physical connection now has the state that each borrower expects."""
        self.driver.initialised_with = with_what
        self.driver.at_rest()
        self.driver.pinned = False
        self.driver.ran = 0 if self.pool.keeps_sessions else SETS

    def give_back(self) -> None:
        """Have the borrower end this lease, unless it is in an atomic block."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.give_back()

    def note_open(self, cursor: object) -> None:
        """A cursor of it was opened. What follows one that Django did not open is not known."""
        self.open_cursors.add(id(cursor) if self.of_django else RAW)
        self.paused = None

    def rest(self) -> None:
        """A statement or a transaction is over: go back, where no clock of this thread will see to it."""
        if self.driver.broken or not self.timed:
            self.give_back_at_rest()
        elif self.work is None and self._at_rest:
            self.paused = clock.monotonic()

    def give_back_at_rest(self) -> None:
        """Go back if its borrower would not notice.

        Not with a transaction, an open cursor, or something in the session that its borrower may need: with
        these it stays until the transaction ends, the last cursor is closed, or its thread ends.
        """
        borrower = self._borrower()
        if (
            borrower
            and borrower.lease is self
            and self.thread is threading.current_thread()
            and self._at_rest
        ):
            borrower.rest()

    @property
    def _at_rest(self) -> bool:
        """Whether another session would do for its borrower as well."""
        if not (self.settled and self.pool.keeps_sessions):
            return False
        driver = self.driver
        # Of a session that broke it matters only whether something is read from it still.
        if self.has_open_cursors if driver.broken else self.open_cursors:
            return False
        return not (driver.dirty or driver.pinned or driver.begun)

    @property
    def lost_at_rest(self) -> bool:
        """Whether its session ended while its borrower had nothing in it.

        A command may have paused since its last statement: the socket then tells of a goodbye, and after
        ``ping_idle`` the server is asked. In other borrowers' sessions only a statement finds out.
        """
        driver = self.driver
        if self.paused is None:
            return driver.broken is not None and self._at_rest
        idle_too_long = clock.monotonic() - self.paused > self.pool.options.ping_idle
        return (idle_too_long or driver.closed_by_server()) and not driver.answers(LONGEST_PING)

    def must_go_first(self) -> bool:
        """Return whether this has to go back before the current work queries: it is nothing for that.

        What one has left in a session, in a thread that it does not end in, is nothing for the next. Nor is
        it in a thread that several asynchronous works share. With a cursor open it can't go: then they share
        it, until that is closed.
        """
        work = current_work.get()
        if work is self.work or not self._is_others(work):
            return False
        if self.open_cursors - {RAW}:
            self.shared_by_works = True
            return False
        return True

    def _is_others(self, work: Work | None) -> bool:
        """Whether this lease is nothing for a work, in the calling thread."""
        if self.timed and (self.work is None or not self.work.asynchronous):
            return False
        if self.thread is not threading.current_thread():  # about to be told that it may not use this
            return False
        if self.work is None:
            # The thread's own, and so for what that calls as well; not for what others have it do.
            return work is not None and self.thread is not work.thread and caller.get() != self.thread.ident
        while work is not None and work is not self.work:
            work = work.around
        return work is None

    @property
    def timed(self) -> bool:
        """Whether it ends with what goes on in its thread: a request, a block; a command, in the main one."""
        if self.work:
            return self.ends_with_work and not self.work.ended
        return self.thread is threading.main_thread()

    def hand_over(self, work: Work | None) -> None:
        """Have it end with other work, or with its thread."""
        before = self.work
        if before is work:
            return
        self.work = None
        if work:
            work.add(self)
        if before:
            before.drop(self)

    @property
    def outermost_block(self) -> Any:
        """The ``transaction.atomic()`` that its borrower is in, if any."""
        borrower = self._borrower()
        blocks = borrower.atomic_blocks if borrower and borrower.lease is self else []
        return blocks[0] if blocks else None

    def forget_blocks(self) -> None:
        """Have the borrower leave its atomic blocks: nobody is left who could end them."""
        borrower = self._borrower()
        if borrower and borrower.lease is self:
            borrower.forget_blocks()

    def checkin(self) -> None:
        """Give the connection back, clean, for the next in the queue."""
        self.pool.checkin(self)

    def has_ended(self) -> bool:
        """For the borrower's side, where ``ended`` is true: cancel it if it is a claim of another thread."""
        if self.ended is CLAIMED:
            self.pool.cancel_claim(self)
        return bool(self.ended)

    @property
    def borrower_to_ask(self) -> Borrower | None:
        """The borrower to take this back from; None: something else ends it, or uses it.

        A cursor that was not closed, and that is still there, may be read by another thread, or by a
        generator that goes on in the next job.
        """
        borrower = self._borrower()
        if borrower is None or borrower.lease is not self or borrower.is_shared:
            return None
        return None if self.timed or self.has_open_cursors else borrower

    @property
    def has_open_cursors(self) -> bool:
        """Whether a cursor is there that was not closed, as far as that can be known."""
        return bool(self.cursors or self.open_cursors - {RAW})

    def end(self) -> None:
        """The cursors die here; the connection lives on."""
        self.ended = True
        # Not on a second try after it was handed to the next.
        if self.driver.lease is self:
            if self.cursors:
                self.driver.end_cursors()
            self.driver.idle = True
            self.driver.lease = None

    def _borrowings_here(self) -> set[Lease]:
        if here.borrowings is None or here.borrowings.pid != self.pid:
            here.borrowings = Borrowings()
        return here.borrowings.leases

    def forget(self) -> None:
        """It is none of its thread's any more."""
        self._borrowings.discard(self)
        # Its callback refers to this: a cycle that only the collector would free.
        self._borrower = nobody

    def abandon(self) -> None:
        """In a child: the parent has it still. No I/O, no locks."""
        if not self.returned:
            self.sever()
        self.ended = self.returned = True

    def lose(self) -> None:
        """Its borrower or its thread is gone: have the pool's next user look whether anybody is left."""
        # Runs at any moment, in any thread, maybe inside the cycle collector while a pool's lock is held: so
        # no I/O, no lock, no logging.
        # Something from outside may have struck after its return, before the pool had forgotten it.
        if not self.returned or self in self.pool.leases:
            self.pool.lost.put(self)

    def _borrower_died(self, _: object) -> None:
        # In a child this runs for its lost threads.
        if self.pid == getpid():
            self.lose()
