"""The common part of the descriptions of both drivers: errors and addresses."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Mapping
from typing import Any

from poollife.drivers.contract import Driver
from poollife.drivers.postgresql import poolers
from poollife.drivers.postgresql.connection import PostgreSQLConnection
from poollife.drivers.postgresql.errors import verdict_on_opening
from poollife.drivers.verdicts import Verdict
from poollife.process.atfork import address
from poollife.process.greenlets import is_patched

#: Parameters of libpq that do what ``network_timeout`` does.
TCP_TIMEOUTS = frozenset({"tcp_user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count"})
#: Folders where libpq looks for the socket of a server on this machine, as distributions build it.
SOCKET_FOLDERS = ("/var/run/postgresql", "/run/postgresql", "/tmp")


class PostgreSQLDriver(Driver):
    """The common part of the descriptions of both drivers: errors and addresses."""

    SESSIONS = (
        "SELECT pid, usename, host(client_addr),"
        " concat_ws(': ', state, wait_event_type || ' ' || wait_event),"
        " extract(epoch FROM clock_timestamp() - state_change), left(query, 200)"
        " FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database() AND usename = current_user"
        " AND backend_type = 'client backend'"
    )
    has_roles = True
    #: The base class of the driver's errors.
    error: type[Exception]

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``connect()`` by which it makes a connection that ``adopt()`` can guard.

        :param params: the arguments as Django makes them.
        """
        return params

    def name_session(self, params: dict[str, Any], template: str, alias: str) -> dict[str, Any]:
        """Return arguments of ``connect()`` with a name for the session.

        libpq takes a name of the user's own first: from ``OPTIONS``, ``PGAPPNAME`` or a service file.

        :param params: the arguments.
        :param template: the option ``application_name``.
        :param alias: the alias that opens the session.
        """
        name = template.format(alias=alias, host=socket.gethostname(), pid=os.getpid())
        return {**params, "fallback_application_name": name}

    def guard_cursor(self, cursor: Any, lease: Any) -> None:
        """Guard a named cursor that was made without the connection's ``cursor()``, as Django makes its own.

        :param cursor: the cursor, or a proxy of it, which is left alone.
        :param lease: the lease of its connection.
        """

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Implement ``Driver.remote_addresses()``, without servers that only a service file names."""
        hosts = _list(params.get("hostaddr") or params.get("host"), "PGHOSTADDR", "PGHOST")
        ports = _list(params.get("port"), "PGPORT") or ["5432"]
        if len(ports) < len(hosts):
            ports = ports[:1] * len(hosts)
        found: set[Any] = set()
        for host, port in zip(hosts or [""], ports, strict=False):
            found |= _addresses(host, int(port or 5432))
        return found

    def sets_tcp_timeouts(self, params: dict[str, Any]) -> bool:
        """Implement ``Driver.sets_tcp_timeouts()``: libpq has parameters for the same options."""
        return not TCP_TIMEOUTS.isdisjoint(params)

    def idle_limit(self, connection: PostgreSQLConnection) -> float | None:
        """Implement ``Driver.idle_limit()``. Servers before PostgreSQL 14 keep idle sessions."""
        rows = connection.run("SELECT setting FROM pg_settings WHERE name = 'idle_session_timeout'", 30.0)
        milliseconds = int(rows[0][0]) if rows else 0
        return milliseconds / 1000 or None

    def objections(self, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Implement ``Driver.objections()``."""
        return poolers.objections(entry)

    def verdict(self, error: Exception) -> Verdict:
        """Implement ``Driver.verdict()``."""
        return verdict_on_opening(error) if isinstance(error, self.error) else Verdict.NONE


def warn_if_blocking(blocks: bool, cure: str) -> None:
    """Warn that each wait for the server stops all greenlets of this process.

    :param blocks: whether the driver does not wait in gevent's hub.
    :param cure: what to do, for people.
    """
    if blocks and is_patched("socket"):
        warnings.warn(
            f"gevent has patched this process, but the driver of PostgreSQL does not know it: while one "
            f"greenlet waits for the server, all others stand still. {cure}",
            RuntimeWarning,
            stacklevel=2,
        )


def _list(given: Any, *variables: str) -> list[str]:
    """Return the values of a parameter that may be a list, or those of the first variable that is set."""
    text = next((value for value in (given, *map(os.environ.get, variables)) if value), "")
    return str(text).split(",") if text else []


def _addresses(host: str, port: int) -> set[Any]:
    """Return the addresses to which a host of libpq's may lead."""
    name = f".s.PGSQL.{port}"
    if host.startswith("/"):
        return {f"{host}/{name}"}
    if host.startswith("@"):
        return {f"\0{host[1:]}/{name}".encode()}
    if not host:
        return {f"{folder}/{name}" for folder in SOCKET_FOLDERS} | {
            address("127.0.0.1", port),
            address("::1", port),
        }
    return {address(host, port)}
