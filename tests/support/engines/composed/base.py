"""The vendor's backend, pooled."""

from __future__ import annotations

from poollife.backends.mysql.base import PooledMySQLMixin
from tests.support.engines.vendor import VendorWrapper


class DatabaseWrapper(PooledMySQLMixin, VendorWrapper):
    """The two together."""
