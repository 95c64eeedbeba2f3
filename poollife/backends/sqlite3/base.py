"""Django's SQLite backend, pooled."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import base

from poollife.backends.mixin import PooledMixin
from poollife.drivers.sqlite import connection as sqlite

if TYPE_CHECKING:
    from django.db.backends.sqlite3.base import DatabaseWrapper as SQLiteWrapper
else:
    SQLiteWrapper = object


class PooledSQLiteMixin(PooledMixin, SQLiteWrapper):
    """A mixin to be put before Django's SQLite DatabaseWrapper, or before a subclass of that."""

    driver = sqlite.driver

    @property
    def poolable(self) -> bool:
        """True for a file, False in memory.

        A database in memory lives as long as its connection, and forked test workers use a copy of it.
        """
        return not self.is_in_memory_db()

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        if self.poolable:
            params["factory"] = sqlite.guarded_factory(params.get("factory", sqlite3.Connection))
        return params

    def open_connection(self, params: dict[str, Any]) -> Any:
        sqlite.check_safe_after_fork(self.settings_dict["NAME"])
        return super().open_connection(params)


class DatabaseWrapper(PooledSQLiteMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
