"""The contract of a database's driver: the methods that poollife requires of it, and the optional ones.

There are two classes, like the interfaces of Go's ``database/sql/driver``. ``Driver`` knows the kind of
database, and ``Guarded`` is mixed into the class of its connections. A method that is not abstract is
optional: a driver without a socket or a reset, or of a server that is never full, does not define it.
"""

from __future__ import annotations

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from poollife import clock
from poollife.drivers.effects import LEAVES, PINS, READS, REFUSED, SETS
from poollife.drivers.verdicts import Verdict
from poollife.option_values import Role
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

# Reasons to close a session, for people.
CLOSED = "closed by its borrower"
UNREAD = "results left unread"
SET_OTHERWISE = "its driver was set otherwise by its borrower"


class State(Enum):
    """The state of a lease. The docstring of ``Lease`` in ``pools/lease.py`` has the transitions."""

    #: The checkout is under way. The session is the borrower's, which does not have it yet.
    OPENING = 1
    #: The borrower uses the session.
    HELD = 2
    #: The borrower's thread waits for a job, and another thread is about to take the session back.
    CLAIMED = 3
    #: A thread returns the session. The cursors do not work any more.
    RETURNING = 4
    #: An asynchronous exception has interrupted the return. The next thread goes on, and closes the session.
    INTERRUPTED = 5
    #: The pool has the slot back.
    RETURNED = 6
    #: In a child: the parent has the session.
    ABANDONED = 7


# Globals of the module: a look-up in the class costs more.
OPENING, HELD, CLAIMED, RETURNING, INTERRUPTED, RETURNED, ABANDONED = State


class Driver(ABC):
    """The description of a kind of driver. An instance is the ``driver`` of a backend's mixin."""

    #: The keys of ``OPTIONS`` that name files with more options, which poollife can't read.
    option_files: frozenset[str] = frozenset()
    #: A statement for the sessions of this user and database, without the one that asks: id, user, client,
    #: state, seconds in it, statement. None: the database has none.
    SESSIONS: str | None = None
    #: Whether servers are primaries or replicas: ``POOL["role"]`` is refused otherwise.
    has_roles = False
    #: Whether a session has to be asked for the role of its server. Otherwise the server reports it.
    asks_for_role = False

    @abstractmethod
    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Guard a new connection, and return it with the proxies of APM tools that may be around it.

        :param connection: the result of the driver's ``connect()``.
        :param pid: the process that called ``connect()``.
        :param params: the arguments of that call.
        :returns: ``connection``.
        :raises TypeError: if no driver connection is found in ``connection``.
        """

    @abstractmethod
    def unwrap(self, connection: Any) -> Any:
        """Return the ``Guarded`` connection inside the result of ``adopt()``."""

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Return the addresses to which a connection with these parameters may lead.

        A fork in the middle of a handshake looks for its socket by them.

        :param params: the arguments of ``connect()``.
        :returns: addresses as ``is_connected_to()`` in ``process/atfork.py`` takes them; by default, none.
        """
        return set()

    def places(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the arguments for each of the servers that a list of hosts names, in its order.

        :param params: the arguments of ``connect()``.
        :returns: by default, the arguments themselves: the driver reads a list by itself, or takes none.
        """
        return [params]

    def sets_tcp_timeouts(self, params: dict[str, Any]) -> bool:
        """Return whether the driver itself bounds a silent network, by these parameters; False by default.

        :param params: the arguments of ``connect()``.
        """
        return False

    def idle_limit(self, connection: Any) -> float | None:
        """Return the seconds after which the server ends an idle session, or None (the default): never.

        :param connection: a ``Guarded`` connection, on which the driver may ask the server.
        """
        return None

    def verdict(self, error: Exception) -> Verdict:
        """Return the meaning of an error for the server, and for its other sessions; NONE by default.

        :param error: the exception of ``connect()`` or of a reset.
        """
        return Verdict.NONE

    def unreachable(self, error: Exception) -> bool | None:
        """Return whether a session could not be opened because no server was reached.

        :param error: the exception of ``connect()``.
        :returns: None where the error leaves this open.
        """
        verdict = self.verdict(error)
        return None if Verdict.CUT_OFF in verdict else Verdict.UNREACHABLE in verdict

    def refused(self, error: Exception) -> bool:
        """Return whether the server rejected the user or the password of a session.

        :param error: the exception of ``connect()`` or of a reset.
        """
        return Verdict.REFUSED in self.verdict(error)

    def is_full(self, error: Exception) -> bool:
        """Return whether the server refused a session because it allows no more.

        :param error: the exception of ``connect()``.
        """
        return Verdict.FULL in self.verdict(error)

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Return what to do because the driver can't begin a transaction with its first statement.

        :param entry: the entry of ``DATABASES``.
        :returns: a text for people; None: the driver can. By default, it can't.
        """
        return "leave it out: a transaction of this ENGINE takes no packet to begin"

    def begin_lazily(self, connection: Any) -> None:
        """Have a new connection begin each transaction with its first statement, in one packet.

        Called for ``POOL["lazy_begin"]``, which is refused if there is an objection to it.

        :param connection: a ``Guarded`` connection that was just opened.
        """

    def objection(self) -> tuple[str, str] | None:
        """Return why this process can't use the driver, and the cure; None (the default): it can."""
        return None

    def objections(self, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the reasons why the driver can't work as ``POOL["behind"]`` says: by default, never.

        :param entry: the entry of ``DATABASES``.
        :returns: each reason, with its cure, for people.
        """
        return [("the ENGINE is not one for PostgreSQL, and knows no such proxy", "Leave it out")]


class Guarded(metaclass=ABCMeta):
    """A mixin of a driver's connection class: it refuses to work without a lease, and in another process.

    Synchronization: the thread that has the lease changes the attributes. While no lease has the connection,
    the pool does.

    ``note_opening()`` sets the attributes, and the class has no values for them. If the class had a value,
    too, CPython would not remember where it finds the attribute, and each access would be a whole search.
    """

    guard: Guard
    #: The lease that has the session; None in the pool, and while the session is opened.
    lease: Any
    #: True while the session is in the pool, where no code may use the connection.
    idle: bool
    #: A text: the failure after which the state of the session is not known. None: there was none.
    failure: str | None
    #: A text: the borrower's act after which no other borrower may have the session. None: there was none.
    unshareable: str | None
    #: The state that the session was initialised with. None: it is not initialised.
    initialised_with: Any
    #: True if a statement since then may have left state in the session.
    dirty: bool
    #: Bits of SETS: what the statements of the present lease have set, for its later statements to read. In a
    #: session that was never lent: all of them.
    ran: int
    #: True if the borrower got an answer that is true for this session only.
    pinned: bool
    #: The opening, and the last return: seconds on the monotonic clock.
    born: float
    idle_since: float
    #: The part of ``recycle`` after which the session is replaced. It is drawn at the opening: sessions of
    #: one burst are not replaced together.
    lifetime: float
    #: True if the last errors say that this session was lost: sessions opened before it may be lost, too.
    lost: bool
    #: True if the last errors or answers say that the server became read-only, or was promoted: sessions
    #: opened before lead to it, too.
    failed_over: bool
    #: True if the last statements may have added a type, which the adapters of other sessions do not know.
    has_new_types: bool
    #: Names of attributes that poollife or the driver assigns while the connection lives. All other
    #: attributes are marks: of a tool, of a receiver of ``connection_created`` or of a borrower.
    CHANGING: frozenset[str] = frozenset(
        {"guard", "lease", "idle", "initialised_with", "dirty", "born", "idle_since", "lifetime"}
        | {"failure", "unshareable", "ran", "pinned", "lost", "failed_over", "marks_at_rest"}
        | {"has_new_types", "row", "session", "role_seen"}
    )
    #: The marks of a clean session.
    marks_at_rest: dict[str, Any]
    #: The session's number at the server; None: it has none. The pool sets it.
    session: int | None
    #: The row of the session on the board; None: it has none.
    row: Any
    #: The last time when the role of its server was known. Only with ``POOL["role"]``.
    role_seen: float
    #: The driver's exception classes.
    InterfaceError: Any
    NotSupportedError: Any

    def note_opening(self) -> None:
        """Set the attributes to those of a session that was just opened."""
        self.lease = self.failure = self.unshareable = self.initialised_with = self.row = None
        self.idle = self.dirty = self.pinned = self.lost = self.failed_over = self.has_new_types = False
        self.ran = SETS
        self.lifetime = 1.0
        self.born = self.idle_since = clock.monotonic()

    def check(self) -> None:
        """Make the whole test, after the hot path's ``not alive[0] or lease.state is not HELD``.

        :raises InterfaceError: in a process that did not open this connection, and if no lease has it.
        """
        self.check_process()
        lease = self.lease
        if self.idle or (lease is not None and not lease.is_held()):
            raise self.InterfaceError(IDLE)

    def check_process(self) -> None:
        """Refuse to work in another process than the one that opened this connection.

        :raises InterfaceError: in such a process.
        """
        if not alive[0] or self.guard.pid != process.pid:
            self.guard.cover()
            # After a fork hook no code of this process would find the connection. So no hook has run here.
            at_fork.ensure_process()
            if self.guard.foreign:
                raise self.InterfaceError(FOREIGN.format(owner=self.guard.pid, me=process.pid))

    def abandon(self) -> None:
        """Give up the connection in a foreign process: it is never read, written, closed or freed there."""
        self.guard.abandon(self)

    def __del__(self) -> None:
        # The driver's destructor would work on the parent's session without looking at the pid.
        if self.guard.foreign:
            self.guard.abandon(self)
        elif finalize := getattr(super(), "__del__", None):  # sqlite3 has one since Python 3.13
            finalize()

    def number_at_server(self) -> int | None:
        """Return the session's number at the server, without asking it; None (the default): not known."""
        return None

    def note_failure(self, error: BaseException) -> None:
        """Note, after an error of a guarded method, whether the session can still be used.

        :param error: the exception, the driver's or any other.
        """

    def note_effects(self, effects: int, statement: object) -> None:
        """Note the effects of a statement, before it is sent.

        :param effects: bits of ``drivers/effects.py``.
        :param statement: the statement, for the text of the error.
        :raises InterfaceError: if the statement reads what another borrower's statement may have set.
        """
        if (missing := (effects >> READS) & SETS & ~self.ran) and (missing := missing & ~self.set_by_last()):
            told = self.told_by(statement, missing << READS)
            raise self.InterfaceError(REFUSED.format(told=told))
        if effects & LEAVES:
            self.dirty = True
        if effects & PINS:
            self.pinned = True

    def set_by_last(self) -> int:
        """Return the bits of SETS that only the answer to the lease's last statement shows; 0 by default."""
        return 0

    @staticmethod
    def told_by(statement: object, effects: int) -> str:
        """Return the first function or variable in a statement that reads one of these, for an error text.

        :param statement: the statement.
        :param effects: the bits, shifted by READS.
        """
        return "This statement"

    @abstractmethod
    def mark_clean(self) -> None:
        """Record the present state as that of a clean session: the session was just initialised."""

    @property
    def keeps_savepoints(self) -> bool:
        """True if a SAVEPOINT can wait for the first statement of its transaction; False by default."""
        return False

    def keep_savepoint(self, statement: str) -> None:
        """Send a SAVEPOINT together with the next statement. Called only if ``keeps_savepoints`` is True.

        :param statement: the SAVEPOINT.
        """

    def end_cursors(self) -> None:
        """Close the cursors that the lease has left open, if they would keep a part of the session in use."""

    @property
    def begun(self) -> bool:
        """True if the borrower may have begun a transaction without making the session dirty.

        It is False by default.
        """
        return False

    @abstractmethod
    def reason_to_close(self) -> str | None:
        """Return why this connection can't be lent again, or None if it can. Sends nothing."""

    @abstractmethod
    def clean(self) -> None:
        """End the transaction and remove the borrower's marks. Sends something only for a transaction."""

    def reset_session(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Bring the session back to its state after login, without a transaction and without initialisation.

        :param ask: returns the parameters that a new connection would be opened with now, or None if they are
            not known. It is called only if the session has to log in again.
        :raises Error: the driver's, if a reset is not possible. The pool then closes the session.
        """
        raise self.NotSupportedError("this driver can't reset a session")

    def closed_by_server(self) -> bool:
        """Return whether this idle connection looks dead; False by default. Sends nothing."""
        return False

    def expect(self, role: Role) -> None:
        """Note which role the session's server is to have, for a server that reports it.

        From then on ``failed_over`` is set as long as the server has another one. By default, nothing is
        noted.
        """

    def has_role(self, role: Role, seconds: float) -> bool | None:
        """Return whether the server has this role; None: no answer.

        If ``Driver.asks_for_role`` is true, this is a ping as well.

        :param role: the role.
        :param seconds: as for ``answers()``.
        """
        return self.answers(seconds) or None

    @abstractmethod
    def answers(self, seconds: float) -> bool:
        """Ping the server, by one round trip, and return whether it answered.

        :param seconds: the longest time that the answer may take.
        """
