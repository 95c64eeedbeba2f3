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


def _place(text: str, port: int) -> dict[str, Any]:
    """Return the host and the port of an entry of a list, such as "db1", "db1:3307" or "[::1]:3307"."""
    host, colon, number = text.strip().rpartition(":")
    if colon and number.isdecimal() and (":" not in host or host.endswith("]")):
        return {"host": host.strip("[]"), "port": int(number)}
    return {"host": text.strip().strip("[]"), "port": port}


def _addresses(params: dict[str, Any]) -> set[Any]:
    """Return the addresses to which one host of a list may lead."""
    if params.get("unix_socket"):
        return {params["unix_socket"]}
    host, port = params.get("host"), params.get("port", 3306)
    if host in (None, "", "localhost"):
        return {address("127.0.0.1", port), address("::1", port), *DEFAULT_SOCKETS}
    return {address(host, port)}


class MySQLDriver(Driver):
    """The common part of the descriptions of both drivers: errors and addresses."""

    SESSIONS = (
        "SELECT ID, USER, HOST, CONCAT_WS(': ', COMMAND, NULLIF(STATE, '')), TIME, LEFT(INFO, 200)"
        " FROM information_schema.PROCESSLIST"
        " WHERE ID <> CONNECTION_ID() AND DB = DATABASE()"
        " AND USER = SUBSTRING_INDEX(USER(), '@', 1)"
    )
    has_roles = asks_for_role = True
    #: The base class of the driver's errors that have a number, of the server or of the client.
    error: type[Exception]

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Implement ``Driver.remote_addresses()``, without servers that only an option file names."""
        return {each for place in self.places(params) for each in _addresses(place)}

    def places(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Implement ``Driver.places()``, for hosts with commas between them, with or without a port each.

        libmariadb reads such a list, too. PyMySQL and libmysqlclient do not, and none asks for a role.
        """
        hosts = str(params.get("host") or "")
        if "," not in hosts or ";" in hosts or params.get("unix_socket"):
            return [params]
        return [{**params, **_place(each, params.get("port", 3306))} for each in hosts.split(",")]

    def begin_lazily(self, connection: MySQLConnection) -> None:
        """Implement ``Driver.begin_lazily()``."""
        transactions.begin_lazily(connection)

    def verdict(self, error: Exception) -> Verdict:
        """Implement ``Driver.verdict()``."""
        return verdict_on(error) if isinstance(error, self.error) else Verdict.NONE
