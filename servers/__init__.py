"""Private database servers for the tests, the demo and the benchmarks; not part of the wheel."""

from servers.certificates import Certificates
from servers.mariadb import MariaDB
from servers.missing import Missing
from servers.oracle.server import OracleStandIn
from servers.packets import Count, PacketProxy
from servers.pgbouncer import PgBouncer
from servers.postgresql import PostgreSQL
from servers.private import PrivateServer, Session, Via
from servers.proxy import Proxy

__all__ = [
    "Certificates",
    "Count",
    "MariaDB",
    "Missing",
    "OracleStandIn",
    "PacketProxy",
    "PgBouncer",
    "PostgreSQL",
    "PrivateServer",
    "Proxy",
    "Session",
    "Via",
]
