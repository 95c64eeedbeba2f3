"""Cursors that end with their lease."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from poollife.drivers.contract import HELD
from poollife.process.guard import alive, process

ENDED = (
    "This cursor's connection went back to the pool, or was closed, when its request, task or block ended or "
    "close() was called. Open a new cursor."
)


class LeasedCursor:
    """A mixin of a driver's cursor class: the cursor works only during the lease in which it was opened.

    A cursor that is used longer would read and commit inside the next borrower's transaction. If it were
    closed between the next borrower's query and its rowcount, that rowcount would be wrong.

    The methods are flat, because each statement and each row passes through here: the check is written out in
    each method, and costs no call of a function.
    """

    # Set on each cursor, as soon as it exists. The class has no values for them, as with those of Guarded.
    _driver: Any
    _lease: Any
    _is_open: bool
    # The destructor finds these in the class: at interpreter exit module globals are gone.
    _alive, _process = alive, process

    def __del__(self) -> None:
        try:
            lease = self._lease
        except AttributeError:  # an exception came before the cursor had its lease
            return
        if self._is_open:
            self._is_open = False
            lease.open_cursors -= 1
        # Freed in a child, a half-read result would read the rest from the parent's socket, and a statement
        # of SQLite would release the parent's locks.
        guard = self._driver.guard
        if not self._alive[0] or guard.pid != self._process.pid:
            guard.abandon(self)

    def close(self) -> None:
        """Close the cursor. Do nothing after its lease, and in another process."""
        lease = self._lease
        if (not alive[0] or lease.state is not HELD) and not self._may_close():
            return
        try:
            super().close()  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise
        finally:
            # Also after an error in the rows that were still unread.
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
        """Report to the connection an error of the server or the network in the middle of a result."""
        # All other errors are mistakes of the caller: the cursor was closed, or no statement was executed.
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

    # The methods that fetch make the check, too: a row may come from the socket.

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

    # In place of the driver's: mysqlclient 2.2 returns an iterator of its list of rows, which checks nothing.
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
    """Return the subclass of a driver's cursor class whose cursors end with their lease.

    :param cursor_class: the driver's class, or a subclass of the site's own.
    :param mixin: ``LeasedCursor``, or a subclass of it.
    """
    return type(f"Leased{cursor_class.__name__}", (mixin, cursor_class), {})


def enter_lease(cursor: Any, driver: Any, lease: Any) -> Any:
    """Note that a leased cursor was opened, and return it.

    Until Django's wrapper is around it, and takes it off the untracked cursors again, nothing is known of the
    statements that follow on it.
    """
    cursor._driver, cursor._lease, cursor._is_open = driver, lease, True
    lease.open_cursors += 1
    lease.untracked_cursors += 1
    lease.paused = None
    return cursor


class _ReadyInInit:
    """A cursor class of the site's own may execute in its ``__init__()``."""

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._driver, self._lease, self._is_open = connection, connection.lease, False
        super().__init__(connection, *args, **kwargs)  # type: ignore[call-arg]  # the driver's


class LeasedClasses(dict[type, type]):
    """The leased class of each cursor class: one look-up for a class seen before."""

    def __init__(self, make: Callable[[type], type], is_own: Callable[[str], bool]) -> None:
        """Take the function that makes a leased class.

        :param make: returns the leased class of a driver's cursor class.
        :param is_own: returns whether a module of this name is the driver's own, and not the site's.
        """
        super().__init__()
        self._make, self._is_own = make, is_own

    def __missing__(self, cursor_class: type) -> type:
        made, is_own = self._make(cursor_class), self._is_own
        if any("__init__" in vars(each) and not is_own(each.__module__) for each in cursor_class.__mro__):
            made = type(made.__name__, (_ReadyInInit, made), {})
        self[cursor_class] = made
        return made
