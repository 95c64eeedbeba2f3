"""The guarded connection of mysqlclient."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import MySQLdb
from MySQLdb.connections import Connection
from MySQLdb.converters import conversions

from poollife.drivers.connection import CLEANING_LIMIT, NO_RECONNECT, ended_after, guarded, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import CLOSED, HELD, SET_OTHERWISE, UNREAD
from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.mysql.connection import (
    LOST,
    QUESTION,
    ROLE,
    MySQLConnection,
    install_guard,
    sending,
)
from poollife.drivers.mysql.cursors import ReadingCursor, is_own, sends_sql_unchanged
from poollife.drivers.mysql.driver import MySQLDriver
from poollife.process.greenlets import is_patched
from poollife.process.guard import Guard, alive

if not hasattr(MySQLdb, "_mysql"):
    raise ImportError(
        f"poollife guards mysqlclient's connections; here MySQLdb is something else ({MySQLdb.__file__}). "
        f"Install mysqlclient, or leave out what takes its name (pymysql.install_as_MySQLdb()). "
        f"PyMySQL has an ENGINE of its own: poollife.backends.mysql_pymysql."
    )

#: Parameters that name files with more parameters in them.
DEFAULTS_FILES = frozenset({"read_default_file", "read_default_group"})
#: Parameters with a password.
SECRETS = {"password", "passwd"}
#: Major versions of libmysqlclient, as opposed to libmariadb.
ORACLES_CLIENTS = {"5", "8", "9"}
#: Statements for state that a change of user does not end: a distributed transaction (ROLLBACK fails only in
#: one, so that the session is closed), a role, and the answer of FOUND_ROWS().
FORGET = ("ROLLBACK", "SET ROLE NONE", "SELECT 1")


def _sends_unchanged(cursor_class: type) -> type:
    # A cursor class of the site's own may send another statement than it was given.
    return leased(cursor_class, ReadingCursor if sends_sql_unchanged(cursor_class) else LeasedCursor)


#: The leased class of a cursor class, by whether the driver makes one literal of each parameter.
CURSORS = {True: LeasedClasses(_sends_unchanged, is_own), False: LeasedClasses(leased, is_own)}


#: Methods of the driver without the guard, for the pool, and for methods that have made the check.
send_and_wait = MySQLdb._mysql.connection.query
next_result, store_result = Connection.next_result, Connection.store_result
thread_id = Connection.thread_id
HAS_MORE_RESULTS = hasattr(Connection, "more_results")
more_results: Any = getattr(Connection, "more_results", None)


class GuardedConnection(MySQLConnection, Connection):  # type: ignore[misc]  # mysqlclient is not typed
    """A connection that works only in the process that opened it, and says whether it may be reused.

    ``adopt()`` makes it from the result of ``MySQLdb.connect``, by assigning the class. So ``connect`` is
    called as Django calls it, and a tool that has wrapped it (APM tools do) sees every connection.
    """

    #: True if a query was sent and its answer was not read yet. The C client does not know that.
    in_flight: bool
    #: The arguments of ``connect``.
    params: dict[str, Any]
    #: The character set of a clean session.
    charset: str
    #: The server's id of the session that was adopted.
    session: int
    #: True if a result was ever read row by row: the session may then have ended in the middle of a result.
    streams: bool
    #: An attribute of mysqlclient.
    OperationalError: Any

    # With the general functions, CPython remembers where it found an attribute, and calls a method without
    # making a bound one: two thirds off each access. The driver's own functions differ in two things only.
    # One is the attribute that follows, the other a refusal to delete attributes.
    __getattribute__ = object.__getattribute__
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__
    closed = property(lambda self: not self.open, doc="True if the connection is closed.")

    CURSORS = CURSORS
    conversions = conversions
    SETTINGS = ("encoders", "converter", "cursorclass")
    CHANGING = MySQLConnection.CHANGING | {*SETTINGS, "in_flight", "params", "charset", "session", "streams"}
    _query, _next_result = send_and_wait, next_result
    _commit, _rollback = Connection.commit, Connection.rollback
    _autocommit, _get_autocommit = Connection.autocommit, Connection.get_autocommit
    _send_query, _read_query_result = Connection.send_query, Connection.read_query_result
    _ping = Connection.ping
    count_warnings = Connection.warning_count

    commit = guarded(Connection.commit)
    rollback = guarded(Connection.rollback)
    autocommit = guarded(Connection.autocommit)
    discard_result = guarded(Connection.discard_result)
    select_db = guarded(leaving(Connection.select_db))
    set_character_set = guarded(leaving(Connection.set_character_set))
    kill = guarded(Connection.kill)
    shutdown = guarded(Connection.shutdown)
    stat = guarded(Connection.stat)
    dump_debug_info = guarded(Connection.dump_debug_info)

    def store_result(self) -> Any:
        # Written out as in guarded(), and as in next_result(): each statement passes through here.
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        try:
            result = store_result(self)
        except BaseException as error:
            self.note_failure(error)
            raise
        self.awaits_result = False
        return result

    @guarded
    def use_result(self) -> Any:
        self.streams = True
        return super().use_result()

    query = sending(send_and_wait)

    def _begin_query(self, query: bytes | str) -> None:
        self.begin_alone()
        self.in_flight = True
        super().send_query(query)

    send_query = sending(_begin_query, answered=False)

    @guarded
    def read_query_result(self) -> None:
        self.in_flight = False  # as in _ask(); all other exceptions make the session unusable
        super().read_query_result()
        self.note_answer()

    @guarded
    def ping(self, reconnect: bool = False) -> None:
        """Ask the server for an answer. The driver's automatic reconnect is never switched on.

        :param reconnect: the driver's argument, which is refused if the session is lost.
        :raises NotSupportedError: with ``reconnect``, if no answer comes.
        :raises OperationalError: without it, if no answer comes.
        """
        try:
            self._ping()
        except self.OperationalError as error:
            if reconnect:
                raise self.NotSupportedError(NO_RECONNECT) from error
            raise

    @guarded
    def change_user(self, *args: Any, **kwargs: Any) -> None:
        self.unshareable = "it was given to another user"
        super().change_user(*args, **kwargs)

    @guarded
    def set_server_option(self, option: int) -> None:
        self.unshareable = "an option of its protocol was set"
        super().set_server_option(option)

    @guarded
    def _get_native_connection(self) -> Any:
        self.unshareable = "its native connection was handed out"
        return super()._get_native_connection()

    def next_result(self) -> int:
        # Written out as in guarded(): each statement passes through here twice.
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        try:
            status: int = next_result(self)
        except BaseException as error:
            self.note_failure(error)
            raise
        if status != -1:
            # Several statements in one string, or a procedure.
            self.dirty = True
        return status

    def reset_session(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Have the server reset the session, and repeat what ``connect`` did: three round trips at least.

        :param ask: see ``Guarded.reset_session()``.
        :raises Error: if a reset is not possible. The pool then closes the session.
        """
        params = self.params
        if "user" not in params or has_more_options(params):
            raise MySQLdb.NotSupportedError("what a new session begins with is not in its parameters")
        self.check_references()
        # Called before anything is sent: a server may lock an account after a few wrong passwords.
        if now := ask():
            if now.get("user") != params["user"]:
                raise MySQLdb.NotSupportedError("new sessions have another user by now")
            self.params = params = {**params, **{key: now[key] for key in SECRETS & now.keys()}}
        self.drop_marks(self.marks_at_birth)
        # The C client itself waits for the answers to a change of user: only its own limit, or a thread, ends
        # that. (It waits by poll(), so SO_RCVTIMEO on its socket has no effect.)
        limit = CLEANING_LIMIT
        with nullcontext() if params.get("read_timeout") else ended_after(limit, self.guard.shut_down):
            self._reset(params)

    def _reset(self, params: Mapping[str, Any]) -> None:
        for batch in ["; ".join(FORGET)] if params.get("multi_statements", True) else FORGET:
            self._send(batch)
        password = params.get("passwd", params.get("password", ""))
        database = params.get("db", params.get("database", ""))
        super().change_user(params["user"], password, database)
        if command := params.get("init_command"):
            self._send(command)
        super().set_character_set(self.charset)
        if collation := params.get("collation"):
            self._send(f"SET NAMES {self.charset} COLLATE {collation}")
        if sql_mode := params.get("sql_mode"):
            self._send(f"SET SESSION sql_mode='{sql_mode}'")

    def _send(self, sql: str) -> None:
        """Run a statement, and discard its results."""
        send_and_wait(self, sql)
        super().discard_result()
        while super().next_result() != -1:
            super().discard_result()

    def _ask(self, seconds: float, question: bytes = QUESTION) -> None:
        # The C client's own ping waits without a limit.
        self.in_flight = True
        self._send_query(question)
        if not self.poller.poll(1000 * self._at_most(seconds)):
            raise self.OperationalError(*LOST)
        # First, because an error of the server is an answer, too.
        self.in_flight = False
        self._read_query_result()

    def _ask_for_role(self, seconds: float) -> tuple[Any, ...]:
        if self.shares_packets and self.params.get("multi_statements", True):
            self._ask(seconds, QUESTION + b";" + ROLE)
            next_result(self)
        else:
            self._ask(seconds)
            self._ask(seconds, ROLE)
        (row,) = store_result(self).fetch_row()
        return row  # type: ignore[no-any-return]

    def _at_most(self, seconds: float) -> float:
        """Return these seconds, or ``read_timeout`` if that is shorter."""
        return min(seconds, self.params.get("read_timeout") or seconds)

    def number_at_server(self) -> int:
        """Implement ``MySQLConnection.number_at_server()``."""
        return int(thread_id(self))

    def reason_to_close(self) -> str | None:
        # Flat, because each return passes through here.
        if reason := self.failure or self.unshareable:
            return reason
        if not self.open:
            return CLOSED
        encoders, converter, cursorclass = self.settings_at_rest
        if (
            self.encoders is not encoders
            or encoders.changed
            or self.converter is not converter
            or converter.changed
            or self.cursorclass is not cursorclass
            or (self.encoding != self.encoding_at_rest and not self.dirty)  # otherwise the reset sets it
        ):
            return SET_OTHERWISE
        if thread_id(self) != self.session:
            return "its driver has opened another session"
        if self.streams and not self.guard.intact:
            # The C client closes it when it finds the session dead. A cursor that is freed hides that error.
            return "its driver has closed its socket"
        # more_results() is new in mysqlclient 2.3. Without it, next_result() waits for the head of a further
        # result. If all was read it returns at once, and in the middle of a result the C client raises.
        if self.in_flight or (HAS_MORE_RESULTS and more_results(self)):
            return UNREAD
        if HAS_MORE_RESULTS and not (self.streams or self.awaits_result):  # all were stored as a whole
            return None
        try:
            return None if next_result(self) == -1 else UNREAD
        except MySQLdb.Error:
            return UNREAD


def has_more_options(params: Mapping[str, Any]) -> bool:
    """Return whether the C client has options that are not parameters: of a file, or a connection string."""
    # libmariadb takes a host with a semicolon for a connection string: "host=db;init-command=...".
    return bool(DEFAULTS_FILES & params.keys()) or ";" in str(params.get("host", ""))


def forbid_reconnect(driver: Any) -> None:
    """Switch off the automatic reconnect that an option outside of the parameters may switch on.

    With it, the C client opens another session by itself when the server has gone away, without an error.
    Only libmariadb reads that option. It takes two round trips.

    :param driver: the driver connection.
    """
    if MySQLdb.get_client_info().split(".")[0] in ORACLES_CLIENTS:
        return
    # The driver warns of any argument. The filter is for this module only, and is added only once.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=re.escape(__name__))
    # mysqlclient sets the option only if the value differs from the one that it has set before.
    driver.ping(True)
    driver.ping(False)


def connection_class() -> type[GuardedConnection]:
    """Return the class that a new connection gets in this process."""
    if not is_patched("socket"):
        return GuardedConnection
    from poollife.drivers.mysql.cooperative import cooperative

    return cooperative(GuardedConnection)


class MySQLClient(MySQLDriver):
    """The driver mysqlclient."""

    error = MySQLdb.MySQLError
    option_files = DEFAULTS_FILES

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Implement ``Driver.objection_to_lazy_begin()``."""
        if (entry.get("OPTIONS") or {}).get("multi_statements", True):
            return None
        return "leave it out, or OPTIONS['multi_statements']: two statements share a packet"

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        driver = self.unwrap(connection)
        if has_more_options(params):
            forbid_reconnect(driver)
        driver.params = params
        driver.session = driver.thread_id()
        driver.charset = params.get("charset") or driver.character_set_name()
        driver.in_flight = driver.streams = False
        install_guard(driver, connection_class(), Guard(pid, driver.fileno()))
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection if type(connection) is GuardedConnection else connection_of(connection, Connection)

    def idle_limit(self, connection: GuardedConnection) -> int:
        """Implement ``Driver.idle_limit()``."""
        connection.query(b"SELECT @@wait_timeout")
        return int(connection.store_result().fetch_row()[0][0])


driver = MySQLClient()
