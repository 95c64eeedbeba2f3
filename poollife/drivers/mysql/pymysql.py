"""PyMySQL: the guarded connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NoReturn

import pymysql
from pymysql.connections import Connection
from pymysql.converters import conversions
from pymysql.cursors import Cursor, SSCursor

from poollife.drivers.connection import NO_RECONNECT, guarded, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.mysql.connection import (
    QUESTION,
    MySQLConnection,
    MySQLDriver,
    ReadingCursor,
    become,
    sending,
    vouches,
)
from poollife.process.guard import Guard, alive

#: The driver's own default, in seconds.
CONNECT_TIMEOUT = 10


class UnbufferedCursor(LeasedCursor):
    """One whose every row comes from the socket, by a method that the driver calls itself."""

    def read_next(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().read_next()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise


class ReadingUnbufferedCursor(UnbufferedCursor, ReadingCursor):
    """The same, reading what it runs."""


#: By whether they are unbuffered, and whether what they run may be read.
MIXINS: dict[tuple[bool, bool], type[LeasedCursor]] = {
    (False, False): LeasedCursor,
    (False, True): ReadingCursor,
    (True, False): UnbufferedCursor,
    (True, True): ReadingUnbufferedCursor,
}


def _sends_unchanged(cursor_class: type) -> type:
    # A cursor of the site's own class may send other than it was told to.
    mixin = MIXINS[issubclass(cursor_class, SSCursor), vouches(cursor_class)]
    return leased(cursor_class, mixin)  # type: ignore[arg-type]  # a class is hashable


def _may_send_otherwise(cursor_class: type) -> type:
    mixin = MIXINS[issubclass(cursor_class, SSCursor), False]
    return leased(cursor_class, mixin)  # type: ignore[arg-type]  # a class is hashable


#: By whether the driver makes one literal of each parameter.
CURSORS = {True: LeasedClasses(_sends_unchanged), False: LeasedClasses(_may_send_otherwise)}


class GuardedConnection(MySQLConnection, Connection):  # type: ignore[misc]  # PyMySQL is not typed
    """A connection that works only in the process that opened it, and knows whether it may be reused.

    Made by ``adopt()``, as mysqlclient's. PyMySQL keeps its socket and the state of its results under private
    names; they are used in here only.
    """

    _read_timeout: float | None

    CURSORS = CURSORS
    conversions = conversions
    #: With the socket, so that another one costs the session.
    SETTINGS = ("encoders", "decoders", "cursorclass", "use_unicode", "_sock")
    CHANGING = MySQLConnection.CHANGING | {
        *SETTINGS,
        *("_affected_rows", "_closed", "_current_timeout", "_next_seq_id", "_result", "_rfile"),
        *("autocommit_mode", "server_status"),
    }
    settings = attrgetter(*SETTINGS)
    _rollback, _autocommit = Connection.rollback, Connection.autocommit

    begin = guarded(leaving(Connection.begin))
    commit = guarded(Connection.commit)
    rollback = guarded(Connection.rollback)
    autocommit = guarded(Connection.autocommit)
    ping = guarded(Connection.ping)
    _show_warnings = guarded(Connection.show_warnings)
    select_db = guarded(leaving(Connection.select_db))
    set_charset = guarded(leaving(Connection.set_charset))
    set_character_set = guarded(leaving(Connection.set_character_set))

    query = sending(Connection.query)

    def show_warnings(self) -> Any:
        self.check()
        self.note_statement("SHOW WARNINGS")
        return self._show_warnings()

    def count_warnings(self) -> int:
        return self._result.warning_count if self._result else 0

    def field_count(self) -> int:
        """Return how many columns the last answer has. Sends nothing."""
        return self._result.field_count if self._result else 0

    @guarded
    def next_result(self, unbuffered: bool = False) -> Any:
        # Several statements in one string, or a procedure.
        self.dirty = True
        return super().next_result(unbuffered)

    def cursor(self, cursor: type | None = None) -> Any:
        return super().cursor(cursor)

    def connect(self, sock: Any = None) -> NoReturn:
        """Refuse: it would be another session, on a socket that nobody guards."""
        raise pymysql.NotSupportedError(NO_RECONNECT)

    def close(self) -> None:
        if not self.guard.foreign and self._result is not None:
            # Its destructor would read the rest of it.
            self._result.unbuffered_active = False
        super().close()

    def escapes_safely(self) -> bool:
        # It escapes a text before it encodes it, so a character may still become a quote or a backslash.
        return self.reads_all_text

    def reset(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """PyMySQL can neither change the user nor reset a session; another one is opened in its place."""
        raise pymysql.NotSupportedError("PyMySQL can't reset a session")

    def _ask(self, seconds: float) -> None:
        own = self._read_timeout
        self._read_timeout = min(seconds, own or seconds)
        try:
            # Not the driver's ping: a Galera node that refuses all statements answers that.
            Connection.query(self, QUESTION)
        finally:
            self._read_timeout = own

    def _driver_fault(self) -> str | None:
        result = self._result
        unread = result is not None and (result.unbuffered_active or result.has_next)
        return "results left unread" if unread else None


def connect(params: dict[str, Any]) -> Any:
    """What ``pymysql.connect`` returns, with ``connect_timeout`` for all of it, as in the C client.

    By itself the driver means by that only until somebody has accepted; for his greeting it waits as for the
    answer to any statement, so for ever.
    """
    own = params.get("read_timeout")
    limit = params.get("connect_timeout", CONNECT_TIMEOUT)
    connection = pymysql.connect(**{**params, "read_timeout": limit if own is None else min(limit, own)})
    driver.unwrap(connection)._read_timeout = own
    return connection


class PyMySQL(MySQLDriver):
    """PyMySQL."""

    error = pymysql.MySQLError

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        driver = self.unwrap(connection)
        become(driver, GuardedConnection, Guard(pid, driver._sock.fileno()))
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection if type(connection) is GuardedConnection else connection_of(connection, Connection)

    def idle_limit(self, connection: GuardedConnection) -> int:
        """Implement ``Driver.idle_limit()``."""
        # None of the lease's, which would take it for its holder's.
        with Cursor(connection) as cursor:
            cursor.execute("SELECT @@wait_timeout")
            return int(cursor.fetchone()[0])


driver = PyMySQL()
