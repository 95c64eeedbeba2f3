"""Django's cursor wrappers. With automatic release, the end of a statement returns the session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.db.backends.utils import CursorDebugWrapper, CursorWrapper


class PooledCursorWrapper(CursorWrapper):
    """The cursor that Django's code gets.

    Django's class finds these methods by ``__getattr__``, and wraps them anew for each call. Here each method
    is one call. That is three calls less for each statement and each row, about as many as the pool adds.
    """

    db: Any
    cursor: Any
    #: The lease that it was opened under. A cursor that is closed later must not end the next one.
    #: With a value in the class, because tools make objects of subclasses by themselves.
    lease: Any = None

    def close(self) -> None:
        """Close the cursor. Then return the session, if its lease is automatic and nothing needs it."""
        lease = self.lease
        try:
            self.cursor.close()
        finally:
            # In this order: CPython searches for self.db, because the class has a __getattr__().
            if lease is not None and lease.automatic and lease is self.db.lease:
                self.db.release_when_idle()

    def fetchone(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchall()


class PooledDebugCursorWrapper(PooledCursorWrapper):
    """A cursor that logs its statements.

    Django's SQLite backend asks for the text to log by a cursor of the driver's own. That is no sign that the
    site's code works with the driver.
    """

    def execute(self, sql: Any, params: Any = None) -> Any:
        return self._execute_and_log(super().execute, sql, params)

    def executemany(self, sql: Any, param_list: Any) -> Any:
        return self._execute_and_log(super().executemany, sql, param_list)

    def _execute_and_log(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        lease = self.lease
        untracked = lease.untracked_cursors if lease else 0
        try:
            return execute(*arguments)
        finally:
            if lease:
                lease.untracked_cursors = untracked


@cache
def _pooled(cursor_class: type[CursorWrapper]) -> type[CursorWrapper]:
    mixin = PooledDebugCursorWrapper if issubclass(cursor_class, CursorDebugWrapper) else PooledCursorWrapper
    return type(f"Pooled{cursor_class.__name__}", (mixin, cursor_class), {})


def pooled_cursor(cursor: Any, lease: Any) -> Any:
    """Return a cursor of another wrapper class, such as Django's for ``DEBUG``, with the methods of this one.

    :param cursor: the wrapper, whose class is replaced. Another object is returned as it is.
    :param lease: the lease that it was opened under.
    """
    if isinstance(cursor, CursorWrapper):
        if not isinstance(cursor, PooledCursorWrapper):
            cursor.__class__ = _pooled(type(cursor))  # type: ignore[arg-type]  # a class is hashable
        cursor.lease = lease  # type: ignore[attr-defined]
    return cursor
