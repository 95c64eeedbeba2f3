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

from poollife.backends.mysql.facts import ServerFactsMixin
from poollife.drivers.mysql import pymysql as pymysql_driver

if TYPE_CHECKING:
    from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
else:
    MySQLWrapper = object

#: As Django's, which are made from the other driver's.
CONVERSIONS = {**conversions, FIELD_TYPE.TIME: typecast_time}


class CursorWrapper(base.CursorWrapper):
    """Raises Django's own IntegrityError where the driver has another, as Django's does for mysqlclient."""

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
    """What Django's MySQL backend does by the module that it found under mysqlclient's name."""

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


class PooledPyMySQLMixin(ServerFactsMixin, PyMySQLMixin):
    """Put before a DatabaseWrapper that is Django's MySQL one or made from it."""

    driver = pymysql_driver.driver


class DatabaseWrapper(PooledPyMySQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
