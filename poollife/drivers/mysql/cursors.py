"""Cursors that read a statement before the driver puts parameters into it."""

from __future__ import annotations

from typing import Any

from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedCursor
from poollife.process.guard import alive

#: The names of the modules of the drivers' own cursor classes.
MODULES = frozenset({"MySQLdb.cursors", "pymysql.cursors", "builtins"})


def is_own(module: str) -> bool:
    """Return whether a module is one of the drivers'."""
    return module in MODULES


class ReadingCursor(LeasedCursor):
    """A cursor that reads a statement before the driver puts parameters in: these may look like any SQL."""

    def execute(self, query: Any, args: Any = None) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        driver = self._driver
        # No asynchronous exception comes between the two assignments and their block: there is no call.
        outer, driver.reader = driver.reader, self
        try:
            if outer is not self:  # executemany() may call execute()
                driver.note_statement(query, args is not None)
            # Past the method of LeasedCursor, which would make the same check, and note the same error.
            return super(LeasedCursor, self).execute(query, args)  # type: ignore[misc]  # the driver's
        except Exception as error:
            self._note(error)
            raise
        finally:
            if driver.reader is self:
                driver.reader = outer
            else:  # threads share the session, and their statements have overlapped
                driver.reader = None
                driver.dirty = True

    def executemany(self, query: Any, args: Any) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        driver = self._driver
        outer, driver.reader = driver.reader, self
        try:
            if outer is not self:
                driver.note_statement(query, args is not None)
            return super(LeasedCursor, self).executemany(query, args)  # type: ignore[misc]
        except Exception as error:
            self._note(error)
            raise
        finally:
            if driver.reader is self:
                driver.reader = outer
            else:  # threads share the session, and their statements have overlapped
                driver.reader = None
                driver.dirty = True


def sends_sql_unchanged(cursor_class: type) -> bool:
    """Return whether a cursor class sends a statement as it was given: a class of the site's own may not."""
    return all(is_own(each.__module__) for each in cursor_class.__mro__)
