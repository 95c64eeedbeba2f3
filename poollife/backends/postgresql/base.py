"""Django's PostgreSQL backend, pooled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import IsolationLevel, is_psycopg3

from poollife.backends.mixin import PooledMixin
from poollife.drivers.postgresql.driver import PostgreSQLDriver
from poollife.pools.lease import Lease

if is_psycopg3:
    from poollife.drivers.postgresql import psycopg3 as chosen
else:
    from poollife.drivers.postgresql import psycopg2 as chosen  # type: ignore[no-redef]

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper
else:
    PostgreSQLWrapper = object

#: The text of the server's or a proxy's refusal of what ``options`` has. It is not translated by PgBouncer.
REFUSES_OPTIONS = "unsupported startup parameter"
#: Host and port of proxies that take no ``options``.
refusing: set[tuple[Any, Any]] = set()


class PooledPostgreSQLMixin(PooledMixin, PostgreSQLWrapper):
    """A mixin to be put before Django's PostgreSQL DatabaseWrapper, or before a subclass of that."""

    driver: PostgreSQLDriver = chosen.driver
    #: Django's own pool, which is never used.
    pool = None

    def close_pool(self) -> None:
        """Do nothing: this would close Django's own pool. ``poollife.close_pool()`` closes poollife's."""

    def open_connection(self, params: dict[str, Any]) -> Any:
        """Open a session whose own time zone is Django's: a reset brings it back, and no packet sets it.

        :param params: the arguments of the driver's ``connect()``.
        """
        params = self.driver.params(params)
        server = params.get("host"), params.get("port")
        if self.timezone_name and "service" not in params and server not in refusing:
            zone = self.timezone_name.replace("\\", "\\\\").replace(" ", "\\ ")
            given = params.get("options", os.environ.get("PGOPTIONS", ""))
            try:
                return super().open_connection({**params, "options": f"{given} -c TimeZone={zone}".strip()})
            except self.Database.OperationalError as error:
                if REFUSES_OPTIONS not in str(error) or given:
                    raise
                refusing.add(server)
        return super().open_connection(params)

    def _resume(self, lease: Lease) -> None:
        super()._resume(lease)
        # Django sets it where it opens a connection.
        level = self.settings_dict["OPTIONS"].get("isolation_level", IsolationLevel.READ_COMMITTED)
        self.isolation_level = IsolationLevel(level)

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        if name and self.lease:
            self.driver.guard_cursor(cursor, self.lease)
        return cursor


class DatabaseWrapper(PooledPostgreSQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
