"""The parts of a Django backend that raw SQL needs. The other parts refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import NotSupportedError
from django.db.backends.base.client import BaseDatabaseClient
from django.db.backends.base.creation import BaseDatabaseCreation
from django.db.backends.base.features import BaseDatabaseFeatures
from django.db.backends.base.introspection import BaseDatabaseIntrospection, TableInfo
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

if TYPE_CHECKING:
    from poollife.backends.jdbc.common import JDBCMixin

RAW_ONLY = (
    "This ENGINE of JDBC makes no SQL: it runs your own SQL, by connection.cursor() or "
    "Model.objects.raw(). For Django's queries and migrations use an ENGINE of this database."
)


class DatabaseFeatures(BaseDatabaseFeatures):
    """The features of a database that is not known."""

    #: Otherwise Django makes a table to find it out.
    supports_transactions = True


class DatabaseOperations(BaseDatabaseOperations):
    """Operations that the dialect of the URL decides. Django's queries are refused."""

    connection: JDBCMixin
    compiler_module = "poollife.backends.jdbc.compiler"

    def quote_name(self, name: str) -> str:
        quote = self.connection.dialect.quote
        return name if name.startswith(quote) and name.endswith(quote) else f"{quote}{name}{quote}"

    def last_insert_id(self, cursor: Any, table_name: str, pk_name: str) -> Any:
        return cursor.lastrowid


class DatabaseIntrospection(BaseDatabaseIntrospection):
    """The names of tables, by JDBC's own description of a database."""

    def get_table_list(self, cursor: Any) -> list[TableInfo]:
        connection: Any = self.connection
        return [TableInfo(name, kind) for name, kind in connection.connection.tables()]


class DatabaseSchemaEditor(BaseDatabaseSchemaEditor):
    """An editor that refuses to make tables of models."""

    def create_model(self, model: Any) -> NoReturn:
        raise NotSupportedError(RAW_ONLY)


class DatabaseClient(BaseDatabaseClient):
    """The client of ``dbshell``: there is none for JDBC."""

    def runshell(self, parameters: Any) -> NoReturn:
        raise CommandError("JDBC has no shell: use the client program of this database")


class DatabaseCreation(BaseDatabaseCreation):
    """Test databases, for a URL with ``{NAME}`` in it."""

    connection: JDBCMixin

    def _create_test_db(self, *args: Any, **kwargs: Any) -> str:
        if "{NAME}" not in self.connection.jdbc_setting("JDBC_URL"):
            # Tests would run on the real database.
            raise ImproperlyConfigured(
                f"DATABASES[{self.connection.alias!r}]: no test database can be made, because JDBC_URL names "
                f"the real one. Write {{NAME}} in its place, and the name into NAME; or set TEST['MIRROR']."
            )
        name: str = super()._create_test_db(*args, **kwargs)  # type: ignore[misc]  # the stubs leave it out
        return name
