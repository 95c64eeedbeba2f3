"""A backend made from Django's by somebody who has never heard of pools."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.backends.mysql import base
from django.db.backends.mysql.creation import DatabaseCreation
from django.db.backends.mysql.features import DatabaseFeatures


class VendorCreation(DatabaseCreation):
    """Test databases have a name of its own."""

    def _get_test_db_name(self) -> str:
        return f"vendor_{self.connection.settings_dict['NAME']}"


class VendorFeatures(DatabaseFeatures):
    """The database can't do something."""

    supports_json_field = False


class VendorWrapper(base.DatabaseWrapper):
    """Adds something to every step of opening a connection, and counts."""

    creation_class: type[DatabaseCreation] = VendorCreation
    features_class = VendorFeatures

    opened: ClassVar[list[int]] = []
    initialised: ClassVar[list[int]] = []
    #: What tests put in the way.
    while_opening: ClassVar[Any] = None
    while_initialising: ClassVar[Any] = None

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "init_command": "SET @vendor = 'here'"}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        self.opened.append(connection.thread_id())
        return self.while_opening(connection) if self.while_opening else connection

    def init_connection_state(self) -> None:
        super().init_connection_state()
        if self.while_initialising:
            self.while_initialising()
        with self.cursor() as cursor:
            cursor.execute("SET SESSION group_concat_max_len = 4321")
        self.initialised.append(self.connection.thread_id())
