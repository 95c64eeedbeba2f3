"""Facts about the server that are the same for all sessions of a pool, for each driver of MySQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object


class ServerFactsMixin(PooledMixin, MySQLWrapper):
    """A mixin whose wrappers share one answer of the server for each pool."""

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """The server's version and settings, read once for each pool.

        Django reads them once for each wrapper, which under ASGI is once for each request.
        """
        return self.lease_pool.fact(
            "mysql_server_data", lambda: super(ServerFactsMixin, self).mysql_server_data
        )
