"""django-prometheus' backend, pooled."""

from __future__ import annotations

from django_prometheus.db.backends.mysql import base

from poollife.backends.mysql.base import PooledMySQLMixin


class DatabaseWrapper(PooledMySQLMixin, base.DatabaseWrapper):  # type: ignore[misc]  # that package is not typed
    """The two together."""
