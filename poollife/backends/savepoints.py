"""The part of the mixin by which SAVEPOINTs share the packet of a transaction's first statement."""

from __future__ import annotations

from typing import Any

from poollife.backends.sharing import SharingMixin


class SavepointMixin(SharingMixin):
    """A DatabaseWrapper that has the driver keep a SAVEPOINT while its transaction has not begun."""

    #: Methods of Django's that the stubs leave out.
    _prepare_cursor: Any

    def _savepoint(self, sid: str) -> None:
        lease = self.lease
        if lease is None or not lease.driver.keeps_savepoints:
            super()._savepoint(sid)  # type: ignore[misc]
            return
        lease.untracked_cursors += 1  # of each cursor, until Django's wrapper is around it
        with self._prepare_cursor(KeepingCursor(lease.driver)) as cursor:
            cursor.execute(self.ops.savepoint_create_sql(sid))


class KeepingCursor:
    """A cursor whose statement is a SAVEPOINT that the driver keeps until the next statement.

    Django's cursor is around it, so that the log, the counts of queries and ``execute_wrapper()`` have the
    statement where they have it without ``lazy_begin``.
    """

    #: The text, under the names where Django looks for it to log it: that of MySQL's drivers, and psycopg's.
    _executed: bytes | None = None
    query: bytes | None = None
    description = None
    rowcount = -1

    def __init__(self, driver: Any) -> None:
        """Take the driver connection that keeps the statement."""
        self._driver = driver

    @property
    def _query(self) -> KeepingCursor:
        """The object that has the text, with psycopg 3."""
        return self

    def execute(self, sql: str, params: None = None) -> None:
        """Have the driver keep a SAVEPOINT.

        :param sql: the statement.
        :param params: none.
        """
        self._driver.keep_savepoint(sql)
        self._executed = self.query = sql.encode()

    def close(self) -> None:
        """Do nothing."""
