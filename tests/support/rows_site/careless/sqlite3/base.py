"""SQLite."""

from __future__ import annotations

from django.db.backends.sqlite3.creation import DatabaseCreation

from poollife.backends.sqlite3 import base
from poollife.pools.base import PoolKey


class DatabaseWrapper(base.DatabaseWrapper):
    """Any connection of this alias will do, to a database in memory too."""

    poolable = True

    def pool_key(self) -> PoolKey:
        return PoolKey(self.alias, (), None, None, None)


DatabaseWrapper.creation_class = DatabaseCreation
