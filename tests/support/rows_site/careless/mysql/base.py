"""MySQL."""

from __future__ import annotations

from django.db.backends.mysql.creation import DatabaseCreation

from poollife.backends.mysql import base
from poollife.pools.base import PoolKey


class DatabaseWrapper(base.DatabaseWrapper):
    """Any connection of this alias will do."""

    def pool_key(self) -> PoolKey:
        return PoolKey(self.alias, (), None, None, None)


# Django's own, unaware of pools. Assigned here: the mixin replaces what it finds in the class body.
DatabaseWrapper.creation_class = DatabaseCreation
