"""The common part of the drivers of MySQL and MariaDB."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from functools import wraps
from operator import itemgetter
from typing import Any

from poollife.drivers.connection import CLEANING_LIMIT, NO_RECONNECT, GuardedSocket, begin, live
from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedClasses
from poollife.drivers.effects import (
    CHECKED,
    INSERT_ID,
    LAST_STATEMENT,
    LEAVES,
    MAY_SET_INSERT_ID,
    MESSAGES,
    SETS,
    UNKNOWN,
    UPSERTS,
)
from poollife.drivers.marks import marks_of, restore, split
from poollife.drivers.mysql.converters import Converters
from poollife.drivers.mysql.cursors import ReadingCursor
from poollife.drivers.mysql.effects import told_by
from poollife.drivers.mysql.errors import verdict_on
from poollife.drivers.mysql.statements import EFFECTS
from poollife.drivers.verdicts import Verdict
from poollife.option_values import Role
from poollife.process.guard import Guard, alive

#: Number and text of an error, as the C client has them.
LOST = (2013, "Lost connection to server during query")
#: The statement of a ping: the smallest one that a Galera node out of its cluster refuses.
QUESTION = b"DO 1"
#: The statement that asks for the role: such a node answers it. Readers of Aurora have only the second value.
ROLE = b"SELECT @@global.read_only, @@global.innodb_read_only"
#: The values of a server that takes writes.
WRITABLE = {"0", "OFF"}

#: Python's names of character sets in which each byte of ASCII is the same character here and at the server.
#: In Shift JIS it is not: Python writes a yen sign as a backslash.
PLAIN_ENCODINGS = {"ascii", "cp1252", "utf8"}


def sending(method: Callable[..., Any], answered: bool = True) -> Callable[..., Any]:
    """Return a guarded method that reads its statement first, from a driver's method that sends one.

    The method is flat, as that of ``guarded()``: each statement passes through here.

    :param method: the method of the driver's class.
    :param answered: whether the method returns after the answer has come.
    """

    # The second argument is PyMySQL's: with *args and **kwargs each call would make a tuple and a dictionary.
    @wraps(method)
    def call(self: MySQLConnection, query: Any, unbuffered: bool | None = None) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if self.reader is None:
            self.note_statement(as_sent(query))
        if type(query) is bytearray:  # mysqlclient lets other threads run while it sends
            query = bytes(query)
        self.awaits_result = True
        try:
            result = method(self, query) if unbuffered is None else method(self, query, unbuffered)
        except BaseException as error:
            self.note_failure(error)
            if self.failure is None:
                self.ran |= LAST_STATEMENT | MESSAGES
            raise
        if answered:  # as note_answer() does it
            self.ran |= self.effects & SETS
            if self.effects & MAY_SET_INSERT_ID and self.insert_id() and self.has_set_id():
                self.ran |= INSERT_ID
        return result

    return call


def as_sent(query: Any) -> Any:
    """Return a statement that was given to the driver connection, in the form in which it can be read.

    mysqlclient sends text as UTF-8, whatever the session's character set is. So beyond ASCII a text is not
    understood, like bytes.
    """
    if not query.isascii():
        return query.encode(errors="replace") if isinstance(query, str) else query
    return query if isinstance(query, str) else query.decode("ascii")


class MySQLConnection(GuardedSocket):
    """The common part of the guarded connections of both drivers: the server and its protocol."""

    #: The state of autocommit in a clean session.
    autocommit_at_rest: bool
    #: True if all characters of a text are the same at the server. Otherwise only those of ASCII are.
    charset_is_safe: bool
    #: The encoding and the other settings of the driver for a clean session.
    encoding_at_rest: str
    settings_at_rest: tuple[Any, ...]
    #: The number of attributes in a clean session, the function that gets its marks of plain values, their
    #: values, and its other marks.
    attributes_at_rest: int
    get_marks: itemgetter[Any]
    mark_values_at_rest: Any
    other_marks_at_rest: tuple[tuple[str, Any], ...]
    #: The cursor that runs a statement now, after it has read the statement.
    reader: ReadingCursor | None
    #: The effects of the statement that was read last.
    effects: int
    #: True if the result of that statement, if it has one, is not stored as a whole. (PyMySQL has its own
    #: state for this.)
    awaits_result: bool
    #: The marks before the initialisation: of tools that have wrapped the driver's ``connect()``.
    marks_at_birth: dict[str, Any]
    #: The number of weak references to the connection at that time.
    references_at_birth: int
    CHANGING: frozenset[str] = (
        GuardedSocket.CHANGING
        | {"reader", "autocommit_at_rest", "cursor_classes", "charset_is_safe", "encoding"}
        | {"encoding_at_rest", "settings_at_rest", "marks_at_birth", "references_at_birth", "effects"}
        | {"awaits_result", "attributes_at_rest", "get_marks", "mark_values_at_rest", "other_marks_at_rest"}
    )

    #: Attributes of the driver.
    Error: Any
    #: The list of messages of the DB-API; that of PyMySQL is always empty.
    messages: Any
    open: Any
    cursorclass: type
    encoders: Any
    encoding: str
    insert_id: Any
    affected_rows: Any
    field_count: Any
    #: Whether a statement can share a packet with the start of its transaction.
    shares_packets = True
    #: Methods of the driver without the guard, for the pool: it has connections that no lease has.
    _query: Any
    _next_result: Any
    _commit: Any
    _rollback: Any
    _autocommit: Any
    _get_autocommit: Any
    #: The driver's default converters.
    conversions: dict[Any, Any]
    #: The names of attributes that a borrower could set otherwise; the two of the converters come first.
    SETTINGS: tuple[str, ...]
    #: The leased class of a cursor class, by whether the driver makes one literal of each parameter.
    CURSORS: dict[bool, LeasedClasses]
    cursor_classes: LeasedClasses

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a second call, which would open another session, on a socket that is not guarded.

        :raises NotSupportedError: always.
        """
        raise self.NotSupportedError(NO_RECONNECT)

    def cursor(self, cursorclass: type | None = None) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if lease is None:  # during the opening: listeners of SQLAlchemy's events may query
            return (cursorclass or self.cursorclass)(self)
        cursor = self.cursor_classes[cursorclass or self.cursorclass](self)
        # As enter_lease() does it, with one call less.
        cursor._driver, cursor._lease, cursor._is_open = self, lease, True
        lease.open_cursors += 1
        lease.untracked_cursors += 1
        lease.paused = None
        return cursor

    def close(self) -> None:
        """End the session; in a foreign process only abandon it."""
        if self.guard.foreign:
            self.abandon()
            return
        try:
            if self.open:
                super().close()  # type: ignore[misc]  # the driver's
        finally:
            # Not before: a fork may come in the middle of the quit packet.
            live.remove(self)

    @abstractmethod
    def number_at_server(self) -> int:
        """Return the id of the server's thread, as in SHOW PROCESSLIST."""

    def note_failure(self, error: BaseException) -> None:
        """Note, after an error, whether the session's state is still known."""
        # An exception that is not the driver's may come at any point, so the protocol's state is not known.
        verdict = verdict_on(error) if isinstance(error, self.Error) else None
        if verdict is None or Verdict.LOST in verdict:
            self.failure = f"{type(error).__name__}: {error}"
            self.lost = verdict is not None
        elif Verdict.READ_ONLY in verdict:
            self.failed_over = True

    def note_statement(self, statement: Any, is_template: bool = False) -> None:
        """Note the effects of a statement, before it is sent.

        :param statement: the text.
        :param is_template: whether the driver puts parameters into it.
        :raises InterfaceError: if the statement reads what another borrower's statement may have set.
        """
        try:
            effects = EFFECTS[is_template][statement]
        except TypeError:  # not hashable: a bytearray, for example
            effects = UNKNOWN
        if not (self.charset_is_safe or effects & LEAVES or statement.isascii()):
            effects |= LEAVES
        self.effects = effects
        if effects & CHECKED:
            self.note_effects(effects, statement)

    def note_answer(self) -> None:
        """Note what the statement that was answered has set."""
        self.ran |= self.effects & SETS
        if self.effects & MAY_SET_INSERT_ID and self.insert_id() and self.has_set_id():
            self.ran |= INSERT_ID

    def begin_alone(self) -> None:
        """Begin the transaction that is due, before a statement that can't share its packet."""

    def has_set_id(self) -> bool:
        """Return whether the id that the client has now is also the answer of LAST_INSERT_ID()."""
        # With an answer that has rows, the C client keeps the id of an earlier statement. An upsert that has
        # updated its only row counts two rows, and has no id if it has changed nothing.
        return not self.field_count() and not (self.effects & UPSERTS and self.affected_rows() != 1)

    def set_by_last(self) -> int:
        return MESSAGES if self.ran & LAST_STATEMENT and self.count_warnings() else 0

    told_by = staticmethod(told_by)

    def count_warnings(self) -> int:
        """Return the number of messages that the server has about the last statement. Sends nothing."""
        raise NotImplementedError

    @property
    def begun(self) -> bool:
        """True if the driver's own method has changed autocommit. (A BEGIN makes the session dirty.)"""
        return bool(self.open and self._get_autocommit() != self.autocommit_at_rest)

    def mark_clean(self) -> None:
        """Record the present state as that of a clean session: the session was just initialised."""
        self.dirty = False
        self.autocommit_at_rest = self._get_autocommit()
        for name in self.SETTINGS[:2]:
            setattr(self, name, Converters(getattr(self, name)))
        has_default_encoders = all(self.conversions.get(kind) is make for kind, make in self.encoders.items())
        self.charset_is_safe = self.encoding in PLAIN_ENCODINGS
        self.cursor_classes = self.CURSORS[has_default_encoders and self.escapes_safely()]
        self.encoding_at_rest = self.encoding
        self.settings_at_rest = tuple(getattr(self, name) for name in self.SETTINGS)
        self.marks_at_rest = marks_of(self, self.CHANGING)
        by_value, self.other_marks_at_rest = split(self.marks_at_rest)
        self.get_marks = itemgetter(*by_value)
        self.mark_values_at_rest = self.get_marks(self.__dict__)
        self.attributes_at_rest = 0  # assigned first, because it is counted, too
        self.attributes_at_rest = len(self.__dict__)

    def escapes_safely(self) -> bool:
        """Return whether the driver's text for a parameter is one literal for the server, too."""
        return True

    def clean(self) -> None:
        """End the transaction and remove the borrower's marks. Sends something only for a transaction."""
        # Flat, because each return passes through here. The session has no state that a mark stands for.
        attributes = self.__dict__
        try:
            # One call for all plain values: a call for each would cost four times as much.
            kept = (
                len(attributes) == self.attributes_at_rest
                and not self.messages
                and self.get_marks(attributes) == self.mark_values_at_rest
            )
            for name, value in self.other_marks_at_rest:
                kept = kept and attributes[name] is value
        except KeyError:
            kept = False
        if not kept:
            self.drop_marks(self.marks_at_rest)
        autocommit = self._get_autocommit()
        if self.dirty or not autocommit:
            self._ask(CLEANING_LIMIT, b"ROLLBACK")
            self.dirty = False
        if autocommit != self.autocommit_at_rest:
            self._ask(CLEANING_LIMIT, b"SET autocommit=%d" % self.autocommit_at_rest)
            # PyMySQL keeps the value in an attribute, too. Nothing is sent.
            self._autocommit(self.autocommit_at_rest)

    def drop_marks(self, marks: dict[str, Any]) -> None:
        """Remove all marks but these, and restore the values of these.

        :param marks: the marks to keep; at a reset, the marks at birth, because a receiver's mark is removed
            together with the state that the receiver has set.
        """
        restore(self, marks, self.CHANGING)
        if self.messages:
            self.messages.clear()

    def check_references(self) -> None:
        """Look for weak references, of a WeakSet for example, that may be marks of the borrower.

        :raises NotSupportedError: if there are any: they would outlive a reset.
        """
        if weakref.getweakrefcount(self) > self.references_at_birth:
            raise self.NotSupportedError("weak references to it may be marks of its borrower")

    def answers(self, seconds: float) -> bool:
        """Implement ``Guarded.answers()``."""
        self.check_process()
        try:
            self._ask(seconds)
        except self.Error:
            return False
        return True

    def has_role(self, role: Role, seconds: float) -> bool | None:
        """Implement ``Guarded.has_role()``. A server that does not understand the question has each role."""
        self.check_process()
        try:
            values = self._ask_for_role(seconds)
        except self.Error as error:
            return None if Verdict.LOST in verdict_on(error) else True
        read_only = any(str(value).upper() not in WRITABLE for value in values)
        return read_only == (role == "replica")

    def _ask(self, seconds: float, question: bytes = QUESTION) -> None:
        """Make a round trip for the pool, without the guard.

        It ends also behind a proxy, where ``network_timeout`` ends nothing: the proxy's kernel acknowledges
        all that is sent.

        :param seconds: the longest time that the answer may take, or ``read_timeout`` if that is shorter.
        :param question: the statement. Rows of its answer are not read.
        :raises Error: the driver's, if no answer came in that time.
        """
        raise NotImplementedError

    def _ask_for_role(self, seconds: float) -> tuple[Any, ...]:
        """Send ``QUESTION`` and ``ROLE``, and return the answer to the latter.

        :param seconds: as for ``_ask()``.
        :raises Error: as ``_ask()``.
        """
        raise NotImplementedError


def install_guard(driver: Any, guarded_class: type[MySQLConnection], guard: Guard) -> None:
    """Make a driver's new connection a guarded one, by assigning its class.

    :param driver: the driver connection.
    :param guarded_class: the class.
    :param guard: the guard of its process and socket.
    """
    driver.reader, driver.effects, driver.awaits_result = None, 0, False
    begin(driver, guard, guarded_class)
    driver.references_at_birth = weakref.getweakrefcount(driver)
    driver.marks_at_birth = marks_of(driver, guarded_class.CHANGING)
    driver.mark_clean()
