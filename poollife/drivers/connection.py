"""A driver's connection as pools and leases know it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NoReturn, Protocol

from poollife.drivers.effects import LEAVES, PINS, READS, REFUSED, SETS
from poollife.drivers.marks import marks_of
from poollife.process.atfork import at_fork
from poollife.process.guard import Guard, getpid

FOREIGN = (
    "This connection belongs to process {owner}, which opened it before this one, {me}, was forked. "
    "It was left alone; open a new one (django.db.connection does by itself)."
)

IDLE = (
    "This connection went back to its pool, or was closed, when its request, task or block ended or close() "
    "was called. Use django.db.connection, which borrows another."
)

NO_RECONNECT = (
    "A pooled connection does not reconnect: settings, locks and a transaction of its session would be lost "
    "without an error, and its new socket would not be guarded. Call close() on Django's connection in place "
    "of this; its next query borrows a session that is alive."
)


class Claimed:
    """In place of True where a lease has ended: another thread would end it, if this one let it."""


CLAIMED = Claimed()


class Lease(Protocol):
    """The lease of a driver's connection, as the connection and its cursors use it."""

    #: True once its cursors are dead; ``CLAIMED`` see above.
    ended: bool | Claimed
    thread: threading.Thread
    cursors: weakref.WeakSet[Any]
    open_cursors: set[int]

    def has_ended(self) -> bool:
        """Return whether it has ended; cancel a claim of another thread."""

    def note_open(self, cursor: object) -> None:
        """Note that a cursor was opened."""

    def rest(self) -> None:
        """Note that a statement or a transaction is over."""


class Driver(Protocol):
    """A module of drivers/."""

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Guard what the driver's ``connect`` returned, and return that: APM proxies included.

        :param pid: the process that called ``connect``.
        :param params: what it called it with.
        """

    def unwrap(self, connection: Any) -> Any:
        """The ``Guarded`` connection in what ``adopt`` returned."""

    def peers(self, params: dict[str, Any]) -> set[Any]:
        """Where a connection made with these parameters leads; see ``atfork.leads_to``."""

    def idle_limit(self, connection: Any) -> float | None:
        """Seconds after which the server ends an idle session; None: never."""

    def unreachable(self, error: Exception) -> bool | None:
        """Whether no session could be opened because there is no server; None: that may well be."""

    def refused(self, error: Exception) -> bool:
        """Return whether the server did not take a session's user or password."""

    def is_full(self, error: Exception) -> bool:
        """Return whether the server refused a session because there are as many as it allows."""


class Guarded:
    """Mixed into a driver's connection class: refuses to work in a process that did not open it."""

    guard: Guard
    #: Who has it now.
    lease: Lease | None
    #: Whether it waits in its pool, to be used by nobody; see ``LeasePool._take_back()`` for ``CLAIMED``.
    idle: bool | Claimed
    #: The failure after which the state of the session is not known, if there was one; for people.
    broken: str | None = None
    #: What its borrower did to it, if no other may have it after that; for people.
    unshareable: str | None = None
    #: The holder's cursors that may have something to read.
    cursors: weakref.WeakSet[Any]
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
        {"guard", "lease", "idle", "cursors", "initialised_with", "dirty", "born", "idle_since", "lifetime"}
        | {"ran", "pinned", "lost", "failed_over", "marks_at_rest", "attributes_at_rest"}
    )
    #: The marks that a clean session has, and how many attributes there are then.
    marks_at_rest: dict[str, Any]
    attributes_at_rest: int
    #: The driver's own.
    InterfaceError: Any
    NotSupportedError: Any

    def check_process(self) -> None:
        """:raises InterfaceError: in a process that did not open this connection."""
        if self.guard.pid != getpid():
            self.refuse()

    def refuse(self) -> NoReturn:
        """Fail an attempt to use the parent's connection."""
        self.guard.cover()
        # If a hook had run here, nobody would have come by this connection any more: so none has.
        at_fork.ensure_process()
        raise self.InterfaceError(FOREIGN.format(owner=self.guard.pid, me=getpid()))

    def check_lease(self) -> None:
        """:raises InterfaceError: where no lease has it."""
        if self.idle is CLAIMED and (lease := self.lease):
            lease.has_ended()
        if self.idle:
            raise self.InterfaceError(IDLE)

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
        """A guarded method raised this."""

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
        raise NotImplementedError

    def at_rest(self) -> None:
        """Take the present state as that of a clean session: it was just initialised."""
        raise NotImplementedError

    def note_marks(self) -> None:
        """Take the present marks as those of a clean session."""
        self.marks_at_rest = marks_of(self, self.CHANGING)
        self.attributes_at_rest = 0  # first, as it counts
        self.attributes_at_rest = len(vars(self))

    def end_cursors(self) -> None:
        """The lease of those that are open has ended."""
        self.cursors.clear()

    @property
    def begun(self) -> bool:
        """Whether its borrower may have begun a transaction that is no reason to call it dirty."""
        raise NotImplementedError

    def unfit(self) -> str | None:
        """Why this connection can't be reused, if so. Sends nothing."""
        raise NotImplementedError

    def clean(self) -> None:
        """Leave no transaction and no marks for the next borrower. Sends something only for a transaction."""
        raise NotImplementedError

    def reset(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Leave nothing, neither a transaction nor what it was initialised with.

        :param ask: returns the parameters that a new connection would be opened with now, None if they are
            not known. Called only where the session has to prove its user again.
        :raises Error: the driver's, where that can't be done.
        """
        raise NotImplementedError

    def closed_by_server(self) -> bool:
        """Whether this idle connection looks dead. Sends nothing."""
        raise NotImplementedError

    def answers(self, seconds: float) -> bool:
        """Ask the server: one round trip. If not, it is not to be used any more.

        :param seconds: how long the answer may take.
        """
        raise NotImplementedError


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """A driver's method, for the lease's holder in the process that opened the connection."""

    @wraps(method)
    def call(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        if self.guard.pid != getpid():
            self.refuse()
        if self.idle:
            self.check_lease()
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self.note_failure(error)
            raise

    return call


def leaving(method: Callable[..., Any]) -> Callable[..., Any]:
    """A driver's method that leaves something behind in the session."""

    @wraps(method)
    def call(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        self.dirty = True
        return method(self, *args, **kwargs)

    return call


def unwrap(connection: Any, driver_class: type) -> Any:
    """The driver's own connection behind an APM tool's proxies (wrapt's, by their ``__wrapped__``).

    :raises TypeError: where there is none to be found, so that it could not be guarded.
    """
    found = connection
    # type() and not isinstance(): a proxy pretends to be of the class that it wraps.
    while not issubclass(type(found), driver_class):
        try:
            found = found.__wrapped__
        except AttributeError:
            raise TypeError(
                f"The driver's connect() returned {type(connection)!r}, neither {driver_class!r} nor a proxy "
                f"with __wrapped__ around one: poollife can't keep it safe across forks."
            ) from None
    return found
