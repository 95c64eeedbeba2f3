"""The common part of the descriptions of both drivers: errors and addresses."""

from __future__ import annotations

import os
from typing import Any

from poollife.drivers.contract import Driver
from poollife.drivers.mysql import transactions
from poollife.drivers.mysql.connection import MySQLConnection
from poollife.drivers.mysql.errors import verdict_on
from poollife.drivers.verdicts import Verdict
from poollife.process.atfork import address

#: Paths where the client libraries of the distributions look for a server on this machine.
DEFAULT_SOCKETS = {
    os.environ.get("MYSQL_UNIX_PORT"),
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
}


class MySQLDriver(Driver):
    """The common part of the descriptions of both drivers: errors and addresses."""

    SESSIONS = (
        "SELECT ID, USER, HOST, CONCAT_WS(': ', COMMAND, NULLIF(STATE, '')), TIME, LEFT(INFO, 200)"
        " FROM information_schema.PROCESSLIST"
        " WHERE ID <> CONNECTION_ID() AND DB = DATABASE()"
        " AND USER = SUBSTRING_INDEX(USER(), '@', 1)"
    )
    #: The base class of the driver's errors that have a number, of the server or of the client.
    error: type[Exception]

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Implement ``Driver.remote_addresses()``, without servers that only an option file names."""
        if params.get("unix_socket"):
            return {params["unix_socket"]}
        host, port = params.get("host"), params.get("port", 3306)
        if host in (None, "", "localhost"):
            return {address("127.0.0.1", port), address("::1", port), *DEFAULT_SOCKETS}
        return {address(host, port)}

    def begin_lazily(self, connection: MySQLConnection) -> None:
        """Implement ``Driver.begin_lazily()``."""
        transactions.begin_lazily(connection)

    def verdict(self, error: Exception) -> Verdict:
        """Implement ``Driver.verdict()``."""
        return verdict_on(error) if isinstance(error, self.error) else Verdict.NONE
