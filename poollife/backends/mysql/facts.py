"""What the server was asked, whichever driver asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object


class ServerFactsMixin(PooledMixin, MySQLWrapper):
    """Has a pool's wrappers ask their server once."""

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """What Django asks once per wrapper, so under ASGI once per request: asked once per pool."""
        return self.lease_pool.fact(
            "mysql_server_data", lambda: super(ServerFactsMixin, self).mysql_server_data
        )
