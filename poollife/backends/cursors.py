"""Django's side of a cursor: the end of a statement gives its connection back where no work is in charge."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db.backends.utils import CursorWrapper


class PooledCursorWrapper(CursorWrapper):
    """The cursor that Django's code gets.

    Django's class finds these methods by ``__getattr__``, and wraps them anew for each call. Here each is one
    call: three less for each statement and each row, which pays for what the pool adds.
    """

    db: Any
    cursor: Any

    def close(self) -> None:
        """Close the cursor; then see whether its connection can go back."""
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
    """Have a cursor of another wrapper class, such as Django's for ``DEBUG``, tell of its end as well."""
    if isinstance(cursor, CursorWrapper):
        cursor.__class__ = _pooled(type(cursor))  # type: ignore[arg-type]  # a class is hashable
    return cursor
