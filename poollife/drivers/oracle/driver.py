"""The description of python-oracledb in thin mode: errors, addresses, and how a session is opened."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import oracledb

from poollife.drivers.connection import begin
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.contract import Driver
from poollife.drivers.oracle.connection import OracleConnection
from poollife.drivers.oracle.errors import asynchronous_cause, verdict_on_opening
from poollife.drivers.oracle.opening import ended_if_silent
from poollife.drivers.verdicts import Verdict
from poollife.process.atfork import address
from poollife.process.guard import Guard

THICK = (
    "poollife.backends.oracle needs python-oracledb's thin mode: the sockets of Oracle's client libraries "
    "can't be kept safe across forks."
)
THICK_CURE = "Leave out oracledb.init_oracle_client()."
HIDDEN = (
    "This version of python-oracledb, {version}, keeps its socket where poollife does not find it, so that "
    "poollife can't keep the session safe across forks."
)
#: The driver's own default of ``tcp_connect_timeout``, in seconds, and the port of a listener.
CONNECT_TIMEOUT, PORT = 20.0, 1521
#: The number of objects from the driver's connection to its socket: Protocol, Transport, and the socket.
STEPS = 3


def socket_of(connection: Any) -> Any:
    """Return the socket of a driver connection, or None.

    The objects between them are of Cython's, and have no attributes for Python. Python's garbage collector
    sees what they refer to.

    :param connection: the driver's.
    """
    objects = [connection._impl]
    for _ in range(STEPS):
        objects = gc.get_referents(*objects)
        for each in objects:
            if hasattr(each, "getpeername"):
                return each
        objects = [each for each in objects if type(each).__module__.startswith("oracledb")]
    return None


class Oracle(Driver):
    """The driver python-oracledb."""

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        """Implement ``Driver.adopt()``.

        :raises NotSupportedError: in thick mode, and if the socket is not found.
        """
        driver = connection_of(connection, oracledb.Connection)
        if not driver.thin:
            raise oracledb.NotSupportedError(f"{THICK} {THICK_CURE}")
        if (found := socket_of(driver)) is None:
            raise oracledb.NotSupportedError(HIDDEN.format(version=oracledb.__version__))
        begin(driver, Guard(pid, found.fileno()), OracleConnection)
        driver.mark_clean()
        return connection

    def unwrap(self, connection: Any) -> Any:
        """Implement ``Driver.unwrap()``."""
        if type(connection) is OracleConnection:
            return connection
        return connection_of(connection, OracleConnection)

    def objection(self) -> tuple[str, str] | None:
        """Implement ``Driver.objection()``."""
        return None if oracledb.is_thin_mode() else (THICK, THICK_CURE)

    def remote_addresses(self, params: dict[str, Any]) -> set[Any]:
        """Implement ``Driver.remote_addresses()``, without those that only a listener's redirect names.

        :param params: ``dsn``, and the arguments of ``connect()``.
        """
        given = {"config_dir": params["config_dir"]} if params.get("config_dir") else {}
        parsed = oracledb.ConnectParams(**given)
        try:
            parsed.parse_connect_string(params.get("dsn") or "")
        except oracledb.Error:
            return set()
        hosts, ports = _list(parsed.host), _list(parsed.port)
        if len(ports) < len(hosts):
            ports = ports[:1] * len(hosts)
        return {address(host, int(port or PORT)) for host, port in zip(hosts, ports, strict=False) if host}

    def sets_tcp_timeouts(self, params: dict[str, Any]) -> bool:
        """Implement ``Driver.sets_tcp_timeouts()``: ``expire_time`` is the driver's own option for this."""
        return bool(params.get("expire_time"))

    def idle_limit(self, connection: OracleConnection) -> float | None:
        """Implement ``Driver.idle_limit()``: the profile of the user has it, in minutes."""
        # Not a cursor of the lease, which would count it as one of the borrower's.
        with oracledb.Connection.cursor(connection) as cursor:
            try:
                cursor.execute("SELECT limit FROM user_resource_limits WHERE resource_name = 'IDLE_TIME'")
                row = cursor.fetchone()
            except oracledb.Error:
                return None
        return 60.0 * int(row[0]) if row and str(row[0]).isdigit() else None

    def verdict(self, error: Exception) -> Verdict:
        """Implement ``Driver.verdict()``."""
        return verdict_on_opening(error) if isinstance(error, oracledb.Error) else Verdict.NONE

    def open(self, connect: Callable[[], Any], addresses: set[Any], params: dict[str, Any]) -> Any:
        """Open a session, and end the attempt if the listener accepts it and then does not answer.

        :param connect: opens the session.
        :param addresses: the result of ``remote_addresses()``.
        :param params: the arguments of ``connect()``.
        :returns: the result of ``connect``.
        :raises Error: the driver's, for an error of the system, too.
        :raises BaseException: an asynchronous exception, in place of the driver's error around it.
        """
        try:
            with ended_if_silent(addresses, float(params.get("tcp_connect_timeout") or CONNECT_TIMEOUT)):
                return connect()
        except oracledb.Error as error:
            if cause := asynchronous_cause(error):
                raise cause from error
            raise
        except OSError as error:  # the name of the host is not known
            raise oracledb.OperationalError(f"can't connect: {error}") from error


def _list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


driver = Oracle()
