"""The same with the general mixin."""

from __future__ import annotations

from poollife.backends.mixin import PooledMixin
from poollife.drivers.mysql import mysqlclient
from tests.support.engines.vendor import VendorWrapper


class DatabaseWrapper(PooledMixin, VendorWrapper):
    """The driver is all that it needs to be told."""

    driver = mysqlclient.driver
