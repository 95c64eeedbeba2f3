"""The guarded connection of psycopg2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

import psycopg2
from psycopg2 import extensions

from poollife.drivers.connection import begin, ended_after, guarded, guarded_property, leaving, live
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedClasses, LeasedCursor, enter_lease, leased
from poollife.drivers.postgresql import poolers
from poollife.drivers.postgresql.connection import IDLE, REPORTED, PostgreSQLConnection
from poollife.drivers.postgresql.cursors import NamedCursor, ReadingCursor, is_own, sends_sql_unchanged
from poollife.drivers.postgresql.driver import PostgreSQLDriver, warn_if_blocking
from poollife.process.guard import Guard, alive, getpid

Connection: Any = extensions.connection
Cursor: Any = extensions.cursor


class UnreadCalls:
    """The calls of psycopg2's cursors that send something that nothing reads: they make the session dirty."""

    _driver: Any

    def copy_from(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_from, *args, **kwargs)  # type: ignore[misc]  # the driver's

    def copy_to(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_to, *args, **kwargs)  # type: ignore[misc]

    def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_expert, *args, **kwargs)  # type: ignore[misc]

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().callproc, *args, **kwargs)  # type: ignore[misc]

    def _unread(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        driver = self._driver
        self._check()  # type: ignore[attr-defined]  # that of LeasedCursor
        driver.note_unread()
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            driver.note_failure(error)
            raise


class Psycopg2Cursor(UnreadCalls, ReadingCursor):
    """A cursor whose rows the client has."""


class Psycopg2NamedCursor(UnreadCalls, NamedCursor):
    """A cursor on the server."""


class UnreadCursor(UnreadCalls, LeasedCursor):
    """A cursor of a class of the site's own, which may send another statement than it was given."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().execute, *args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().executemany, *args, **kwargs)


def _plain(cursor_class: type) -> type:
    return leased(cursor_class, Psycopg2Cursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


def _named(cursor_class: type) -> type:
    return leased(cursor_class, Psycopg2NamedCursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


CURSORS, NAMED_CURSORS = LeasedClasses(_plain, is_own), LeasedClasses(_named, is_own)


def session_wide(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's method that marks its session as dirty, and is refused behind a transaction pooler.

    :param method: one that sends a SET by itself in autocommit mode.
    """

    leaves = leaving(method)

    @wraps(method)
    def call(self: PostgreSQLConnection, *args: Any, **kwargs: Any) -> Any:
        if self.behind_pooler:
            raise self.InterfaceError(poolers.REFUSED_ATTRIBUTE)
        return leaves(self, *args, **kwargs)

    return call


class Psycopg2Connection(PostgreSQLConnection):
    """A connection that works only in the process that opened it, and says whether it may be reused.

    ``guarded_factory()`` puts it before the class that ``connection_factory`` names.
    """

    CHANGING = PostgreSQLConnection.CHANGING | {"cursor_factory"}
    #: Attributes of the driver.
    cursor_factory: Any
    encoding: str
    notices: list[Any]
    notifies: list[Any]

    commit = guarded(Connection.commit)
    rollback = guarded(Connection.rollback)
    reset = guarded(leaving(Connection.reset))
    set_session = guarded(session_wide(Connection.set_session))
    set_client_encoding = guarded(leaving(Connection.set_client_encoding))
    set_isolation_level = guarded(session_wide(Connection.set_isolation_level))
    lobject = guarded(leaving(Connection.lobject))
    tpc_prepare = guarded(Connection.tpc_prepare)
    tpc_commit = guarded(leaving(Connection.tpc_commit))
    tpc_rollback = guarded(leaving(Connection.tpc_rollback))
    poll = guarded(Connection.poll)
    autocommit = guarded_property(Connection, "autocommit")
    isolation_level = guarded_property(Connection, "isolation_level", session_wide)
    readonly = guarded_property(Connection, "readonly", session_wide)
    deferrable = guarded_property(Connection, "deferrable", session_wide)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The destructor asks for it if connect() fails.
        self.guard = Guard(getpid())
        self.lease = self.reader = self.unshareable = None
        self.idle = False
        self.effects = 0
        super().__init__(*args, **kwargs)

    def __exit__(self, *error: Any) -> Any:
        self.check()
        return super().__exit__(*error)  # type: ignore[misc]  # the driver's

    def close(self) -> None:
        """End the session; in a foreign process only abandon it."""
        if self.guard.foreign:
            self.abandon()
            return
        try:
            super().close()  # type: ignore[misc]  # the driver's
        finally:
            live.remove(self)

    def cancel(self) -> None:
        """Cancel the statement that runs, unless the session is another process's."""
        if not self.guard.foreign and self.lease is not None:
            super().cancel()  # type: ignore[misc]

    # A two-phase transaction, once it is prepared, is no longer the session's: nothing here could end it.
    def tpc_begin(self, *args: Any) -> None:
        self.check()
        self.unshareable = "it was part of a two-phase transaction"
        super().tpc_begin(*args)  # type: ignore[misc]

    def tpc_recover(self) -> Any:
        self.check()
        self.unshareable = "it was part of a two-phase transaction"
        return super().tpc_recover()  # type: ignore[misc]

    def cursor(self, name: str | None = None, cursor_factory: Any = None, **kwargs: Any) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        factory = cursor_factory or self.cursor_factory or Cursor
        if lease is None:
            return super().cursor(name, cursor_factory=factory, **kwargs)  # type: ignore[misc]
        classes = NAMED_CURSORS if name else CURSORS
        cursor = super().cursor(name, cursor_factory=classes[factory], **kwargs)  # type: ignore[misc]
        return enter_lease(cursor, self, lease)

    @guarded
    def get_native_connection(self) -> Any:
        self.unshareable = "its native connection was handed out"
        return super().get_native_connection()  # type: ignore[misc]

    # --- what the pool asks --------------------------------------------------------------------------------

    def text_of(self, query: Any) -> Any:
        """Return a statement's text. A composed one is made from its parts."""
        return query.as_string(self) if isinstance(query, psycopg2.sql.Composable) else query

    @property
    def transaction_status(self) -> int:
        return int(self.get_transaction_status())  # type: ignore[attr-defined]

    @property
    def is_open(self) -> bool:
        return not self.closed  # type: ignore[attr-defined]

    def reported(self, name: str) -> Any:
        return self.get_parameter_status(name)  # type: ignore[attr-defined]

    def reports(self) -> tuple[Any, ...]:
        return tuple(map(self.reported, REPORTED))

    def settings(self) -> tuple[Any, ...]:
        types = dict(self.string_types), dict(self.binary_types)  # type: ignore[attr-defined]
        return (
            self.isolation_level,
            self.readonly,
            self.deferrable,
            self.cursor_factory,
            self.encoding,
            *types,
        )

    def driver_fault(self) -> str | None:
        return None

    def set_autocommit_again(self, value: bool) -> None:
        if Connection.autocommit.__get__(self) != value:
            Connection.autocommit.__set__(self, value)

    def clean(self) -> None:
        super().clean()
        self.notices, self.notifies = [], []

    def reset_session(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        super().reset_session(ask)
        self.notices, self.notifies = [], []

    def roll_back(self, seconds: float) -> None:
        if self.autocommit:
            self.run("ROLLBACK", seconds)
        else:
            with ended_after(self.guard, seconds):
                Connection.rollback(self)

    def run(self, sql: str, seconds: float) -> list[tuple[Any, ...]]:
        """Implement ``PostgreSQLConnection.run()``: the driver sends no empty statement, but the smallest.

        The driver has no limit for one call. A thread ends the socket when the time is over.
        """
        autocommit, is_idle = self.autocommit, self.transaction_status == IDLE
        if is_idle:  # otherwise the driver would begin a transaction
            self.set_autocommit_again(True)
        try:
            with ended_after(self.guard, seconds):
                cursor = Cursor(self)
                cursor.execute(sql or "SELECT 1")
                rows = cursor.fetchall() if cursor.description else []
                cursor.close()
                return rows
        finally:
            if is_idle and self.is_open:
                self.set_autocommit_again(autocommit)


@cache
def guarded_factory(factory: type) -> type:
    """Return the guarded subclass of a class of connections.

    :param factory: psycopg2's, or a subclass of the site's own.
    """
    return type(f"Guarded{factory.__name__}", (Psycopg2Connection, factory), {})


class Psycopg2(PostgreSQLDriver):
    """The driver psycopg2."""

    error = psycopg2.Error

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Implement ``Driver.objection_to_lazy_begin()``: psycopg2 sends each BEGIN by itself, in C."""
        return "leave it out, or use psycopg 3: psycopg2 sends BEGIN by itself"

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
