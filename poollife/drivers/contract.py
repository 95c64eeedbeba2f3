"""What a database's driver has to give to poollife, and what it may leave out.

Two classes, like the interfaces of Go's ``database/sql/driver``: ``Driver`` knows the kind of database, and
``Guarded`` is mixed into the class of its connections. What is not abstract here may be left out: a driver
without a socket or a reset, or of a server that is never full, says nothing of these.
"""

from __future__ import annotations

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from poollife.drivers.effects import LEAVES, PINS, READS, REFUSED, SETS
from poollife.drivers.marks import marks_of
from poollife.process.atfork import at_fork
from poollife.process.guard import Guard, alive, process

FOREIGN = (
    "This connection belongs to process {owner}, which opened it before this one, {me}, was forked. "
    "It was left alone; open a new one (django.db.connection does by itself)."
)

IDLE = (
    "This connection went back to its pool, or was closed, when its request, task or block ended or close() "
    "was called. Use django.db.connection, which borrows another."
)


class State(Enum):
    """The state of a lease. ``docs/design.md`` has the transitions, and who makes them."""

    #: The checkout is under way: the session is the borrower's, which does not have it yet.
    OPENING = 1
    #: The borrower uses it.
    HELD = 2
    #: The borrower's thread waits for a job, and another thread is about to take the session back.
    CLAIMED = 3
    #: A thread gives the session back. The cursors are dead.
    RETURNING = 4
    #: An asynchronous exception has ended that thread's work. The next one goes on, and closes the session.
    INTERRUPTED = 5
    #: The pool has the slot back.
    RETURNED = 6
    #: In a child: the parent has the session.
    ABANDONED = 7


# To look one up in the class costs more.
OPENING, HELD, CLAIMED, RETURNING, INTERRUPTED, RETURNED, ABANDONED = State


class Driver(ABC):
    """One kind of driver. An instance is the ``driver`` of a backend's mixin."""

    @abstractmethod
    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Guard what the driver's ``connect()`` returned, and return that: proxies of APM tools included.

        :param pid: the process that called ``connect()``.
        :param params: what it called it with.
        """

    @abstractmethod
    def unwrap(self, connection: Any) -> Any:
        """Return the ``Guarded`` connection in what ``adopt()`` returned."""

    def peers(self, params: dict[str, Any]) -> set[Any]:
        """Return where a connection made with these parameters leads; see ``sockets.is_connected_to()``."""
        return set()

    def idle_limit(self, connection: Any) -> float | None:
        """Return the seconds after which the server ends an idle session; None: never."""
        return None

    def unreachable(self, error: Exception) -> bool | None:
        """Return whether no session could be opened for want of a server; None: that may well be."""
        return False

    def refused(self, error: Exception) -> bool:
        """Return whether the server did not take a session's user or password."""
        return False

    def is_full(self, error: Exception) -> bool:
        """Return whether the server refused a session because there are as many as it allows."""
        return False


class Guarded(metaclass=ABCMeta):
    """Mixed into a driver's connection class: refuses to work without a lease, and in another process.

    Only the thread that has the lease changes it, and the pool while no lease has it.
    """

    guard: Guard
    #: The lease that has it; None in the pool, and while the connection is opened.
    lease: Any
    #: Whether it is in the pool, where nothing may use it.
    idle: bool
    #: The failure after which the state of the session is not known, if there was one; for people.
    broken: str | None = None
    #: What its borrower did to it, if no other may have it after that; for people.
    unshareable: str | None = None
    #: What the session was initialised with; None: it was not yet.
    initialised_with: Any = None
    #: Whether something ran since then that may have left something behind.
    dirty: bool
    #: What the statements of the present lease have set, for later ones to ask for: bits of SETS. All of them
    #: in a session that was never lent.
    ran: int = SETS
    #: Whether its borrower was told something of it that is true of no other session.
    pinned: bool = False
    #: Seconds on the monotonic clock.
    born: float
    idle_since: float
    #: The part of ``recycle`` after which it is replaced. Drawn at birth: what was opened together in a burst
    #: is not replaced in one.
    lifetime: float = 1.0
    #: What its last errors say of the sessions that were opened before: this one was lost, so they may be ...
    lost: bool = False
    #: ... and this server is not the one to write to any more, so they lead to the wrong one.
    failed_over: bool = False
    #: Names of attributes that poollife or the driver itself assigns to while the connection lives. All other
    #: attributes are marks: a tool's, a receiver's of ``connection_created`` or a borrower's.
    CHANGING: frozenset[str] = frozenset(
        {"guard", "lease", "idle", "initialised_with", "dirty", "born", "idle_since", "lifetime"}
        | {
            "ran",
            "pinned",
            "lost",
            "failed_over",
            "marks_at_rest",
            "mark_values_at_rest",
            "attributes_at_rest",
        }
    )
    #: The marks that a clean session has, and how many attributes there are then.
    marks_at_rest: dict[str, Any]
    mark_values_at_rest: tuple[Any, ...]
    attributes_at_rest: int
    #: The driver's own.
    InterfaceError: Any
    NotSupportedError: Any

    def check(self) -> None:
        """Refuse what the hot path has not let through: ``not alive[0] or lease.state is not HELD``.

        :raises InterfaceError: in a process that did not open this connection, and where no lease has it.
        """
        self.check_process()
        if (lease := self.lease) is not None and not lease.is_held():
            raise self.InterfaceError(IDLE)
        if self.idle:
            raise self.InterfaceError(IDLE)

    def check_process(self) -> None:
        """:raises InterfaceError: in a process that did not open this connection."""
        if not alive[0] or self.guard.pid != process.pid:
            self.guard.cover()
            # If a hook had run here, nothing would lead to this connection any more: so none has.
            at_fork.ensure_process()
            if self.guard.foreign:
                raise self.InterfaceError(FOREIGN.format(owner=self.guard.pid, me=process.pid))

    def abandon(self) -> None:
        """In a foreign process: never to be read, written, closed or freed."""
        self.guard.abandon(self)

    def __del__(self) -> None:
        # The driver's destructor would work on the parent's session without looking at the pid.
        if self.guard.foreign:
            self.guard.abandon(self)
        elif finalize := getattr(super(), "__del__", None):  # sqlite3 has one since Python 3.13
            finalize()

    def note_failure(self, error: BaseException) -> None:
        """Take note of what a guarded method raised: whether the session can still be used."""

    def note_effects(self, effects: int, statement: object) -> None:
        """Take note of what a statement will do, before it is sent.

        :raises InterfaceError: where it asks for what another borrower's statement may have set.
        """
        if (missing := (effects >> READS) & ~self.ran) and (missing := missing & ~self.set_by_last()):
            told = self.told_by(statement, missing << READS)
            raise self.InterfaceError(REFUSED.format(told=told))
        if effects & LEAVES:
            self.dirty = True
        if effects & PINS:
            self.pinned = True

    def set_by_last(self) -> int:
        """Return what the lease's last statement has set as far as only the server's answer shows it."""
        return 0

    @staticmethod
    def told_by(statement: object, effects: int) -> str:
        """Return the first function or the like in a statement that tells one of these, for people."""
        return "This statement"

    @abstractmethod
    def mark_clean(self) -> None:
        """Take the present state as that of a clean session: it was just initialised."""

    def note_marks(self) -> None:
        """Take the present marks as those of a clean session."""
        self.marks_at_rest = marks_of(self, self.CHANGING)
        self.mark_values_at_rest = tuple(self.marks_at_rest.values())
        self.attributes_at_rest = 0  # first, as it counts
        self.attributes_at_rest = len(vars(self))

    def end_cursors(self) -> None:
        """Close the cursors that the lease has left open, where they would keep something of the session."""

    @property
    def begun(self) -> bool:
        """Whether the borrower may have begun a transaction that is no reason to call the session dirty."""
        return False

    @abstractmethod
    def unfit(self) -> str | None:
        """Return why this connection can't be reused, None if it can. Sends nothing."""

    @abstractmethod
    def clean(self) -> None:
        """Leave no transaction and no marks for the next borrower. Sends something only for a transaction."""

    def reset(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Leave nothing, neither a transaction nor what it was initialised with.

        :param ask: returns the parameters that a new connection would be opened with now, None if they are
            not known. Called only where the session has to prove its user again.
        :raises Error: the driver's, where that can't be done: then the session is closed.
        """
        raise self.NotSupportedError("this driver can't reset a session")

    def closed_by_server(self) -> bool:
        """Return whether this idle connection looks dead. Sends nothing."""
        return False

    @abstractmethod
    def answers(self, seconds: float) -> bool:
        """Ask the server for an answer, by one round trip; return whether it came.

        :param seconds: how long the answer may take.
        """
