"""The driver psycopg2, and its connections with ``POOL["lazy_begin"]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

import psycopg2
from psycopg2 import extensions

from poollife.drivers.connection import begin, guarded
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.postgresql.driver import PostgreSQLDriver, warn_if_blocking
from poollife.drivers.postgresql.psycopg2_connection import Psycopg2Connection, guarded_factory
from poollife.drivers.postgresql.psycopg2_cursors import LAZY_CURSORS, LAZY_NAMED_CURSORS, Connection, Cursor
from poollife.drivers.postgresql.transactions import BeginningConnection
from poollife.process.guard import Guard

#: The driver's own mode, in which it sends a BEGIN or does not.
AUTOCOMMIT: Any = Connection.autocommit
#: The words for the isolation levels, which psycopg2 numbers.
LEVELS = {
    extensions.ISOLATION_LEVEL_READ_UNCOMMITTED: "READ UNCOMMITTED",
    extensions.ISOLATION_LEVEL_READ_COMMITTED: "READ COMMITTED",
    extensions.ISOLATION_LEVEL_REPEATABLE_READ: "REPEATABLE READ",
    extensions.ISOLATION_LEVEL_SERIALIZABLE: "SERIALIZABLE",
}


def in_drivers_mode(
    method: Callable[..., Any], name: str = "set_session", rolls_back: bool = False
) -> Callable[..., Any]:
    """Return a driver's method, to be called in the mode that psycopg2 has without ``lazy_begin``.

    :param method: a guarded method that depends on the mode, or sets it.
    :param name: the name in psycopg2's refusal to work in a transaction.
    :param rolls_back: whether the method ends the transaction, and is not refused in one.
    """

    @wraps(method)
    def call(self: LazyConnection, *args: Any, **kwargs: Any) -> Any:
        self.check()
        if rolls_back:
            self.rollback()
        self.refuse_in_transaction(name)
        self.hand_over()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.has_autocommit = AUTOCOMMIT.__get__(self)

    return call


def setting(name: str) -> property:
    """Return a property of psycopg2's that is set in its own mode.

    :param name: the name of the property.
    """
    own = vars(Psycopg2Connection)[name]
    return property(own.fget, in_drivers_mode(own.fset))


class LazyConnection(Psycopg2Connection, BeginningConnection):
    """The part of a guarded connection that begins and ends transactions, to be put before its class.

    psycopg2 itself is in its autocommit mode. There it sends no BEGIN, and no COMMIT. A text may have them.
    """

    CURSORS, NAMED_CURSORS = LAZY_CURSORS, LAZY_NAMED_CURSORS
    #: Autocommit as the borrower has set it.
    has_autocommit: bool
    #: True from the BEGIN in a text to commit() or rollback(). Like psycopg2's own status, it does not change
    #: with a COMMIT of the borrower's.
    has_begun: bool
    CHANGING = Psycopg2Connection.CHANGING | BeginningConnection.CHANGING | {"has_autocommit", "has_begun"}

    @property
    def begins_by_text(self) -> bool:
        """True if autocommit is off for the borrower, and psycopg2 sends no BEGIN."""
        return not self.has_autocommit and bool(AUTOCOMMIT.__get__(self))

    @property
    def is_due(self) -> bool:
        return not self.has_begun and self.begins_by_text

    def note_begin(self) -> None:
        super().note_begin()
        self.has_begun = True

    def begin_statement(self) -> bytes:
        words = ["BEGIN"]
        if level := self.isolation_level:
            words.append(f"ISOLATION LEVEL {LEVELS[level]}")
        if self.readonly is not None:
            words.append("READ ONLY" if self.readonly else "READ WRITE")
        if self.deferrable is not None:
            words.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(words).encode()

    def begin_alone(self) -> None:
        if self.is_due:
            Cursor(self).execute(b";".join((self.begin_statement(), *self.savepoints)))
            self.note_begin()

    def hand_over(self) -> None:
        """Have psycopg2 itself begin and end the transaction, if the borrower has switched autocommit off.

        :raises InterfaceError: as ``check()``.
        """
        self.check()
        if self.savepoints:
            self.begin_alone()
        if self.begins_by_text:
            AUTOCOMMIT.__set__(self, False)
            self.has_begun = False

    def refuse_in_transaction(self, name: str) -> None:
        """Refuse a call as psycopg2 does.

        :param name: the method.
        :raises ProgrammingError: in a transaction.
        """
        if self.has_begun or self.savepoints or (self.begins_by_text and self.begun):
            raise psycopg2.ProgrammingError(f"{name} cannot be used inside a transaction")

    @property
    def autocommit(self) -> bool:
        """Autocommit as the borrower has set it. An assignment sends nothing."""
        return self.has_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._set_autocommit(value)

    @guarded
    def _set_autocommit(self, value: bool) -> None:
        if self.is_open:
            self.refuse_in_transaction("set_session")
        AUTOCOMMIT.__set__(self, True)
        self.has_autocommit, self.savepoints = bool(value), ()

    @property
    def status(self) -> int:
        """The state of the connection, as psycopg2 numbers it. It has not seen a BEGIN in a text."""
        return int(extensions.STATUS_BEGIN if self.has_begun else Connection.status.__get__(self))

    @guarded
    def commit(self) -> None:
        """Commit the transaction. Sends nothing if none has begun."""
        self._end("COMMIT", Connection.commit)

    @guarded
    def rollback(self) -> None:
        """Roll the transaction back. Sends nothing if none has begun."""
        self._end("ROLLBACK", Connection.rollback)

    def _end(self, word: str, method: Callable[..., None]) -> None:
        # First, because the transaction has ended if a COMMIT fails.
        self.savepoints, self.has_begun = (), False
        # An asynchronous exception may have come before has_begun was set: the C library knows.
        if self.begins_by_text and self.begun:
            Cursor(self).execute(word)
        else:
            method(self)
        if not AUTOCOMMIT.__get__(self):
            AUTOCOMMIT.__set__(self, True)

    def set_autocommit_again(self, value: bool) -> None:
        self.has_autocommit, self.has_begun, self.savepoints = value, False, ()
        super().set_autocommit_again(True)

    def roll_back(self, seconds: float) -> None:
        if AUTOCOMMIT.__get__(self):
            self.run("ROLLBACK", seconds)
        else:
            super().roll_back(seconds)

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        # If the transaction has begun by a text, psycopg2 sends a BEGIN once more, of which the server warns.
        self.hand_over()
        return super().lobject(*args, **kwargs)

    isolation_level, readonly, deferrable = map(setting, ("isolation_level", "readonly", "deferrable"))
    set_session = in_drivers_mode(Psycopg2Connection.set_session)
    set_isolation_level = in_drivers_mode(Psycopg2Connection.set_isolation_level, rolls_back=True)
    set_client_encoding = in_drivers_mode(Psycopg2Connection.set_client_encoding, rolls_back=True)
    reset = in_drivers_mode(Psycopg2Connection.reset, rolls_back=True)
    tpc_begin = in_drivers_mode(Psycopg2Connection.tpc_begin, "tpc_begin")


@cache
def lazy(connection_class: type[Psycopg2Connection]) -> type[LazyConnection]:
    """Return the subclass of a guarded class whose transactions begin with their first statement.

    :param connection_class: a class that ``guarded_factory()`` has made.
    """
    return type("LazyConnection", (LazyConnection, connection_class), {})


class Psycopg2(PostgreSQLDriver):
    """The driver psycopg2."""

    error = psycopg2.Error

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> None:
        """Implement ``Driver.objection_to_lazy_begin()``."""

    def begin_lazily(self, connection: Any) -> None:
        """Implement ``Driver.begin_lazily()``."""
        autocommit = connection.autocommit
        connection.shares_packets = True
        connection.__class__ = lazy(type(connection))  # type: ignore[arg-type]  # a class is hashable
        connection.set_autocommit_again(autocommit)
        connection.mark_clean()

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``connect()`` by which it makes a guarded connection."""
        return {**params, "connection_factory": guarded_factory(params.get("connection_factory", Connection))}

    def objections(self, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Implement ``Driver.objections()``. With an isolation level, psycopg2 sends a SET for each block."""
        found = super().objections(entry)
        if (entry.get("OPTIONS") or {}).get("isolation_level"):
            found.append(
                (
                    "OPTIONS has 'isolation_level', which psycopg2 sets for the whole session",
                    "Use psycopg 3, or ALTER ROLE ... SET default_transaction_isolation at the server",
                )
            )
        return found

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        warn_if_blocking(
            extensions.get_wait_callback() is None,
            "Call psycopg2.extensions.set_wait_callback() with a function that waits in gevent's hub, as the "
            "package psycogreen has it, or use psycopg 3.",
        )
        driver = self.unwrap(connection)
        begin(driver, Guard(pid, driver.fileno()))
        driver.note_birth()
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection_of(connection, Psycopg2Connection)


driver = Psycopg2()
