"""Private database servers for the tests, the demo and the benchmarks; not part of the wheel."""

from servers.certificates import Certificates
from servers.mariadb import MariaDB, Session
from servers.missing import Missing
from servers.proxy import Proxy

__all__ = ["Certificates", "MariaDB", "Missing", "Proxy", "Session"]
