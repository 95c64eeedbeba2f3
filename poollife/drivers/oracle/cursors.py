"""Cursors of python-oracledb that end with their lease, and read each statement before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import oracledb

from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedCursor
from poollife.drivers.effects import SETS
from poollife.process.guard import alive

Cursor: Any = oracledb.Cursor


def unread(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cursor's method that makes the session dirty: it sends a statement that nothing reads.

    :param method: the driver's.
    """

    @wraps(method)
    def call(self: OracleCursor, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        self._driver.note_unread()
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self._driver.note_failure(error)
            raise

    return call


class OracleCursor(LeasedCursor, Cursor):  # type: ignore[misc]  # the driver's
    """A cursor of a leased connection. ``cursor()`` makes it from the driver's, by assigning the class.

    Each exception is reported to the connection, which knows whether the session goes on: an asynchronous
    one in the middle of a call leaves an answer on its way.
    """

    def __del__(self) -> None:
        LeasedCursor.__del__(self)
        # The driver's destructor takes a lock, which a lost thread of the parent may hold.
        if not self._driver.guard.foreign:
            Cursor.__del__(self)

    def __exit__(self, *error: Any) -> None:
        # The driver's own does not call close().
        self.close()

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        driver = self._driver
        try:
            # None: the statement of prepare(), or the last one.
            effects = driver.note_statement(self.statement if statement is None else statement)
            # Past the method of LeasedCursor, which would make the same check.
            result = super(LeasedCursor, self).execute(statement, *args, **kwargs)
        except BaseException as error:
            driver.note_failure(error)
            raise
        driver.ran |= effects & SETS
        return result

    def executemany(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        driver = self._driver
        try:
            effects = driver.note_statement(self.statement if statement is None else statement)
            result = super(LeasedCursor, self).executemany(statement, *args, **kwargs)
        except BaseException as error:
            driver.note_failure(error)
            raise
        driver.ran |= effects & SETS
        return result

    def _note(self, error: Exception) -> None:
        """Ignore an error of ``close()``, which sends nothing. The other methods report theirs themselves."""

    callproc = unread(Cursor.callproc)
    callfunc = unread(Cursor.callfunc)
    # A definition is executed as it is parsed.
    parse = unread(Cursor.parse)

    def fetchone(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super(LeasedCursor, self).fetchone()
        except BaseException as error:
            self._driver.note_failure(error)
            raise

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super(LeasedCursor, self).fetchmany(*args, **kwargs)
        except BaseException as error:
            self._driver.note_failure(error)
            raise

    def fetchall(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super(LeasedCursor, self).fetchall()
        except BaseException as error:
            self._driver.note_failure(error)
            raise

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        try:
            return super(LeasedCursor, self).scroll(*args, **kwargs)
        except BaseException as error:
            self._driver.note_failure(error)
            raise

    def __next__(self) -> Any:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row
