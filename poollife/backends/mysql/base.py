"""Django's MySQL backend, pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.mysql import base
from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin
from poollife.drivers import mysqlclient

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object


class PooledMySQLMixin(PooledMixin, MySQLWrapper):
    """Put before a DatabaseWrapper that is Django's MySQL one or made from it."""

    driver = mysqlclient

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """What Django asks once per wrapper, so under ASGI once per request: asked once per pool."""
        return self.pool.fact("mysql_server_data", lambda: super(PooledMySQLMixin, self).mysql_server_data)


class DatabaseWrapper(PooledMySQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
