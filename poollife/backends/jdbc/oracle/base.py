"""Django's Oracle backend on JDBC, pooled. Neither Oracle's JDBC driver nor a server was ever tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.backends.oracle import base, operations
from django.db.backends.utils import strip_quotes

from poollife.backends.jdbc.common import PooledJDBCMixin
from poollife.drivers.jdbc.dialects import ORACLE

if TYPE_CHECKING:
    from django.db.backends.oracle.base import DatabaseWrapper as OracleWrapper
else:
    OracleWrapper = object


class DatabaseOperations(operations.DatabaseOperations):
    """Django's operations, without those that need a cursor of python-oracledb."""

    last_executed_query = BaseDatabaseOperations.last_executed_query

    def last_insert_id(self, cursor: Any, table_name: str, pk_name: str) -> Any:
        """Return the number that the sequence of a table has drawn in this session.

        Django's method sends no SELECT around it (Django 5.2), and is not used with python-oracledb.
        """
        name = self._get_sequence_name(cursor, strip_quotes(table_name), pk_name)  # type: ignore[attr-defined]
        cursor.execute(f'SELECT "{name}".CURRVAL FROM DUAL')
        return cursor.fetchone()[0]


class PooledOracleJDBCMixin(PooledJDBCMixin, OracleWrapper):
    """A mixin to be put before Django's Oracle DatabaseWrapper, or before a subclass of that."""

    ops_class = DatabaseOperations
    #: Also behind a URL that does not say so, such as OceanBase's.
    dialect = ORACLE
    #: Django's own pool, which is never used.
    pool = None
    needed_settings = {}
    default_settings = {
        "JDBC_DRIVER": "oracle.jdbc.OracleDriver",
        "JDBC_URL": "jdbc:oracle:thin:@//{HOST}:{PORT}/{NAME}",
        "HOST": "localhost",
        "PORT": "1521",
    }
    caveat = (
        "ENGINE 'poollife.backends.jdbc.oracle' is experimental: it was never tried with Oracle's JDBC "
        "driver, nor on Oracle.",
        "'poollife.backends.oracle' needs no Java, and was tested with Oracle's driver for Python. If this "
        "one works for you, silence this.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # JDBC has no variable of the driver's for RETURNING ... INTO.
        self.features.can_return_columns_from_insert = False
        self.features.can_return_rows_from_update = False
        # Otherwise Django asks each wrapper's first session, and looks for an exception of python-oracledb.
        self.operators = self._standard_operators  # type: ignore[attr-defined]  # the stubs leave them out
        self.pattern_ops = self._standard_pattern_ops  # type: ignore[attr-defined]

    def close_pool(self) -> None:
        """Do nothing: this would close Django's own pool. ``poollife.close_pool()`` closes poollife's."""

    def _commit(self) -> None:
        # Django's method for Oracle knows the exceptions of python-oracledb only.
        BaseDatabaseWrapper._commit(self)  # type: ignore[attr-defined]


class DatabaseWrapper(PooledOracleJDBCMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
