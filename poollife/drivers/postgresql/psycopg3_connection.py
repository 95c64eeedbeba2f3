"""The guarded connection of psycopg 3."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap

from poollife import clock
from poollife.drivers.connection import live
from poollife.drivers.contract import HELD
from poollife.drivers.cursors import ENDED, enter_lease
from poollife.drivers.postgresql.connection import REPORTED, PostgreSQLConnection
from poollife.drivers.postgresql.psycopg3_cursors import CURSORS, NAMED_CURSORS
from poollife.process.guard import alive

FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)
#: The driver's property, which sends nothing.
AUTOCOMMIT: Any = psycopg.Connection.autocommit
#: The names of REPORTED, as libpq takes them.
REPORTED_AS_BYTES = [name.encode() for name in REPORTED]
IDLE_PIPELINE = pq.PipelineStatus.OFF


class Adapters(AdaptersMap):
    """The adapters of one connection, which know whether code has registered others."""

    changed = False

    def register_dumper(self, *args: Any, **kwargs: Any) -> None:
        self.changed = True
        super().register_dumper(*args, **kwargs)

    def register_loader(self, *args: Any, **kwargs: Any) -> None:
        self.changed = True
        super().register_loader(*args, **kwargs)


class GuardedConnection(psycopg.Connection[Any], PostgreSQLConnection):
    """A connection that works only in the process that opened it, and says whether it may be reused.

    ``adopt()`` makes it from the result of ``psycopg.connect()``, by assigning the class. All that psycopg
    sends passes ``lock`` and ``wait()``: what a part of it sends that has no guard of its own makes the
    session dirty.
    """

    #: The adapters of the connection.
    own_adapters: Adapters
    #: The number of ``transaction()`` blocks that are open.
    blocks: int
    CURSORS = CURSORS
    #: Names of the driver's own attributes. Those that a borrower can set are compared by ``settings()``.
    CHANGING = PostgreSQLConnection.CHANGING | frozenset(
        {"own_adapters", "blocks", "lock", "pgconn", "row_factory", "cursor_factory", "server_cursor_factory"}
        | {"_autocommit", "_adapters", "_notice_handlers", "_notify_handlers", "_num_transactions", "_closed"}
        | {"_prepared", "_tpc", "_notifies_backlog", "_pipeline", "_isolation_level", "_read_only"}
        | {"_deferrable", "_begin_statement", "_pool", "_created_at", "_expire_at"}
    )

    # --- the guard -----------------------------------------------------------------------------------------

    @property
    def lock(self) -> Any:  # type: ignore[override]
        """The driver's lock, but another one without a lease and in a child.

        The parent's may be held for ever. It is no error to take the lock: generators that are freed late do.
        ``wait()`` refuses to work.
        """
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            try:
                self.check()
            except self.InterfaceError:
                return threading.Lock()
        return self.__dict__["lock"]

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the server's answer, as the driver does."""
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if (reader := self.reader) is None:
            self.note_unread()
        elif reader is not self and reader._lease is not lease:
            # Its lease ended after the check that the cursor made.
            raise self.InterfaceError(ENDED)
        try:
            return super().wait(*args, **kwargs)
        except BaseException as error:
            self.note_failure(error)
            raise

    def close(self) -> None:
        """End the session; in a foreign process only abandon it."""
        if self.guard.foreign:
            self.abandon()
            return
        lock = self.__dict__["lock"]
        if lock.acquire(blocking=False):
            try:
                super().close()
            finally:
                lock.release()
                live.remove(self)
        else:
            # Another thread, or a suspended generator, is inside of the C library. It finds the socket at its
            # end, and the last reference frees the connection.
            self.guard.shut_down()

    # In place of psycopg's, which only warns that the connection was not closed.
    def __del__(self, *_: Any) -> None:
        if self.guard.foreign:
            self.guard.abandon(self)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Have the connection for the block, which uses the C library without the driver's methods.

        :raises OperationalError: at once, if another thread has it.
        """
        lock = self.__dict__["lock"]
        if not lock.acquire(blocking=False):
            raise psycopg.OperationalError("another thread uses it")
        try:
            yield
        finally:
            lock.release()

    # A half-read stream() or COPY that is freed in a child would cancel the parent's query, with the parent's
    # key, by a connection of its own.
    def cancel(self) -> None:
        if not self.guard.foreign and self.lease is not None:
            super().cancel()

    def cancel_safe(self, *args: Any, **kwargs: Any) -> None:
        if not self.guard.foreign and self.lease is not None:
            super().cancel_safe(*args, **kwargs)

    def _known(self, method: Any, *args: Any) -> Any:
        """Call a method of the driver that leaves no state in the session."""
        outer, self.reader = self.reader, self
        try:
            return method(self, *args)
        finally:
            self.put_back(self, outer)

    # --- what a borrower calls -----------------------------------------------------------------------------

    def cursor(self, name: str = "", **kwargs: Any) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        if lease is None or self.closed:
            return super().cursor(name, **kwargs)
        binary = kwargs.pop("binary", False)
        if name:
            cursor = NAMED_CURSORS[self.server_cursor_factory](self, name=name, **kwargs)
        else:
            cursor = self.CURSORS[self.cursor_factory](self, **kwargs)
        if binary:
            cursor.format = pq.Format.BINARY
        return enter_lease(cursor, self, lease)

    def commit(self) -> None:
        self._known(psycopg.Connection.commit)

    def rollback(self) -> None:
        self._known(psycopg.Connection.rollback)

    @property
    def autocommit(self) -> bool:
        return bool(AUTOCOMMIT.__get__(self))

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._known(AUTOCOMMIT.__set__, value)

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self.blocks += 1
        try:
            with super().transaction(*args, **kwargs) as block:
                yield block
        finally:
            self.blocks -= 1

    # A two-phase transaction, once it is prepared, is no longer the session's: nothing here could end it.
    def tpc_begin(self, *args: Any, **kwargs: Any) -> None:
        self.unshareable = "it was part of a two-phase transaction"
        super().tpc_begin(*args, **kwargs)

    def tpc_recover(self) -> Any:
        self.unshareable = "it was part of a two-phase transaction"
        return super().tpc_recover()

    def add_notice_handler(self, callback: Any) -> None:
        self.unshareable = "a handler was added to it"
        super().add_notice_handler(callback)

    def add_notify_handler(self, callback: Any) -> None:
        self.unshareable = "a handler was added to it"
        super().add_notify_handler(callback)

    @property
    def adapters(self) -> AdaptersMap:
        return self.own_adapters

    # --- what the pool asks --------------------------------------------------------------------------------

    def text_of(self, query: Any) -> Any:
        """Return a statement's text. A composed one is made from its parts."""
        return query.as_string(self) if isinstance(query, psycopg.sql.Composable) else query

    def mark_clean(self) -> None:
        self.own_adapters.changed = False
        super().mark_clean()

    @property
    def transaction_status(self) -> int:
        return int(self.pgconn.transaction_status)

    @property
    def is_open(self) -> bool:
        return not self.closed

    def reported(self, name: str) -> Any:
        return _text(self.pgconn.parameter_status(name.encode()))

    def reports(self) -> tuple[Any, ...]:
        # One call of the C library for each, because each return passes through here.
        return tuple(map(self.pgconn.parameter_status, REPORTED_AS_BYTES))

    def settings(self) -> tuple[Any, ...]:
        return (
            *(self.isolation_level, self.read_only, self.deferrable),
            *(self.row_factory, self.cursor_factory, self.server_cursor_factory),
            *(self.prepare_threshold, self.prepared_max, self.own_adapters.changed),
        )

    @property
    def can_deallocate(self) -> bool:
        return self.prepare_threshold is None

    def driver_fault(self) -> str | None:
        if self.__dict__["lock"].locked():
            return "a suspended notifies(), stream() or copy() has its lock"
        if self.pgconn.pipeline_status != IDLE_PIPELINE:
            return "left in pipeline mode"
        if self.__dict__.get("_notifies_backlog"):
            return "notifications left unread"
        return "a transaction() block was left open" if self.blocks else None

    def set_autocommit_again(self, value: bool) -> None:
        if self.autocommit != value:
            idle, self.idle = self.idle, False  # for the check
            try:
                self.autocommit = value
            finally:
                self.idle = idle

    def roll_back(self, seconds: float) -> None:
        self.run("ROLLBACK", seconds)

    def run(self, sql: str, seconds: float) -> list[tuple[Any, ...]]:
        with self.exclusively():
            return self._run(sql, clock.monotonic() + seconds)

    def _run(self, sql: str, deadline: float) -> list[tuple[Any, ...]]:
        connection = self.pgconn
        poll = select.poll()  # gevent's, where it has patched: other greenlets run meanwhile
        connection.send_query(sql.encode())
        result = None
        while True:
            if connection.flush():
                self._wait_for(poll, select.POLLIN | select.POLLOUT, deadline)
                connection.consume_input()
                continue
            while not connection.is_busy():
                if (following := connection.get_result()) is None:
                    return self._rows(result)
                # After an error the server skips the other statements of the string.
                if result is None or result.status not in FAILED:
                    result = following
            self._wait_for(poll, select.POLLIN, deadline)
            connection.consume_input()

    def _wait_for(self, poll: select.poll, events: int, deadline: float) -> None:
        poll.register(self.pgconn.socket, events)
        left = deadline - clock.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise psycopg.OperationalError("the server did not answer in time")

    def _rows(self, result: Any) -> list[tuple[Any, ...]]:
        if result is None:
            return []
        if result.status in FAILED:
            raise psycopg.errors.error_from_result(result)
        columns = range(result.nfields)
        return [
            tuple(_text(result.get_value(row, column)) for column in columns) for row in range(result.ntuples)
        ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
