"""django-prometheus' backend of PostgreSQL, pooled."""

from __future__ import annotations

from django_prometheus.db.backends.postgresql import base

from poollife.backends.postgresql.base import PooledPostgreSQLMixin


class DatabaseWrapper(PooledPostgreSQLMixin, base.DatabaseWrapper):  # type: ignore[misc]  # that package is not typed
    """The two together."""
