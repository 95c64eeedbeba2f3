"""Django's MySQL backend on PyMySQL, pooled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
from django.db import IntegrityError
from django.db.backends.mysql import base
from django.db.backends.utils import typecast_time
from django.utils.asyncio import async_unsafe
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions

from poollife.backends.mysql.common import CommonMySQLMixin
from poollife.drivers.mysql import pymysql as pymysql_driver

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object

#: PyMySQL's converters with Django's change: Django makes its own from mysqlclient's converters.
CONVERSIONS = {**conversions, FIELD_TYPE.TIME: typecast_time}


class CursorWrapper(base.CursorWrapper):
    """A cursor that turns some errors of the driver into IntegrityError, as Django's does for mysqlclient."""

    def execute(self, query: Any, args: Any = None) -> Any:
        with self._classifying():
            return self.cursor.execute(query, args)

    def executemany(self, query: Any, args: Any) -> Any:
        with self._classifying():
            return self.cursor.executemany(query, args)

    @contextmanager
    def _classifying(self) -> Iterator[None]:
        try:
            yield
        except pymysql.OperationalError as error:
            if error.args[0] in self.codes_for_integrityerror:
                raise IntegrityError(*error.args) from error
            raise


class PyMySQLMixin(MySQLWrapper):
    """A mixin with PyMySQL in the methods where Django's MySQL backend uses the module ``MySQLdb``."""

    Database = pymysql

    def get_connection_params(self) -> dict[str, Any]:
        conversions = self.settings_dict["OPTIONS"].get("conv", CONVERSIONS)
        return {**super().get_connection_params(), "conv": conversions}

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return pymysql_driver.connect(conn_params)

    @async_unsafe
    def create_cursor(self, name: Any = None) -> CursorWrapper:
        return CursorWrapper(self.connection.cursor())

    def is_usable(self) -> bool:
        try:
            self.connection.ping()
        except pymysql.Error:
            return False
        return True


class PooledPyMySQLMixin(CommonMySQLMixin, PyMySQLMixin):
    """A mixin to be put before Django's MySQL DatabaseWrapper, or before a subclass of that."""

    driver = pymysql_driver.driver


class DatabaseWrapper(PooledPyMySQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
