"""Django's cursor wrappers. With automatic release, the end of a statement returns the session."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db.backends.utils import CursorWrapper


class PooledCursorWrapper(CursorWrapper):
    """The cursor that Django's code gets.

    Django's class finds these methods by ``__getattr__``, and wraps them anew for each call. Here each method
    is one call. That is three calls less for each statement and each row, about as many as the pool adds.
    """

    db: Any
    cursor: Any

    def close(self) -> None:
        """Close the cursor. Then return the session, if its lease is automatic and nothing needs it."""
        try:
            self.cursor.close()
        finally:
            if (lease := self.db.lease) is not None and lease.automatic:
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


@cache
def _pooled(cursor_class: type[CursorWrapper]) -> type[CursorWrapper]:
    return type(f"Pooled{cursor_class.__name__}", (PooledCursorWrapper, cursor_class), {})


def pooled_cursor(cursor: Any) -> Any:
    """Return a cursor of another wrapper class, such as Django's for ``DEBUG``, with the methods of this one.

    :param cursor: the wrapper, whose class is replaced. Another object is returned as it is.
    """
    if isinstance(cursor, CursorWrapper):
        cursor.__class__ = _pooled(type(cursor))  # type: ignore[arg-type]  # a class is hashable
    return cursor
