"""The common part of the backends of both MySQL drivers: they leave out round trips that no session needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin
from poollife.backends.opening import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object


class CommonMySQLMixin(PooledMixin, MySQLWrapper):
    """A mixin whose wrappers open sessions in autocommit mode, and share one answer about the server."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect()``, with the value of autocommit among them.

        Without it the driver switches autocommit off in each new session, and Django on again.
        """
        params = super().get_connection_params()
        params.setdefault("autocommit", self.settings_dict["AUTOCOMMIT"])
        return params

    def open_connection(self, params: dict[str, Any]) -> Any:
        """Open a session, with a limit for that where neither ``OPTIONS`` nor a file has one.

        :param params: the arguments of the driver's ``connect()``.
        """
        if self.driver.option_files.isdisjoint(params):
            params = {"connect_timeout": CONNECT_TIMEOUT, **params}
        return super().open_connection(params)

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        """The server's version and settings, read once for each pool.

        Django reads them once for each wrapper, which under ASGI is once for each request.
        """
        return self.lease_pool.fact(
            "mysql_server_data", lambda: super(CommonMySQLMixin, self).mysql_server_data
        )
