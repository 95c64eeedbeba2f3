"""The guarded connection of psycopg2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

import psycopg2

from poollife.drivers.connection import ended_after, guarded, guarded_property, leaving, live
from poollife.drivers.contract import HELD
from poollife.drivers.cursors import enter_lease
from poollife.drivers.postgresql import poolers
from poollife.drivers.postgresql.connection import IDLE, REPORTED, PostgreSQLConnection
from poollife.drivers.postgresql.psycopg2_cursors import CURSORS, NAMED_CURSORS, Connection, Cursor
from poollife.process.guard import Guard, alive, getpid


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
    CURSORS, NAMED_CURSORS = CURSORS, NAMED_CURSORS
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
        # Django sets an isolation level before adopt() is called.
        self.idle = self.behind_pooler = False
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
        classes = self.NAMED_CURSORS if name else self.CURSORS
        cursor = super().cursor(name, cursor_factory=classes[factory], **kwargs)  # type: ignore[misc]
        return enter_lease(cursor, self, lease)

    @guarded
    def get_native_connection(self) -> Any:
        self.unshareable = "its native connection was handed out"
        return super().get_native_connection()  # type: ignore[misc]

    def begin_alone(self) -> None:
        """Begin the transaction that is due, before a statement that can't share its packet."""

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
            with ended_after(seconds, self.guard.shut_down):
                Connection.rollback(self)

    def run(self, sql: str, seconds: float) -> list[tuple[Any, ...]]:
        """Implement ``PostgreSQLConnection.run()``: the driver sends no empty statement, but the smallest.

        The driver has no limit for one call. A thread ends the socket when the time is over.
        """
        autocommit, is_idle = self.autocommit, self.transaction_status == IDLE
        if is_idle:  # otherwise the driver would begin a transaction
            self.set_autocommit_again(True)
        try:
            with ended_after(seconds, self.guard.shut_down):
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
