"""Cursors that die with their lease."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from poollife.process.guard import getpid

ENDED = (
    "This cursor's connection went back to the pool, or was closed, when its request, task or block ended or "
    "close() was called. Open a new cursor."
)


class LeasedCursor:
    """Mixed into a driver's cursor class: usable for as long as the lease that it was opened under.

    A cursor kept longer would read and commit inside the next borrower's transaction, and closing it between
    the next borrower's query and its rowcount would spoil that.
    """

    _driver: Any = None
    _lease: Any = None

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._driver = connection
        self._lease = connection.lease
        self._lease.note_open(self)
        super().__init__(connection, *args, **kwargs)  # type: ignore[call-arg]

    def __del__(self) -> None:
        if self._lease is not None:
            self._lease.open_cursors.discard(id(self))
        # Freed in a child, a half-read result would read the rest from the parent's socket, and a statement
        # of SQLite would let go of the parent's locks.
        if self._driver is not None and self._driver.guard.foreign:
            self._driver.guard.abandon(self)

    def close(self) -> None:
        """Close, or do nothing where the connection is no longer this cursor's to use."""
        lease = self._lease
        if self._driver.guard.pid != getpid() or (lease.ended and lease.has_ended()):
            return
        lease.cursors.discard(self)
        try:
            super().close()  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise
        finally:
            # Also where it found an error in what was left to read.
            lease.open_cursors.discard(id(self))
            lease.rest()

    def _check(self) -> None:
        # Inline, because it is asked for each row.
        if self._driver.guard.pid != getpid():
            self._driver.refuse()
        if self._lease.ended and self._lease.has_ended():
            raise self._driver.InterfaceError(ENDED)

    def _run(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._check()
        try:
            return method(*args, **kwargs)
        except Exception as error:
            self._note(error)
            raise
        finally:
            # From now on there may be something to read.
            self._lease.cursors.add(self)

    def _note(self, error: Exception) -> None:
        """Tell the connection of an error that the server or the network made in the middle of a result."""
        # Others are of who uses the cursor: it was closed, or nothing was executed.
        if isinstance(error, (self._driver.OperationalError, self._driver.InternalError)):
            self._driver.note_failure(error)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(super().execute, *args, **kwargs)  # type: ignore[misc]

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(super().executemany, *args, **kwargs)  # type: ignore[misc]

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(super().callproc, *args, **kwargs)  # type: ignore[misc]

    def nextset(self) -> Any:
        self._check()
        return super().nextset()  # type: ignore[misc]

    # A row may come from the socket. Flat, as these are called for each.

    def fetchone(self) -> Any:
        self._check()
        try:
            return super().fetchone()  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        try:
            return super().fetchmany(*args, **kwargs)  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise

    def fetchall(self) -> Any:
        self._check()
        try:
            return super().fetchall()  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise

    # Not the driver's: mysqlclient 2.2 iterates over the rows themselves.
    def __iter__(self) -> Any:
        self._check()
        return self

    def __next__(self) -> Any:
        self._check()
        try:
            row = super().fetchone()  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise
        if row is None:
            raise StopIteration
        return row


@cache
def leased(cursor_class: type, mixin: type[LeasedCursor] = LeasedCursor) -> type:
    """The subclass of a driver's cursor class whose cursors die with their lease."""
    return type(f"Leased{cursor_class.__name__}", (mixin, cursor_class), {})
