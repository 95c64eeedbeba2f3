"""Cursors that die with their lease."""

from __future__ import annotations

from functools import cache
from typing import Any

from poollife.drivers.contract import HELD
from poollife.process.guard import alive, process

ENDED = (
    "This cursor's connection went back to the pool, or was closed, when its request, task or block ended or "
    "close() was called. Open a new cursor."
)


class LeasedCursor:
    """Mixed into a driver's cursor class: usable for as long as the lease that it was opened under.

    A cursor kept longer would read and commit inside the next borrower's transaction, and closing it between
    the next borrower's query and its rowcount would spoil that.

    The methods are flat, as each statement and each row comes by here: the check is written out where it is
    made, and is no call of a function.
    """

    _driver: Any = None
    _lease: Any = None
    _is_open = False
    # A destructor needs what hangs on the class: at interpreter exit module globals are gone.
    _alive, _process = alive, process

    def __del__(self) -> None:
        lease = self._lease
        if lease is None:
            return
        if self._is_open:
            self._is_open = False
            lease.open_cursors -= 1
        # Freed in a child, a half-read result would read the rest from the parent's socket, and a statement
        # of SQLite would let go of the parent's locks.
        guard = self._driver.guard
        if not self._alive[0] or guard.pid != self._process.pid:
            guard.abandon(self)

    def close(self) -> None:
        """Close, or do nothing where the connection is no longer this cursor's to use."""
        lease = self._lease
        if (not alive[0] or lease.state is not HELD) and not self._may_close():
            return
        try:
            super().close()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise
        finally:
            # Also where it found an error in what was left to read.
            if self._is_open:
                self._is_open = False
                lease.open_cursors -= 1

    def _may_close(self) -> bool:
        return not self._driver.guard.foreign and bool(self._lease.is_held())

    def _check(self) -> None:
        self._driver.check_process()
        if not self._lease.is_held():
            raise self._driver.InterfaceError(ENDED)

    def _note(self, error: Exception) -> None:
        """Tell the connection of an error that the server or the network made in the middle of a result."""
        # Others are of the caller's making: the cursor was closed, or nothing was executed.
        if isinstance(error, (self._driver.OperationalError, self._driver.InternalError)):
            self._driver.note_failure(error)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().execute(*args, **kwargs)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().executemany(*args, **kwargs)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().callproc(*args, **kwargs)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    def nextset(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        return super().nextset()  # type: ignore[misc]  # the driver's

    # A row may come from the socket.

    def fetchone(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().fetchone()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().fetchmany(*args, **kwargs)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    def fetchall(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super().fetchall()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise

    # Not the driver's: mysqlclient 2.2 iterates over the rows themselves.
    def __iter__(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        return self

    def __next__(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            row = super().fetchone()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise
        if row is None:
            raise StopIteration
        return row


@cache
def leased(cursor_class: type, mixin: type[Any] = LeasedCursor) -> type:
    """Return the subclass of a driver's cursor class whose cursors die with their lease."""
    return type(f"Leased{cursor_class.__name__}", (mixin, cursor_class), {})


class LeasedClasses(dict[type, type]):
    """The leased class of each cursor class: one look-up for a class seen before."""

    def __init__(self, make: Any) -> None:
        """:param make: returns the leased class of a driver's cursor class."""
        super().__init__()
        self._make = make

    def __missing__(self, cursor_class: type) -> type:
        made: type = self._make(cursor_class)
        self[cursor_class] = made
        return made
