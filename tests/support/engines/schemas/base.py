"""django-tenants' backend, pooled. docs/tools.md has the same."""

from __future__ import annotations

from django_tenants.postgresql_backend import base

from poollife.backends.postgresql.base import PooledPostgreSQLMixin


class DatabaseWrapper(PooledPostgreSQLMixin, base.DatabaseWrapper):  # type: ignore[misc]  # that package is not typed
    """The two together."""

    def connect(self) -> None:
        """Borrow a session, and have the next cursor set its search_path."""
        self.search_path_set_schemas = None
        super().connect()
