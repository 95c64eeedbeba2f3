"""Django's PostgreSQL backend, pooled."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import IsolationLevel, is_psycopg3

from poollife.backends.mixin import PooledMixin
from poollife.backends.opening import CONNECT_TIMEOUT
from poollife.drivers.postgresql.driver import PostgreSQLDriver
from poollife.pools import log

if is_psycopg3:
    from poollife.drivers.postgresql import psycopg3 as chosen
else:
    from poollife.drivers.postgresql import psycopg2 as chosen  # type: ignore[no-redef]

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper

    from poollife.pools.lease import Lease
else:
    PostgreSQLWrapper = object

#: The text of the server's or a proxy's refusal of what ``options`` has. It is not translated by PgBouncer.
REFUSES_OPTIONS = "unsupported startup parameter"
PROXIED = (
    "Pool %r: a proxy, such as PgBouncer, is in front of its server. With pool_mode = session nothing has to "
    "be set. With pool_mode = transaction POOL needs 'behind': 'transaction_pooler'"
)
#: Host and port of proxies that take no ``options``.
refusing: set[tuple[Any, Any]] = set()


def has_service(params: dict[str, Any]) -> bool:
    """Return whether a service file, which may have ``options`` of its own, belongs to these parameters."""
    return "service" in params or "PGSERVICE" in os.environ


class PooledPostgreSQLMixin(PooledMixin, PostgreSQLWrapper):
    """A mixin to be put before Django's PostgreSQL DatabaseWrapper, or before a subclass of that."""

    driver: PostgreSQLDriver = chosen.driver
    #: Django's own pool, which is never used.
    pool = None

    def close_pool(self) -> None:
        """Do nothing: this would close Django's own pool. ``poollife.close_pool()`` closes poollife's."""

    def open_connection(self, params: dict[str, Any]) -> Any:
        """Open a session whose own time zone is Django's: a reset brings it back, and no packet sets it.

        Where neither ``OPTIONS``, the environment nor a file has a limit for that, it gets one.

        :param params: the arguments of the driver's ``connect()``.
        """
        if name := self.pool_options.application_name:
            # Here, not with the settings: a child that was forked has a pid of its own.
            params = self.driver.name_session(params, name, self.alias)
        if not (has_service(params) or "PGCONNECT_TIMEOUT" in os.environ):
            params = {"connect_timeout": CONNECT_TIMEOUT, **params}
        connection = self._open_with_time_zone(self.driver.params(params))
        if self.pool_options.behind:
            self.driver.unwrap(connection).behind_pooler = True
        return connection

    def _open_with_time_zone(self, params: dict[str, Any]) -> Any:
        """Open a session with the time zone as a part of its login, where that is possible.

        Where it is not, Django sets the time zone by a statement.
        """
        server = params.get("host"), params.get("port")
        takes_options = not (self.pool_options.behind or has_service(params) or server in refusing)
        if self.timezone_name and takes_options:
            zone = self.timezone_name.replace("\\", "\\\\").replace(" ", "\\ ")
            given = params.get("options", os.environ.get("PGOPTIONS", ""))
            try:
                return super().open_connection({**params, "options": f"{given} -c TimeZone={zone}".strip()})
            except self.Database.OperationalError as error:
                if REFUSES_OPTIONS not in str(error) or given:
                    raise
                refusing.add(server)
        return super().open_connection(params)

    def init_connection_state(self) -> None:
        """Set up a new session as Django does, and in the first session of a pool look for a proxy."""
        super().init_connection_state()
        if self.pool_options.application_name and not self.pool_options.behind:
            self._restore_name(self.lease)
        if (lease := self.lease) is not None and not self.pool_options.behind:
            lease.pool.fact("proxy", partial(self._look_for_proxy, lease))

    def _restore_name(self, lease: Lease | None) -> None:
        """Set the session's name again after a reset through a proxy, whose own login had no name."""
        driver: Any = lease.driver if lease else None
        if driver is not None and driver.reported("application_name") == "":
            name = self.driver.name_session({}, self.pool_options.application_name or "", self.alias)
            driver.set_parameter("application_name", name["fallback_application_name"])

    def _look_for_proxy(self, lease: Lease) -> bool:
        """Return whether a proxy is in front of the server, and note it in the log."""
        if found := bool(lease.driver.is_proxied()):  # type: ignore[attr-defined]  # PostgreSQL's
            log.note(logging.INFO, PROXIED, self.alias, alias=self.alias)
        return found

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
