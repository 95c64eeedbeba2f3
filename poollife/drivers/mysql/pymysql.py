"""The guarded connection of PyMySQL."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter, is_
from typing import Any, NoReturn

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT
from pymysql.converters import conversions
from pymysql.cursors import Cursor, SSCursor

from poollife.drivers.connection import NO_RECONNECT, guarded, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import CLOSED, HELD, SET_OTHERWISE, UNREAD
from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.mysql.connection import (
    QUESTION,
    ROLE,
    MySQLConnection,
    install_guard,
    sending,
)
from poollife.drivers.mysql.cursors import ReadingCursor, is_own, sends_sql_unchanged
from poollife.drivers.mysql.driver import MySQLDriver
from poollife.process.guard import Guard, alive

#: The driver's own default, in seconds.
CONNECT_TIMEOUT = 10


class UnbufferedCursor(LeasedCursor):
    """A cursor that reads each row from the socket, by a method that the driver calls itself."""

    def read_next(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().read_next()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise


class ReadingUnbufferedCursor(UnbufferedCursor, ReadingCursor):
    """An unbuffered cursor that reads a statement before the driver puts parameters in."""


#: The mixins of cursors, by whether these are unbuffered, and whether their statements can be read.
MIXINS: dict[tuple[bool, bool], type[LeasedCursor]] = {
    (False, False): LeasedCursor,
    (False, True): ReadingCursor,
    (True, False): UnbufferedCursor,
    (True, True): ReadingUnbufferedCursor,
}


def _sends_unchanged(cursor_class: type) -> type:
    # A cursor class of the site's own may send another statement than it was given.
    mixin = MIXINS[issubclass(cursor_class, SSCursor), sends_sql_unchanged(cursor_class)]
    return leased(cursor_class, mixin)  # type: ignore[arg-type]  # a class is hashable


def _may_send_otherwise(cursor_class: type) -> type:
    mixin = MIXINS[issubclass(cursor_class, SSCursor), False]
    return leased(cursor_class, mixin)  # type: ignore[arg-type]  # a class is hashable


#: The leased class of a cursor class, by whether the driver makes one literal of each parameter.
CURSORS = {
    True: LeasedClasses(_sends_unchanged, is_own),
    False: LeasedClasses(_may_send_otherwise, is_own),
}


class GuardedConnection(MySQLConnection, Connection):  # type: ignore[misc]  # PyMySQL is not typed
    """A connection that works only in the process that opened it, and says whether it may be reused.

    ``adopt()`` makes it from the result of ``pymysql.connect``, by assigning the class. PyMySQL keeps its
    socket and the state of its results under private names. Only this module uses these.
    """

    _read_timeout: float | None
    messages = ()

    CURSORS = CURSORS
    conversions = conversions
    #: The socket is among them: a session whose driver has another one is discarded.
    SETTINGS = ("encoders", "decoders", "cursorclass", "use_unicode", "_sock")
    CHANGING = MySQLConnection.CHANGING | {
        *SETTINGS,
        *("_affected_rows", "_closed", "_current_timeout", "_next_seq_id", "_result", "_rfile"),
        *("autocommit_mode", "server_status"),
    }
    settings = attrgetter(*SETTINGS)
    _query = Connection.query
    _commit, _rollback = Connection.commit, Connection.rollback
    _autocommit, _get_autocommit = Connection.autocommit, Connection.get_autocommit

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
        """Return the number of columns of the last answer. Sends nothing."""
        return self._result.field_count if self._result else 0

    @guarded
    def next_result(self, unbuffered: bool = False) -> Any:
        # Several statements in one string, or a procedure.
        self.dirty = True
        return super().next_result(unbuffered)

    def _next_result(self, unbuffered: bool = False) -> Any:
        # The driver would wait for another result, even if none is due.
        if self._result is not None and self._result.has_next:
            return super().next_result(unbuffered)
        return None

    def cursor(self, cursor: type | None = None) -> Any:
        return super().cursor(cursor)

    def connect(self, sock: Any = None) -> NoReturn:
        """Refuse to open another session, on a socket that is not guarded.

        :raises NotSupportedError: always.
        """
        raise pymysql.NotSupportedError(NO_RECONNECT)

    def close(self) -> None:
        if not self.guard.foreign and self._result is not None:
            # The destructor of the result would read the rest of it.
            self._result.unbuffered_active = False
        super().close()

    def escapes_safely(self) -> bool:
        # PyMySQL escapes a text before it encodes it, so a character may still become a quote or a backslash.
        return self.charset_is_safe

    def _ask(self, seconds: float, question: bytes = QUESTION) -> None:
        own = self._read_timeout
        self._read_timeout = min(seconds, own or seconds)
        try:
            # Not the driver's ping: a Galera node that refuses all statements answers that.
            Connection.query(self, question)
        finally:
            self._read_timeout = own

    def _ask_for_role(self, seconds: float) -> tuple[Any, ...]:
        self._ask(seconds)
        self._ask(seconds, ROLE)
        assert self._result
        return self._result.rows[0]  # type: ignore[no-any-return]

    def number_at_server(self) -> int:
        """Implement ``MySQLConnection.number_at_server()``."""
        return int(self.thread_id())

    def reason_to_close(self) -> str | None:
        if reason := self.failure or self.unshareable:
            return reason
        if not self.open:
            return CLOSED
        settings = self.settings_at_rest
        if (
            not all(map(is_, self.settings(self), settings))
            or settings[0].changed  # the converters
            or settings[1].changed
            or (self.encoding != self.encoding_at_rest and not self.dirty)
        ):
            return SET_OTHERWISE
        result = self._result
        unread = result is not None and (result.unbuffered_active or result.has_next)
        return UNREAD if unread else None


def connect(params: dict[str, Any]) -> Any:
    """Return the result of ``pymysql.connect``, with ``connect_timeout`` for all of it, as in the C client.

    By itself the driver uses that time only until the connection is accepted. It waits for the server's
    greeting as for the answer to any statement, so by default for ever.

    :param params: the arguments of ``pymysql.connect``.
    """
    own = params.get("read_timeout")
    limit = params.get("connect_timeout", CONNECT_TIMEOUT)
    connection = pymysql.connect(**{**params, "read_timeout": limit if own is None else min(limit, own)})
    driver.unwrap(connection)._read_timeout = own
    return connection


class PyMySQL(MySQLDriver):
    """The driver PyMySQL."""

    error = pymysql.MySQLError

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Implement ``Driver.objection_to_lazy_begin()``."""
        if (entry.get("OPTIONS") or {}).get("client_flag", 0) & CLIENT.MULTI_STATEMENTS:
            return None
        return (
            "leave it out, or set OPTIONS['client_flag'] to pymysql.constants.CLIENT.MULTI_STATEMENTS: two "
            "statements share a packet"
        )

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        driver = self.unwrap(connection)
        install_guard(driver, GuardedConnection, Guard(pid, driver._sock.fileno()))
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection if type(connection) is GuardedConnection else connection_of(connection, Connection)

    def idle_limit(self, connection: GuardedConnection) -> int:
        """Implement ``Driver.idle_limit()``."""
        # Not a cursor of the lease, which would count it as one of the borrower's.
        with Cursor(connection) as cursor:
            cursor.execute("SELECT @@wait_timeout")
            return int(cursor.fetchone()[0])


driver = PyMySQL()
