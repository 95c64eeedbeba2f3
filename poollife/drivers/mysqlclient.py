"""mysqlclient: the guarded connection."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import Any

import MySQLdb
from MySQLdb.connections import Connection
from MySQLdb.converters import conversions

from poollife.drivers.connection import guarded, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.cursors import LeasedCursor, leased
from poollife.drivers.guard import Guard
from poollife.drivers.mysql import (
    LOST,
    QUESTION,
    MySQLConnection,
    ReadingCursor,
    become,
    is_greened,
    means_unreachable,
    peers,
    sending,
    vouches,
)

__all__ = ["GuardedConnection", "adopt", "idle_limit", "peers", "unreachable", "unwrap"]

if not hasattr(MySQLdb, "_mysql"):
    raise ImportError(
        f"poollife guards mysqlclient's connections; here MySQLdb is something else ({MySQLdb.__file__}). "
        f"Install mysqlclient, or leave out what takes its name (pymysql.install_as_MySQLdb()). "
        f"PyMySQL has an ENGINE of its own: poollife.backends.mysql_pymysql."
    )

#: Parameters that name files with more parameters in them.
DEFAULTS_FILES = {"read_default_file", "read_default_group"}
#: What a change of user does not end: a distributed transaction (this only fails in one, so that the session
#: is closed), a role, and what FOUND_ROWS() says.
FORGET = ("ROLLBACK", "SET ROLE NONE", "SELECT 1")


@cache
def class_for(cursor_class: type, makes_literals: bool) -> type:
    """What a lease's cursors of that class are: one of somebody's own may send other than it was told to."""
    return leased(cursor_class, ReadingCursor if vouches(cursor_class, makes_literals) else LeasedCursor)


class GuardedConnection(MySQLConnection, Connection):  # type: ignore[misc]  # mysqlclient is not typed
    """A connection that works only in the process that opened it, and knows whether it may be reused.

    Made by ``adopt()`` from what ``MySQLdb.connect`` returned, by assigning its class: so ``connect`` is
    called as Django calls it, and whoever has wrapped it (APM tools do) sees every connection.
    """

    #: Whether a query was sent and its answer was not read yet, which the C client does not know.
    in_flight: bool
    #: What ``connect`` was called with.
    params: dict[str, Any]
    #: The character set to come back to.
    charset: str
    #: mysqlclient's own.
    OperationalError: Any

    class_for = staticmethod(class_for)
    conversions = conversions
    SETTINGS = ("encoders", "converter", "cursorclass")
    settings = attrgetter(*SETTINGS)
    _rollback, _autocommit = Connection.rollback, Connection.autocommit
    _send_query, _read_query_result = Connection.send_query, Connection.read_query_result
    count_warnings = Connection.warning_count

    commit = guarded(Connection.commit)
    rollback = guarded(Connection.rollback)
    autocommit = guarded(Connection.autocommit)
    ping = guarded(Connection.ping)
    store_result = guarded(Connection.store_result)
    discard_result = guarded(Connection.discard_result)
    select_db = guarded(leaving(Connection.select_db))
    set_character_set = guarded(leaving(Connection.set_character_set))
    kill = guarded(Connection.kill)
    shutdown = guarded(Connection.shutdown)
    stat = guarded(Connection.stat)
    dump_debug_info = guarded(Connection.dump_debug_info)
    use_result = guarded(Connection.use_result)

    query = sending(Connection.query)

    def _begin_query(self, query: bytes | str) -> None:
        self.in_flight = True
        super().send_query(query)

    send_query = sending(_begin_query, answered=False)

    @guarded
    def read_query_result(self) -> None:
        super().read_query_result()
        self.in_flight = False
        self.note_answer()

    @guarded
    def change_user(self, *args: Any, **kwargs: Any) -> None:
        self.broken = "it was given to another user"
        super().change_user(*args, **kwargs)

    @guarded
    def set_server_option(self, option: int) -> None:
        self.broken = "an option of its protocol was set"
        super().set_server_option(option)

    @guarded
    def next_result(self) -> int:
        status: int = super().next_result()
        if status != -1:
            # Several statements in one string, or a procedure.
            self.dirty = True
        return status

    def reset(self) -> None:
        """Have the server forget all, and repeat what ``connect`` did: three round trips at least."""
        params = self.params
        if "user" not in params or DEFAULTS_FILES & params.keys():
            raise MySQLdb.NotSupportedError("what a new session begins with is not in its parameters")
        for batch in ["; ".join(FORGET)] if params.get("multi_statements", True) else FORGET:
            self._send(batch)
        password = params.get("password", params.get("passwd", ""))
        database = params.get("database", params.get("db", ""))
        super().change_user(params["user"], password, database)
        if command := params.get("init_command"):
            self._send(command)
        super().set_character_set(self.charset)
        if collation := params.get("collation"):
            self._send(f"SET NAMES {self.charset} COLLATE {collation}")
        if sql_mode := params.get("sql_mode"):
            self._send(f"SET SESSION sql_mode='{sql_mode}'")

    def _send(self, sql: str) -> None:
        """Run it, and throw away its results."""
        super().query(sql)
        super().discard_result()
        while super().next_result() != -1:
            super().discard_result()

    def _ask(self, seconds: float) -> None:
        # The C client's own ping waits for as long as it takes.
        self.in_flight = True
        self._send_query(QUESTION)
        if not self.poller.poll(1000 * self._at_most(seconds)):
            raise self.OperationalError(*LOST)
        self._read_query_result()
        self.in_flight = False

    def _at_most(self, seconds: float) -> float:
        """So long, or for as long as its own user waits for an answer."""
        return min(seconds, self.params.get("read_timeout") or seconds)

    def _has_unread(self) -> bool:
        """Whether a result, or a part of one, was left behind. Sends nothing."""
        # more_results() is new in mysqlclient 2.3. Without it, next_result() waits for the head of a further
        # result; where all was read it says so at once, and in the middle of a result the C client refuses.
        if self.in_flight or more_results(self):
            return True
        try:
            return bool(next_result(self) != -1)
        except MySQLdb.Error:
            return True


def adopt(connection: Any, pid: int, params: dict[str, Any]) -> Any:
    """See ``Driver.adopt``."""
    driver = unwrap(connection)
    driver.params = params
    driver.charset = params.get("charset") or driver.character_set_name()
    driver.in_flight = False
    become(driver, connection_class(), Guard(pid, driver.fileno()))
    return connection


def connection_class() -> type[GuardedConnection]:
    """What a new connection becomes in this process."""
    if not is_greened():
        return GuardedConnection
    from poollife.drivers.greenlets import cooperative

    return cooperative(GuardedConnection)


def unwrap(connection: Any) -> Any:
    """See ``Driver.unwrap``."""
    # The usual case, asked twice in each checkout.
    return connection if type(connection) is GuardedConnection else connection_of(connection, Connection)


def unreachable(error: Exception) -> bool | None:
    """See ``Driver.unreachable``."""
    return isinstance(error, MySQLdb.MySQLError) and means_unreachable(error)


def idle_limit(connection: GuardedConnection) -> int:
    """Seconds after which the server ends an idle session."""
    connection.query(b"SELECT @@wait_timeout")
    return int(connection.store_result().fetch_row()[0][0])


#: The driver's own, for the pool.
next_result = Connection.next_result
more_results = getattr(Connection, "more_results", lambda connection: False)
