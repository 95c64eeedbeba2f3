"""Private database servers for the tests, the demo and the benchmarks; not part of the wheel."""

from servers.certificates import Certificates
from servers.mariadb import MariaDB, Session

__all__ = ["Certificates", "MariaDB", "Session"]
