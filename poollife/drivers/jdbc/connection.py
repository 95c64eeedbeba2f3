"""The guarded connection of JDBC, and its driver."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from poollife.drivers.connection import GuardedSocket, begin, guarded, live
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import CLOSED, HELD, Driver
from poollife.drivers.cursors import enter_lease
from poollife.drivers.effects import CHECKED, UNKNOWN
from poollife.drivers.jdbc import dbapi
from poollife.drivers.jdbc.cursors import Cursor, JDBCCursor
from poollife.drivers.jdbc.dialects import Dialect, dialect_of
from poollife.drivers.jdbc.jvm import Throwable, driver_class, enter_thread, java_class, jvm
from poollife.drivers.jdbc.sockets import descriptor_of
from poollife.drivers.marks import marks_of, restore
from poollife.drivers.verdicts import Verdict
from poollife.process.atfork import address
from poollife.process.guard import Guard, alive, getpid

#: A host of a URL, with its port if it has one. Drivers take lists of them.
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(\d+))?")


class JDBCConnection(GuardedSocket):
    """A connection of java.sql after the DB-API. It works only in the process that opened it."""

    InterfaceError, NotSupportedError = dbapi.InterfaceError, dbapi.NotSupportedError
    OperationalError, InternalError = dbapi.OperationalError, dbapi.InternalError
    Error = dbapi.Error
    #: The ``java.sql.Connection``.
    java: Any
    dialect: Dialect
    #: The effects of the statement that was read last.
    effects: int
    #: The state of autocommit in a clean session.
    autocommit_at_rest: bool
    #: ``writability()`` of a clean session.
    expected_writability: list[str] | None
    CHANGING: frozenset[str] = GuardedSocket.CHANGING | {
        *("java", "dialect", "effects", "autocommit_at_rest", "expected_writability"),
    }

    def __init__(self, java: Any, dialect: Dialect) -> None:
        """Take a connection of Java's. ``adopt()`` guards it.

        :param java: the ``java.sql.Connection``.
        :param dialect: that of its URL.
        """
        self.guard = Guard(getpid())
        self.java, self.dialect = java, dialect
        self.lease, self.effects = None, 0
        self.idle = False

    # --- the DB-API ------------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call Java, for a cursor or for the pool.

        :param function: a method of Java's, or a function that calls such methods.
        :raises Error: the DB-API's exception in place of Java's. It has no reference to an object of Java's:
            such a reference could reach another thread, a child or a pickle.
        """
        enter_thread()
        try:
            return function(*args)
        except Throwable as thrown:
            error = dbapi.error_of(thrown)
        except dbapi.Error:  # of a value that Java has no type for: nothing was sent
            raise
        except BaseException as other:
            self.note_failure(other)
            raise
        # Outside of the block: otherwise Java's exception would be its context.
        self.note_failure(error)
        raise error

    def cursor(self) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if lease is None:  # during the opening
            return Cursor(self)
        return enter_lease(JDBCCursor(self), self, lease)

    @guarded
    def commit(self) -> None:
        """Commit, unless autocommit is on: JDBC refuses that."""
        if not self.autocommit:
            self.call(self.java.commit)

    @guarded
    def rollback(self) -> None:
        """Roll back, unless autocommit is on: JDBC refuses that."""
        if not self.autocommit:
            self.call(self.java.rollback)

    @property
    def autocommit(self) -> bool:
        """True if each statement is a transaction. JDBC commits when it is switched on."""
        return bool(self.call(self.java.getAutoCommit))

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.check()
        self.call(self.java.setAutoCommit, value)

    @property
    def version(self) -> str:
        """The version of the database, such as "19.0"."""
        data = self.call(self.java.getMetaData)
        return f"{self.call(data.getDatabaseMajorVersion)}.{self.call(data.getDatabaseMinorVersion)}"

    def get_java_connection(self) -> Any:
        """Return the ``java.sql.Connection``. The session is closed at its return, and not lent again."""
        self.check()
        self.unshareable = "its java.sql.Connection was handed out"
        return self.java

    def tables(self) -> list[tuple[str, str]]:
        """Return the name of each table and view of the current database, with "t" or "v"."""
        self.check()
        return self.call(self._read_tables)  # type: ignore[no-any-return]

    def _read_tables(self) -> list[tuple[str, str]]:
        java = self.java
        rows = java.getMetaData().getTables(java.getCatalog(), java.getSchema(), "%", ["TABLE", "VIEW"])
        found = []
        while rows.next():
            found.append((str(rows.getString(3)), "v" if str(rows.getString(4)) == "VIEW" else "t"))
        rows.close()
        return found

    def close(self) -> None:
        """End the session; in a foreign process only abandon it."""
        if self.guard.foreign:
            self.abandon()
            return
        try:
            if not self.is_closed:
                # Some drivers commit an open transaction when they close.
                with suppress(dbapi.Error):
                    if self.failure is None and not self.autocommit:
                        self.call(self.java.rollback)
                self.call(self.java.close)
        finally:
            live.remove(self)

    @property
    def is_closed(self) -> bool:
        """True if the session was closed here, or its driver has found it dead. Sends nothing."""
        return bool(self.java.isClosed())

    # --- what the pool asks ----------------------------------------------------------------------------

    def note_statement(self, statement: Any, is_template: bool) -> None:
        """Note the effects of a statement, before it is sent.

        :param statement: the text.
        :param is_template: whether parameters are put into it.
        :raises InterfaceError: if the statement reads what another borrower's statement may have set.
        """
        try:
            effects = self.dialect.effects[is_template][statement]
        except TypeError:  # not hashable
            effects = UNKNOWN
        self.effects = effects
        if effects & CHECKED:
            self.note_effects(effects, statement)

    def told_by(self, statement: object, effects: int) -> str:  # type: ignore[override]  # by the dialect
        return self.dialect.told_by(statement, effects)

    def number_at_server(self) -> int | None:
        """Return the session's number at the server, if its driver has a method for it. Sends nothing."""
        for name in self.dialect.number_methods:
            if hasattr(self.java, name):
                return int(self.call(getattr(self.java, name)))
        return None

    def note_failure(self, error: BaseException) -> None:
        """Note, after an error, whether the session's state is still known."""
        if not isinstance(error, dbapi.Error):  # from outside, in the middle of a call
            verdict: Verdict | None = None
        else:
            verdict = self.dialect.verdict_on(error)
        if verdict is None or Verdict.LOST in verdict or self.is_closed:
            self.failure = f"{type(error).__name__}: {error}"
            self.lost = verdict is not None
        elif Verdict.READ_ONLY in verdict:
            found = self.writability()
            # If it is known and the same, the borrower's own READ ONLY transaction has refused the statement.
            self.failed_over = found is None or found != self.expected_writability

    def writability(self) -> list[str] | None:
        """Return what the server has reported of whether it takes writes. Sends nothing.

        :returns: None if the server does not report it, or the driver has no method for it.
        """
        if not (names := self.dialect.writability) or not hasattr(self.java, "getParameterStatus"):
            return None
        return [str(self.call(self.java.getParameterStatus, name)) for name in names]

    @property
    def begun(self) -> bool:
        """True if autocommit was changed by the driver's own method. (A BEGIN makes the session dirty.)"""
        return not self.is_closed and self.autocommit != self.autocommit_at_rest

    def mark_clean(self) -> None:
        self.dirty = False
        self.autocommit_at_rest = self.autocommit
        self.expected_writability = self.writability()
        self.marks_at_rest = marks_of(self, self.CHANGING)

    def reason_to_close(self) -> str | None:
        if reason := self.failure or self.unshareable:
            return reason
        return CLOSED if self.is_closed else None

    def clean(self) -> None:
        restore(self, self.marks_at_rest, self.CHANGING)
        autocommit = self.autocommit
        if not autocommit:
            self.call(self.java.rollback)
        elif self.dirty:
            self.run("ROLLBACK")
        self.dirty = False
        if autocommit != self.autocommit_at_rest:
            self.call(self.java.setAutoCommit, self.autocommit_at_rest)

    def run(self, sql: str) -> None:
        """Run a statement for the pool."""
        statement = self.call(self.java.createStatement)
        try:
            self.call(statement.execute, sql)
        finally:
            self.call(statement.close)

    def answers(self, seconds: float) -> bool:
        """Implement ``Guarded.answers()`` by ``Connection.isValid()``, which takes whole seconds."""
        self.check_process()
        try:
            return bool(self.call(self.java.isValid, max(1, math.ceil(seconds))))
        except dbapi.Error:
            return False


def connect(driver: str, url: str, properties: Mapping[str, Any], dialect: Dialect) -> JDBCConnection:
    """Open a session. The first call starts the JVM.

    :param driver: the class of the JDBC driver.
    :param url: the JDBC URL.
    :param properties: the driver's properties, ``user`` and ``password`` among them. Those that are None are
        left out.
    :param dialect: the kind of the database.
    :raises ImproperlyConfigured: there is no JVM, CLASSPATH does not have the driver, or the URL is not one
        of this driver's.
    :raises ForkedJVM: in a process that was forked from one with a JVM.
    :raises Error: the server was not reached, or refuses the session.
    """
    jvm.start()
    enter_thread()
    given = java_class("java.util.Properties")()
    for name, value in properties.items():
        if value is not None:
            # As Java writes it.
            given.setProperty(name, str(value).lower() if isinstance(value, bool) else str(value))
    try:
        java = driver_class(driver)().connect(url, given)
    except Throwable as thrown:
        error = dbapi.error_of(thrown)
    else:
        if java is None:
            # Only the beginning, because the URL may have a password.
            kind = url.partition("//")[0]
            raise ImproperlyConfigured(
                f"JDBC_URL begins with {kind!r}, which JDBC_DRIVER {driver!r} does not take."
            )
        return JDBCConnection(java, dialect)
    error.verdict = dialect.verdict_on_opening(error)
    raise error


class JDBC(Driver):
    """The driver of all databases behind JDBC."""

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        driver = self.unwrap(connection)
        begin(driver, Guard(pid, descriptor_of(driver.java)))
        driver.mark_clean()
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection_of(connection, JDBCConnection)

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Implement ``Driver.remote_addresses()`` for URLs with hosts behind "//"."""
        default = dialect_of(params["url"]).port
        hosts = re.split(r"[/;?]", params["url"].partition("//")[2])[0]
        found = ((host.strip("[]"), port or default) for host, port in _HOST.findall(hosts))
        return {address(host, int(port)) for host, port in found if port}

    def verdict(self, error: Exception) -> Verdict:
        """Implement ``Driver.verdict()``."""
        return error.verdict if isinstance(error, dbapi.Error) else Verdict.NONE


driver = JDBC()
