"""The questions to a server that ``pool_budget`` and ``pool_check`` ask: a module for each dialect."""

from __future__ import annotations

from poollife.monitoring.dialects.base import Dialect
from poollife.monitoring.dialects.mysql import MySQL
from poollife.monitoring.dialects.postgresql import PostgreSQL

#: The dialects by Django's name of the vendor. A vendor that is not here has no server to ask.
DIALECTS: dict[str, Dialect] = {each.vendor: each for each in (MySQL(), PostgreSQL())}
