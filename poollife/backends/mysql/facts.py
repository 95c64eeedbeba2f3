"""Round trips that no session needs, for each driver of MySQL: facts about the server, and autocommit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object


class ServerFactsMixin(PooledMixin, MySQLWrapper):
    """A mixin whose wrappers share one answer for each pool, and open sessions in autocommit mode."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect()``, with the value of autocommit among them.

        Without it the driver switches autocommit off in each new session, and Django on again.
        """
        params = super().get_connection_params()
        params.setdefault("autocommit", self.settings_dict["AUTOCOMMIT"])
        return params

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """The server's version and settings, read once for each pool.

        Django reads them once for each wrapper, which under ASGI is once for each request.
        """
        return self.lease_pool.fact(
            "mysql_server_data", lambda: super(ServerFactsMixin, self).mysql_server_data
        )
