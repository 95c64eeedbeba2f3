"""The common part of the drivers of PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from poollife.drivers.connection import CLEANING_LIMIT, GuardedSocket
from poollife.drivers.contract import CLOSED, SET_OTHERWISE, UNREAD
from poollife.drivers.effects import CHECKED, LEAVES, READS, SETS, UNKNOWN
from poollife.drivers.marks import marks_of, restore
from poollife.drivers.postgresql import poolers
from poollife.drivers.postgresql.effects import ADDS_TYPES, PREPARES, UNRESETTABLE, told_by
from poollife.drivers.postgresql.errors import verdict_on
from poollife.drivers.postgresql.statements import EFFECTS
from poollife.drivers.verdicts import Verdict
from poollife.option_values import Role

#: Transaction statuses of libpq, by their numbers ("PQtransactionStatus" in its manual).
IDLE, ACTIVE, IN_TRANSACTION, IN_ERROR, UNKNOWN_STATUS = range(5)
#: The parts of DISCARD ALL, which can't share a string with anything: all that a borrower may have left is
#: gone, and what the connection was opened with is back. One round trip, in a failed transaction, too. The
#: parts about prepared statements are left out: psycopg knows its own, and would use them after that.
RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
#: Parameters that the server reports by itself whenever they change, so that a look at them sends nothing.
#: (PostgreSQL 18 reports search_path.) The last two tell whether the server takes writes. They change in an
#: idle session with its next answer.
REPORTED = (
    *("TimeZone", "DateStyle", "IntervalStyle", "client_encoding", "application_name"),
    *("session_authorization", "is_superuser", "standard_conforming_strings", "search_path"),
    *("in_hot_standby", "default_transaction_read_only"),
)
#: The first words of the server's command tags for statements that may be clean. "SET" is that of SET LOCAL.
CLEAN_TAGS = (
    {"BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "SHOW", "LOCK", "TRUNCATE"}
    | {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "EXPLAIN", "COPY"}
    | {"DECLARE", "FETCH", "MOVE", "CLOSE", "NOTIFY"}
)


class PostgreSQLConnection(GuardedSocket):
    """The common part of the guarded connections of both drivers: the server and its session state.

    It stands behind the driver's class in the order of inheritance: an object of psycopg 3 can't be given a
    class that begins with another. So a method whose name the driver has, too, is in the subclass.
    """

    #: The cursor that runs a statement now, after it has read the statement.
    reader: Any
    #: The effects of the statement that was read last.
    effects: int
    #: Whether a statement of PREPARE may have run since the session was clean.
    has_prepared: bool
    #: The number of named cursors that are open on the server.
    portals: int
    #: The state of autocommit in a clean session.
    autocommit_at_rest: bool
    #: The settings of the driver for a clean session, and the parameters that its server reports.
    settings_at_rest: tuple[Any, ...]
    reported_at_rest: tuple[Any, ...]
    #: The last two of REPORTED: as the role wants them, or as they were when the session was opened.
    expected_writability: tuple[Any, ...]
    #: The marks before the initialisation: of tools that have wrapped the driver's ``connect()``.
    marks_at_birth: dict[str, Any]
    #: True if the server reads a text as ``statements.py`` does.
    is_readable: bool
    #: True behind a proxy that gives each transaction another session: see ``poolers.py``.
    behind_pooler: bool
    CHANGING: frozenset[str] = (
        GuardedSocket.CHANGING
        | {"unshareable", "reader", "effects", "has_prepared", "portals", "settings_at_rest"}
        | {"reported_at_rest", "autocommit_at_rest"}
        | {"expected_writability", "marks_at_birth", "is_readable", "behind_pooler"}
    )

    #: Attributes of the driver.
    Error: Any
    ProgrammingError: Any
    autocommit: Any
    info: Any

    # --- what the two drivers do differently ---------------------------------------------------------------

    @property
    @abstractmethod
    def transaction_status(self) -> int:
        """The status of the transaction, as libpq numbers it. Sends nothing."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """True until the session was closed, or found lost. Sends nothing."""

    @abstractmethod
    def reported(self, name: str) -> Any:
        """Return a parameter's value as the server has reported it; None: it reports none. Sends nothing."""

    @abstractmethod
    def reports(self) -> tuple[Any, ...]:
        """Return the values of REPORTED, to be compared: the driver's own text or bytes. Sends nothing."""

    @abstractmethod
    def settings(self) -> tuple[Any, ...]:
        """Return the attributes of the driver that a borrower could set otherwise."""

    @abstractmethod
    def run(self, sql: str, seconds: float) -> list[tuple[Any, ...]]:
        """Make a round trip for the pool, without the guard; return the rows of the last statement.

        :param sql: one or more statements.
        :param seconds: the longest time that the answer may take.
        :raises Error: the driver's, for an error of the server, or if no answer came in that time.
        """

    @abstractmethod
    def roll_back(self, seconds: float) -> None:
        """End the transaction for the pool, without the guard.

        :param seconds: as for ``run()``.
        """

    @abstractmethod
    def set_autocommit_again(self, value: bool) -> None:
        """Set autocommit for the pool, without the guard. Sends nothing."""

    @abstractmethod
    def driver_fault(self) -> str | None:
        """Return why the driver's own state forbids another use, or None. Sends nothing."""

    # --- statements ----------------------------------------------------------------------------------------

    def note_statement(self, statement: Any, is_template: bool = False) -> None:
        """Note the effects of a statement, before it is sent.

        :param statement: the text.
        :param is_template: whether the driver puts parameters into it.
        :raises InterfaceError: if the statement reads what another borrower's statement may have set.
        """
        try:
            effects = EFFECTS[is_template][statement] if self.is_readable else UNKNOWN
        except TypeError:  # not hashable
            effects = UNKNOWN
        self.effects = effects
        if self.behind_pooler:
            self._check_transaction(effects, statement, is_template)
        if effects & CHECKED:
            self.note_effects(effects, statement)
            if effects & LEAVES:
                self._note_rare(effects)

    def _check_transaction(self, effects: int, statement: Any, is_template: bool) -> None:
        """Refuse what would need the same session in two transactions.

        :raises InterfaceError: if the statement leaves something for the next transaction, or reads what an
            earlier transaction has left.
        """
        if effects & LEAVES and (cure := poolers.cure_for(statement, is_template)):
            raise self.InterfaceError(poolers.REFUSED.format(cure=cure))
        if self.transaction_status == IDLE:  # this statement begins a transaction
            self.ran = 0
            if told := effects & (SETS << READS):
                raise self.InterfaceError(poolers.REFUSED_READ.format(told=self.told_by(statement, told)))

    def _note_rare(self, effects: int) -> None:
        if effects & PREPARES:
            self.has_prepared = True
        if effects & UNRESETTABLE:
            self.unshareable = "it may have state that no reset removes"

    def note_answer(self, tag: str | None) -> None:
        """Note what the statement that was answered has set.

        The server's command tag is a second witness, beside the text: a statement that was taken for a clean
        one has the tag of a clean one.

        :param tag: such as "INSERT 0 1".
        """
        self.ran |= self.effects & SETS
        if self.effects & ADDS_TYPES:
            self.has_new_types = True
        if not self.dirty and tag is not None and tag.partition(" ")[0] not in CLEAN_TAGS:
            self.dirty = True

    told_by = staticmethod(told_by)

    def note_unread(self) -> None:
        """Note that a statement is sent that no cursor has read, by a part of the driver without a guard."""
        self.dirty = True
        self.ran |= SETS

    def put_back(self, reader: Any, outer: Any) -> None:
        """Note that a cursor has run its statement.

        :param reader: the cursor.
        :param outer: the cursor that ran one before.
        """
        if self.reader is reader:
            self.reader = outer
        else:  # threads share the session, and their statements have overlapped
            self.reader = None
            self.dirty = True

    def number_at_server(self) -> int:
        """Return the id of the server's process, as in pg_stat_activity."""
        return int(self.info.backend_pid)

    def note_failure(self, error: BaseException) -> None:
        """Note, after an error, whether the session's state is still known.

        The client's own status says it, whatever the error is: ACTIVE means that answers are on their way.
        After an error of the server the driver may still read them; the return looks once more.
        """
        is_own = isinstance(error, self.Error)
        verdict = verdict_on(error) if is_own else Verdict.NONE
        is_cut = not is_own and self.transaction_status in (ACTIVE, UNKNOWN_STATUS)
        if Verdict.LOST in verdict or is_cut or not self.is_open:
            self.failure = f"{type(error).__name__}: {error}"
            self.lost = is_own
        elif Verdict.READ_ONLY in verdict and self.reports()[-2:] != self.expected_writability:
            # Otherwise it was the borrower's own READ ONLY transaction, or a replica from the beginning.
            self.failed_over = True

    @property
    def begun(self) -> bool:
        """True in a transaction. A connection that is closed, or was lost, is in none."""
        return self.transaction_status != IDLE and self.is_open

    # --- the pool ------------------------------------------------------------------------------------------

    def note_birth(self) -> None:
        """Note the state of a session that was just opened."""
        self.behind_pooler = False
        self.marks_at_birth = marks_of(self, self.CHANGING)
        self.mark_clean()
        self.expected_writability = self.reported_at_rest[-2:]

    def expect(self, role: Role) -> None:
        """Implement ``Guarded.expect()``. The server reports its role by itself, from PostgreSQL 14 on."""
        standby, read_only = self.expected_writability
        if standby is not None:
            # The driver's own type, which ``reports()`` has.
            on, off = (b"on", b"off") if isinstance(standby, bytes) else ("on", "off")
            self.expected_writability = (off, off) if role == "primary" else (on, read_only)

    def has_role(self, role: Role, seconds: float) -> bool:
        """Implement ``Guarded.has_role()``. Sends nothing; before PostgreSQL 14 each server has each role."""
        standby = self.reports()[-2]
        return standby is None or (standby in (b"on", "on")) == (role == "replica")

    def mark_clean(self) -> None:
        """Record the present state as that of a clean session: the session was just initialised."""
        self.dirty = self.has_prepared = False
        self.unshareable = None
        self.portals = 0
        self.autocommit_at_rest = self.autocommit
        self.settings_at_rest = self.settings()
        self.reported_at_rest = self.reports()
        self.is_readable = self.reported("standard_conforming_strings") == "on" and (
            self.reported("client_encoding") in ("UTF8", "SQL_ASCII")
        )
        self.marks_at_rest = marks_of(self, self.CHANGING)

    def reason_to_close(self) -> str | None:
        """Implement ``Guarded.reason_to_close()``; note also what makes the session dirty without a text."""
        self.reader = None
        # A cursor that was dropped without its close() is still there on the server.
        if self.portals:
            self.dirty = True
        if reason := self.failure or self.unshareable:
            return reason
        if not self.is_open:
            return CLOSED
        if self.transaction_status in (ACTIVE, UNKNOWN_STATUS):
            return UNREAD
        if reason := self.driver_fault():
            return reason
        if self.settings() != self.settings_at_rest:
            return SET_OTHERWISE
        if not self.can_deallocate and (self.has_prepared or self.dirty or self.begun):
            return "its prepared statements may be out of date"
        reports = self.reports()
        if reports[-2] != self.expected_writability[0]:
            self.failed_over = True  # its server was promoted, or never had the role that is wanted
        # A trigger or a function of the site's own may have changed them, without a trace in any text.
        if (not self.dirty or self.behind_pooler) and reports != self.reported_at_rest:
            if self.behind_pooler:
                return "a setting was changed in it, and no session is reset behind a transaction pooler"
            if reports[-1] != self.reported_at_rest[-1] and not self.begun:
                self.failed_over = True  # otherwise a transaction may have set it for itself
            self.dirty = True
        return None

    @property
    def can_deallocate(self) -> bool:
        """True if the driver has no prepared statements of its own in the session."""
        return True

    def clean(self) -> None:
        """End the transaction and remove the borrower's marks. Sends something only for a transaction."""
        restore(self, self.marks_at_rest, self.CHANGING)
        if self.transaction_status != IDLE:
            self.roll_back(CLEANING_LIMIT)
        self.set_autocommit_again(self.autocommit_at_rest)
        self.dirty = False

    def reset_session(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Bring the session back to its state after login: one round trip.

        :param ask: not used: no reset logs in again.
        :raises Error: if a reset is not possible. The pool then closes the session.
        """
        restore(self, self.marks_at_birth, self.CHANGING)
        if not self.autocommit and self.transaction_status != IDLE:
            self.roll_back(CLEANING_LIMIT)
        self.set_autocommit_again(self.autocommit_at_rest)
        # Outside of a transaction, a ROLLBACK writes a warning into the server's log.
        rollback = "ROLLBACK; " if self.transaction_status != IDLE else ""
        deallocate = "; DEALLOCATE ALL; DISCARD PLANS" if self.has_prepared else ""
        self.run(f"{rollback}{RESET}{deallocate}", CLEANING_LIMIT)
        self.dirty = self.has_prepared = False
        self.portals = 0

    def set_parameter(self, name: str, value: str) -> None:
        """Set a parameter of the session for the pool, without the guard: one round trip.

        :param name: such as "application_name".
        :param value: its text.
        """
        escaped = value.replace("'", "''").replace("\\", "\\\\")
        self.run(f"SELECT set_config('{name}', E'{escaped}', false)", CLEANING_LIMIT)

    def is_proxied(self) -> bool:
        """Return whether a proxy, such as PgBouncer, answers in the server's place: one round trip.

        A proxy tells its clients another number than the one that the server's session has.
        """
        try:
            rows = self.run("SELECT pg_backend_pid()", CLEANING_LIMIT)
        except self.ProgrammingError:  # a server of another kind has no such function
            return False
        return bool(rows) and int(rows[0][0]) != self.info.backend_pid

    def answers(self, seconds: float) -> bool:
        """Implement ``Guarded.answers()``: an empty statement is the cheapest one."""
        self.check_process()
        try:
            self.run("", seconds)
        except self.Error:
            return False
        return True
