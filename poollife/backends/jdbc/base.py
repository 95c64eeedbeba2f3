"""Raw SQL through JDBC, pooled."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.base.validation import BaseDatabaseValidation

from poollife.backends.jdbc.common import PooledJDBCMixin
from poollife.backends.jdbc.operations import (
    DatabaseClient,
    DatabaseCreation,
    DatabaseFeatures,
    DatabaseIntrospection,
    DatabaseOperations,
    DatabaseSchemaEditor,
)


class RawWrapper(BaseDatabaseWrapper):
    """A backend without SQL of its own."""

    vendor = "jdbc"
    display_name = "JDBC"
    SchemaEditorClass = DatabaseSchemaEditor
    client_class = DatabaseClient
    creation_class = DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations
    validation_class = BaseDatabaseValidation


class DatabaseWrapper(PooledJDBCMixin, RawWrapper):
    """The wrapper that ``ENGINE`` names."""

    def __init__(self, settings_dict: dict[str, Any], alias: str) -> None:
        super().__init__(settings_dict, alias)
        if alias == NO_DB_ALIAS and not settings_dict["NAME"]:
            settings_dict["NAME"] = self.dialect.maintenance
