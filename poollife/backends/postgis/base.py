"""GeoDjango's PostgreSQL backend, pooled. It needs GEOS and GDAL, as GeoDjango does."""

from __future__ import annotations

from typing import Any

from django.contrib.gis.db.backends.postgis import base
from django.contrib.gis.db.backends.postgis.operations import PostGISOperations
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.utils.functional import cached_property

from poollife.backends.postgresql.base import PooledPostgreSQLMixin

if is_psycopg3:
    from psycopg.types import TypeInfo

#: What ``TypeInfo.fetch()`` asks for each type, for all of them.
TYPES = (
    "SELECT typname, oid, typarray, oid::regtype::text, typdelim FROM pg_type "
    "WHERE oid IN (to_regtype('geometry'), to_regtype('geography'), to_regtype('raster'))"
)


class PooledOperations(PostGISOperations):
    """Operations that read the version of PostGIS once for each pool."""

    @cached_property
    def spatial_version(self) -> tuple[int, ...]:
        """The version of PostGIS. Django asks once for each wrapper, so once for each thread."""
        wrapper: Any = self.connection
        version: tuple[int, ...] = wrapper.lease_pool.fact(
            "spatial_version", lambda: super(PooledOperations, self).spatial_version
        )
        return version


class PooledPostGISMixin(PooledPostgreSQLMixin):
    """A mixin to be put before Django's PostGIS DatabaseWrapper, or before a subclass of that."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if (below := getattr(cls, "ops_class", None)) and not issubclass(below, PooledOperations):
            cls.ops_class = type(below.__name__, (PooledOperations, below), {})

    if is_psycopg3:
        #: The types of PostGIS as psycopg 3 knows them: those of one session.
        _type_infos: dict[str, dict[str, TypeInfo | None]]

        def open_connection(self, params: dict[str, Any]) -> Any:
            # Without a transaction around the question for the types. Django sets autocommit afterwards.
            return super().open_connection({**params, "autocommit": True})

        def register_geometry_adapters(self, pg_connection: Any, clear_caches: bool = False) -> None:
            """Register the adapters with the numbers that the types have in this session's database.

            Django asks once for each alias and process. But a clone of a test database has other numbers, a
            tenant's database too, and so has each database after another ``CREATE EXTENSION``. So each
            session asks when it is opened, in one round trip. (``_type_infos`` is a private name of Django's,
            pinned by tests/compatibility/test_gis.py.)

            :param pg_connection: the session.
            :param clear_caches: not used: nothing is kept.
            """
            with pg_connection.cursor() as cursor:
                cursor.execute(TYPES)
                found = {
                    name: TypeInfo(name, oid, array_oid, regtype=regtype, delimiter=delimiter)
                    for name, oid, array_oid, regtype, delimiter in cursor
                }
            self._type_infos = {
                name: {self.alias: found.get(name)}
                for name in base.DatabaseWrapper._type_infos  # type: ignore[attr-defined]
            }
            super().register_geometry_adapters(pg_connection)  # type: ignore[misc]  # the stubs leave it out

        def connect(self) -> None:
            """Borrow a session, and register the adapters in one that was opened before CREATE EXTENSION.

            The extension may have been created in another process.
            """
            super().connect()
            driver: Any = self.lease and self.lease.driver
            if driver and driver.own_adapters.types.get("geometry") is None:
                self.register_geometry_adapters(driver)
                driver.mark_clean()


class DatabaseWrapper(PooledPostGISMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
