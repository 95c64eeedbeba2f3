"""SQLite: a connection whose handle no child ever touches.

SQLite has no socket. A child inherits something worse: SQLite's record of the file locks that the parent
holds. When a child closed or freed a handle, or just ended normally, databases became malformed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, wraps
from typing import Any, NamedTuple

from poollife import clock
from poollife.drivers.connection import guarded, guarded_property, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import CLOSED, HELD, Driver, Guarded
from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.effects import CHECKED, INSERT_ID, LAST_STATEMENT, MAY_SET_INSERT_ID, SETS, UNKNOWN
from poollife.drivers.marks import marks_of, restore
from poollife.drivers.sqlite.statements import EFFECTS, set_by_script, told_by
from poollife.errors import ForkedTransaction
from poollife.process.atfork import HANDSHAKE_WAIT, at_fork
from poollife.process.guard import Guard, WeakRegistry, alive, getpid

#: The driver's attribute without the guard, for the pool: it has connections that no lease has.
ISOLATION_LEVEL: Any = sqlite3.Connection.isolation_level


def inside(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a connection or a cursor that counts its thread as being inside SQLite."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        connection = self if isinstance(self, GuardedConnection) else self.connection
        connection.enter()
        try:
            return method(self, *args, **kwargs)
        finally:
            connection.calls -= 1

    return call


def inside_leaving(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a connection that marks the handle as dirty, because it leaves state there."""
    return leaving(inside(method))


def reading(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cursor's method that reads a statement before it runs the statement."""

    @wraps(method)
    def call(self: Any, statement: Any, *args: Any) -> Any:
        connection = self.connection
        try:
            effects = EFFECTS[statement]
        except TypeError:  # not hashable, so no text
            effects = UNKNOWN
        if effects & CHECKED:
            connection.note_effects(effects, statement)
        changes = connection.total_changes
        result = method(self, statement, *args)
        connection.ran |= effects & SETS
        # An INSERT OR IGNORE may insert nothing.
        if effects & MAY_SET_INSERT_ID and connection.total_changes != changes:
            connection.ran |= INSERT_ID
        return result

    return call


class MarkedCursor(sqlite3.Cursor):
    """A cursor that marks its connection: while its thread is inside SQLite, and if it may leave state."""

    execute = reading(inside(sqlite3.Cursor.execute))
    executemany = reading(inside(sqlite3.Cursor.executemany))
    executescript = inside(sqlite3.Cursor.executescript)
    fetchone = inside(sqlite3.Cursor.fetchone)
    fetchmany = inside(sqlite3.Cursor.fetchmany)
    fetchall = inside(sqlite3.Cursor.fetchall)
    close = inside(sqlite3.Cursor.close)


class LeasedSQLiteCursor(LeasedCursor):
    """A cursor that ends with its lease. Its connection knows it while it may hold a lock."""

    def execute(self, *args: Any) -> Any:
        try:
            return super().execute(*args)
        finally:
            self._driver.cursors.add(self)

    def executemany(self, *args: Any) -> Any:
        try:
            return super().executemany(*args)
        finally:
            self._driver.cursors.add(self)

    def executescript(self, script: str) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        self._driver.dirty = True
        changes = self._driver.total_changes
        try:
            return super().executescript(script)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise
        finally:
            self._driver.cursors.add(self)
            self._driver.ran |= LAST_STATEMENT
            if self._driver.total_changes != changes:
                self._driver.ran |= set_by_script(script)

    def close(self) -> None:
        super().close()
        self._driver.cursors.discard(self)


class GuardedConnection(Guarded, sqlite3.Connection):
    """A connection that works only in the process that opened it. It is the ``factory`` of sqlite3."""

    InterfaceError, NotSupportedError = sqlite3.InterfaceError, sqlite3.NotSupportedError
    CHANGING = Guarded.CHANGING | {"path", "calls", "level_at_rest", "factories_at_rest"}
    told_by = staticmethod(told_by)
    #: The database's name, as given.
    path: str
    #: The isolation level of a clean session.
    level_at_rest: Any
    #: The row factory and the text factory of a clean session.
    factories_at_rest: tuple[Any, Any]
    #: The number of calls of its thread that are under way in SQLite.
    calls: int

    backup = guarded(inside(sqlite3.Connection.backup))
    # The blob that it returns reads and writes without the connection, after the lease as during it.
    blobopen = guarded(inside_leaving(sqlite3.Connection.blobopen))
    commit = guarded(inside(sqlite3.Connection.commit))
    create_aggregate = guarded(inside_leaving(sqlite3.Connection.create_aggregate))
    create_collation = guarded(inside_leaving(sqlite3.Connection.create_collation))
    create_function = guarded(inside_leaving(sqlite3.Connection.create_function))
    iterdump = guarded(inside(sqlite3.Connection.iterdump))
    rollback = guarded(inside(sqlite3.Connection.rollback))
    deserialize = guarded(inside_leaving(sqlite3.Connection.deserialize))
    serialize = guarded(inside(sqlite3.Connection.serialize))
    create_window_function = guarded(inside_leaving(sqlite3.Connection.create_window_function))
    set_authorizer = guarded(inside_leaving(sqlite3.Connection.set_authorizer))
    set_progress_handler = guarded(inside_leaving(sqlite3.Connection.set_progress_handler))
    set_trace_callback = guarded(inside_leaving(sqlite3.Connection.set_trace_callback))
    setlimit = guarded(inside_leaving(sqlite3.Connection.setlimit))
    __call__ = guarded(inside(sqlite3.Connection.__call__))
    __exit__ = guarded(inside(sqlite3.Connection.__exit__))
    # An assignment to these attributes can commit.
    isolation_level = guarded_property(sqlite3.Connection, "isolation_level", inside)
    if hasattr(sqlite3.Connection, "autocommit"):  # Python 3.12
        autocommit = guarded_property(sqlite3.Connection, "autocommit", inside_leaving)
        setconfig = guarded(inside_leaving(vars(sqlite3.Connection)["setconfig"]))
    if hasattr(sqlite3.Connection, "load_extension"):  # an option of the interpreter's build
        enable_load_extension = guarded(inside_leaving(sqlite3.Connection.enable_load_extension))
        load_extension = guarded(inside_leaving(sqlite3.Connection.load_extension))

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        self.guard = Guard(getpid())
        self.note_opening()
        #: The lease's cursors that may hold a lock on the file.
        self.cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        self.calls = 0
        self.path = str(database)
        super().__init__(database, *args, **kwargs)
        self.mark_clean()
        self.born = self.idle_since = clock.monotonic()
        live.add(self)

    # The driver's methods would make a cursor that outlives its lease.
    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if lease is None:  # during the opening
            return super().cursor(marked(factory))
        cursor = super().cursor(CURSORS[factory])
        # As enter_lease() does it, with one call less.
        cursor._driver, cursor._lease, cursor._is_open = self, lease, True
        lease.open_cursors += 1
        lease.untracked_cursors += 1
        lease.paused = None
        return cursor

    def enter(self) -> None:
        """Count a call into SQLite. Wait for a fork under way, unless the fork waits for this thread."""
        self.calls += 1
        # The count comes first here, and the gate comes first at a fork: one of the two sees the other.
        if at_fork.gate.closed and not self.holds_locks():
            self.calls -= 1
            at_fork.gate.wait()
            self.calls += 1

    def close(self) -> None:
        if not self.guard.foreign:
            live.remove(self)
            self.enter()
            try:
                super().close()
            finally:
                self.calls -= 1

    def holds_locks(self) -> bool:
        """Return whether this connection may hold locks on the file."""
        return self.in_transaction or bool(self.lease and self.cursors)

    @property
    def begun(self) -> bool:
        """True while a transaction is open. If Django knows of none, a BEGIN by hand has begun it."""
        return not self.reason_to_close() and self.in_transaction

    def in_use(self) -> bool:
        """Return whether this connection holds locks, or its thread may be taking one."""
        return bool(self.calls) or self.holds_locks()

    def mark_clean(self) -> None:
        """Record the present state as that of a clean session."""
        self.dirty = False
        self.level_at_rest = self.isolation_level
        self.factories_at_rest = self.row_factory, self.text_factory
        self.marks_at_rest = marks_of(self, self.CHANGING)

    def end_cursors(self) -> None:
        """Close the open cursors: one that was not read to its end holds a lock on the file."""
        for cursor in list(self.cursors):
            with suppress(sqlite3.ProgrammingError):  # its borrower has closed the connection
                MarkedCursor.close(cursor)
        self.cursors.clear()

    def reason_to_close(self) -> str | None:
        """Return why this connection can't be lent again, or None if it can."""
        try:
            self.total_changes  # noqa: B018  # the property raises for a closed connection
        except sqlite3.ProgrammingError:
            return CLOSED
        return None

    def clean(self) -> None:
        """End the transaction and remove the borrower's marks."""
        if type(self) is GuardedConnection:  # a "factory" of the site's own may have attributes of its own
            restore(self, self.marks_at_rest, self.CHANGING)
        if self.in_transaction:
            inside(sqlite3.Connection.rollback)(self)
        ISOLATION_LEVEL.__set__(self, self.level_at_rest)
        self.row_factory, self.text_factory = self.factories_at_rest

    def reset_session(self, ask: Callable[[], Mapping[str, Any] | None]) -> None:
        """Refuse: SQLite has no reset, and another handle is cheap.

        :raises NotSupportedError: always.
        """
        raise sqlite3.NotSupportedError("SQLite can't forget what was done to a handle")

    def answers(self, seconds: float) -> bool:
        """Return whether the handle still works."""
        try:
            super().execute("SELECT 1")
        except sqlite3.Error:
            return False
        return True


@cache
def marked(cursor_class: type[sqlite3.Cursor]) -> type[sqlite3.Cursor]:
    """Return a subclass of a cursor class that has the methods of ``MarkedCursor`` below it."""
    if issubclass(MarkedCursor, cursor_class):
        return MarkedCursor
    return type(cursor_class.__name__, (cursor_class, MarkedCursor), {})


#: The leased class of each cursor class.
CURSORS = LeasedClasses(
    lambda factory: leased(marked(factory), LeasedSQLiteCursor), {"sqlite3", "builtins"}.__contains__
)


@cache
def guarded_factory(factory: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    """Return the guarded subclass of a connection class."""
    if factory is sqlite3.Connection:
        return GuardedConnection
    return type(f"Guarded{factory.__name__}", (GuardedConnection, factory), {})


class SQLite(Driver):
    """The driver sqlite3 of Python. It has no server that could be unreachable, full, or refuse a user."""

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``: the factory has made it a guarded one."""
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        return connection_of(connection, sqlite3.Connection)


driver = SQLite()


def check_safe_after_fork(database: Any) -> None:
    """Refuse a database that the parent was using when it forked this process.

    :param database: the database's name.
    :raises ForkedTransaction: if the parent was using it.
    """
    if str(database) in unsafe_after_fork or ALL_DATABASES in unsafe_after_fork:
        raise ForkedTransaction(
            f"Process {getpid()} was forked while its parent had a transaction or an open cursor on the "
            f"SQLite database {str(database)!r}, so it can't use that database safely. Fork outside of "
            f"transaction.atomic() and with cursors closed, or start the process by spawn."
        )


class Inheritance(NamedTuple):
    """The connections and databases that a child must not touch."""

    connections: list[GuardedConnection]
    databases: set[str]


class Inherited:
    """The fork participant of the driver: it abandons the parent's connections in a child."""

    def settle(self) -> None:
        """Wait, for ``HANDSHAKE_WAIT`` seconds at most, until no other thread uses a connection."""
        deadline = clock.monotonic() + HANDSHAKE_WAIT
        while self._is_used_by_other_thread(live.strong_references()) and clock.monotonic() < deadline:
            time.sleep(0.001)

    def strong_references(self) -> Inheritance:
        connections = live.strong_references()
        unsafe = {connection.path for connection in connections if connection.in_use()}
        if self._is_used_by_other_thread(connections):
            # That thread may be inside SQLite, and hold one of its global mutexes.
            unsafe.add(ALL_DATABASES)
        return Inheritance(connections, unsafe)

    def abandon(self, held: Inheritance) -> None:
        for connection in held.connections:
            connection.abandon()
        unsafe_after_fork.update(held.databases)
        live.forget()

    @staticmethod
    def _is_used_by_other_thread(connections: list[GuardedConnection]) -> bool:
        """Return whether another thread uses one of these connections at the moment."""
        me = threading.current_thread()
        return any(
            connection.in_use()
            for connection in connections
            if (lease := connection.lease) and lease.thread is not me
        )


live: WeakRegistry[GuardedConnection] = WeakRegistry()
#: The entry of ``unsafe_after_fork`` for all databases; no database has this name.
ALL_DATABASES = "\0"
#: Names of databases that this process can't use, because its parent was using them at the fork.
unsafe_after_fork: set[str] = set()
at_fork.join(Inherited())
