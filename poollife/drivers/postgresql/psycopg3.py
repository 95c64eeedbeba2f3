"""The driver psycopg 3, and its connections with ``POOL["lazy_begin"]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from poollife.drivers.connection import begin
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.cursors import LeasedCursor, enter_lease
from poollife.drivers.postgresql.connection import IDLE
from poollife.drivers.postgresql.driver import PostgreSQLDriver, warn_if_blocking
from poollife.drivers.postgresql.psycopg3_connection import Adapters, GuardedConnection
from poollife.drivers.postgresql.psycopg3_cursors import LAZY_CURSORS, NAMED_CURSORS
from poollife.drivers.postgresql.transactions import BeginningConnection
from poollife.process.guard import Guard

#: The functions of psycopg by which it waits with Python's own modules, which gevent patches.
COOPERATIVE = {"wait_poll", "wait_select", "wait_selector", "wait_epoll"}


class LazyConnection(GuardedConnection, BeginningConnection):
    """A guarded connection with ``POOL["lazy_begin"]``: a first statement has the BEGIN in its packet.

    psycopg stays in its own mode, in which it sends a BEGIN before such a statement.
    """

    CURSORS = LAZY_CURSORS
    #: True if the statement that psycopg begins has the BEGIN in its text.
    has_begin: bool
    CHANGING = GuardedConnection.CHANGING | BeginningConnection.CHANGING | {"has_begin"}

    @property
    def is_due(self) -> bool:
        # executemany() has a pipeline, which takes one statement at a time.
        return not self._autocommit and self._pipeline is None and self.transaction_status == IDLE

    def begin_statement(self) -> bytes:
        return self._get_tx_start_command()

    def take_begin(self, cursor: Any) -> tuple[bytes, ...]:
        """Return the statements in front of a cursor's own. If there are any, psycopg sends no BEGIN.

        :param cursor: the cursor that runs a statement.
        """
        first = self.first_statements(cursor)
        self.has_begin = bool(first)
        return first

    def _start_query(self) -> Any:
        if not self.has_begin:
            yield from super()._start_query()
            for statement in self.savepoints:
                yield from self._exec_command(statement)
            self.savepoints = ()

    def _known(self, method: Any, *args: Any) -> Any:
        # The end of a transaction, and a change of autocommit.
        self.savepoints = ()
        return super()._known(method, *args)

    def set_autocommit_again(self, value: bool) -> None:
        self.savepoints = ()
        super().set_autocommit_again(value)

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        # psycopg looks at the transaction's status, and so whether this block is an inner one.
        if self.savepoints:
            with self.lock:
                self.wait(self._start_query())
        with super().transaction(*args, **kwargs) as block:
            yield block


class Psycopg3(PostgreSQLDriver):
    """The driver psycopg, version 3."""

    error = psycopg.Error

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Implement ``Driver.objection_to_lazy_begin()``."""
        if (entry.get("OPTIONS") or {}).get("server_side_binding"):
            return "leave it out, or OPTIONS['server_side_binding']: the server binds in one statement only"
        return None

    def begin_lazily(self, connection: GuardedConnection) -> None:
        """Implement ``Driver.begin_lazily()``."""
        lazy: Any = connection
        lazy.has_begin, lazy.shares_packets, lazy.savepoints = False, True, ()
        lazy.__class__ = LazyConnection
        lazy.mark_clean()

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``."""
        warn_if_blocking(
            getattr(psycopg.waiting.wait, "__name__", "") not in COOPERATIVE,
            "Import psycopg after gevent.monkey.patch_all(), with psycopg 3.2 or later.",
        )
        driver = self.unwrap(connection)
        driver.reader = driver.unshareable = None
        driver.effects = driver.blocks = 0
        driver.own_adapters = Adapters(driver.adapters)
        begin(driver, Guard(pid, driver.fileno()), GuardedConnection)
        driver.note_birth()
        return connection

    def guard_cursor(self, cursor: Any, lease: Any) -> None:
        """Implement ``PostgreSQLDriver.guard_cursor()``."""
        if isinstance(cursor, psycopg.Cursor) and not isinstance(cursor, LeasedCursor):
            cursor.__class__ = NAMED_CURSORS[type(cursor)]
            enter_lease(cursor, lease.driver, lease)

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        is_plain = type(connection) is GuardedConnection
        return connection if is_plain else connection_of(connection, psycopg.Connection)


driver = Psycopg3()
