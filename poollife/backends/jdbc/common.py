"""The mixin of all ENGINEs on JDBC: it opens JDBC sessions in place of the backend's own."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.asyncio import async_unsafe

from poollife.backends.mixin import PooledMixin
from poollife.backends.opening import the_registry
from poollife.drivers.jdbc import connection as jdbc
from poollife.drivers.jdbc import dbapi
from poollife.drivers.jdbc.dialects import Dialect, dialect_of
from poollife.drivers.jdbc.jvm import jvm
from poollife.pools.base import PoolKey

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
else:
    BaseDatabaseWrapper = object

#: Seconds that Django's health check waits for an answer.
HEALTH_CHECK_LIMIT = 5.0
#: The keys of settings that may stand in JDBC_URL, in braces.
IN_URL = ("HOST", "PORT", "NAME")
#: The settings that only JDBC has, with examples.
EXAMPLES = {"JDBC_DRIVER": "org.mariadb.jdbc.Driver", "JDBC_URL": "jdbc:mariadb://{HOST}:{PORT}/{NAME}"}


class JDBCMixin(BaseDatabaseWrapper):
    """A mixin with JDBC in the methods where a backend uses its driver."""

    Database = dbapi
    #: The values of settings that an entry of ``DATABASES`` does not give.
    default_settings: Mapping[str, str] = {}

    @property
    def jdbc_driver(self) -> str:
        """The class of the JDBC driver."""
        return self.jdbc_setting("JDBC_DRIVER")

    @property
    def jdbc_url(self) -> str:
        """The JDBC URL. ``{HOST}``, ``{PORT}`` and ``{NAME}`` in it stand for these settings."""
        url = self.jdbc_setting("JDBC_URL")
        for key in IN_URL:
            url = url.replace(
                f"{{{key}}}", str(self.settings_dict[key] or self.default_settings.get(key, ""))
            )
        return url

    def jdbc_setting(self, key: str) -> str:
        """Return the value of JDBC_DRIVER or JDBC_URL.

        :raises ImproperlyConfigured: it is not given, and this ENGINE has none of its own.
        """
        if value := self.settings_dict.get(key) or self.default_settings.get(key):
            return str(value)
        raise ImproperlyConfigured(f"DATABASES[{self.alias!r}] needs {key}, such as {EXAMPLES[key]!r}.")

    @property
    def dialect(self) -> Dialect:
        """The kind of database, as far as JDBC_URL shows it."""
        return dialect_of(self.jdbc_url)

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments of ``connect()``. OPTIONS are properties of the JDBC driver."""
        settings = self.settings_dict
        return {
            "driver": self.jdbc_driver,
            "url": self.jdbc_url,
            "dialect": self.dialect,
            "properties": {
                "user": settings["USER"] or None,
                "password": settings["PASSWORD"] or None,
                **settings["OPTIONS"],
            },
        }

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return jdbc.connect(**conn_params)

    @async_unsafe
    def create_cursor(self, name: Any = None) -> Any:
        return self.connection.cursor()

    def _set_autocommit(self, autocommit: bool) -> None:
        with self.wrap_database_errors:
            self.connection.autocommit = autocommit

    def is_usable(self) -> bool:
        return bool(self.connection.answers(HEALTH_CHECK_LIMIT))


class PooledJDBCMixin(PooledMixin, JDBCMixin):
    """A mixin to be put before a DatabaseWrapper of Django's, or before a subclass of one."""

    driver = jdbc.driver
    needed_settings = EXAMPLES

    def pool_key(self) -> PoolKey:
        """Return the key of this wrapper's pool, with JDBC_DRIVER and JDBC_URL in it."""
        key = super().pool_key()
        settings = self.settings_dict
        given = settings.get("JDBC_DRIVER"), settings.get("JDBC_URL")
        # Not among the parts of ``server``, which the log shows: the URL may have a password.
        return key._replace(options=(key.options, *given))

    def open_connection(self, params: dict[str, Any]) -> Any:
        is_first = jvm.owner is None
        connection = super().open_connection(params)
        if is_first:
            # Exit handlers run in the reverse order: the pools close their sessions, and after that JPype's
            # handler ends the JVM.
            end = the_registry().end
            atexit.unregister(end)
            atexit.register(end)
        return connection
