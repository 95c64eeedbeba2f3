"""Django's MySQL backend, pooled."""

from __future__ import annotations

from django.db.backends.mysql import base

from poollife.backends.mysql.common import CommonMySQLMixin
from poollife.drivers.mysql import mysqlclient


class PooledMySQLMixin(CommonMySQLMixin):
    """A mixin to be put before Django's MySQL DatabaseWrapper, or before a subclass of that."""

    driver = mysqlclient.driver


class DatabaseWrapper(PooledMySQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
