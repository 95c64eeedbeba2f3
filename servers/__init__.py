"""Private database servers for the tests, the demo and the benchmarks; not part of the wheel."""

from servers.certificates import Certificates
from servers.mariadb import MariaDB, Session
from servers.proxy import Proxy

__all__ = ["Certificates", "MariaDB", "Proxy", "Session"]
