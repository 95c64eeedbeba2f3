"""GeoDjango's PostgreSQL backend, pooled. It needs GEOS and GDAL, as GeoDjango does."""

from __future__ import annotations

from typing import Any

from django.contrib.gis.db.backends.postgis import base

from poollife.backends.postgresql.base import PooledPostgreSQLMixin

#: The types of PostGIS as psycopg 3 knows them, by the place of the database.
_types: dict[Any, dict[str, dict[str, Any]]] = {}


class PooledPostGISMixin(PooledPostgreSQLMixin):
    """A mixin to be put before Django's PostGIS DatabaseWrapper, or before a subclass of that."""

    @property
    def _type_infos(self) -> dict[str, dict[str, Any]]:
        """The numbers of the types, which belong to the database.

        Django keeps them by alias, and a clone of a test database or a tenant's has others. (A private name
        of Django's, pinned by tests/compatibility/test_private_names.py.)
        """
        key = self.pool_key()
        return _types.setdefault(
            (key.server, key.database),
            {name: {} for name in base.DatabaseWrapper._type_infos},  # type: ignore[attr-defined]
        )


class DatabaseWrapper(PooledPostGISMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
