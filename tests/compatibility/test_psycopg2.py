"""Names of psycopg2's: what poollife does about each. (tests/kit/ has the invariants.)"""

from __future__ import annotations

from typing import Any

from psycopg2 import extensions

Connection: Any = extensions.connection
Cursor: Any = extensions.cursor

#: The public names of a connection, by what poollife does about them.
CONNECTION = {
    "guarded": {"autocommit", "cancel", "close", "commit", "cursor", "deferrable", "get_native_connection"}
    | {"isolation_level", "lobject", "poll", "readonly", "reset", "rollback", "set_client_encoding"}
    | {"set_isolation_level", "set_session", "tpc_begin", "tpc_commit", "tpc_prepare", "tpc_recover"}
    | {"tpc_rollback"},
    "compared at the return": {"binary_types", "cursor_factory", "encoding", "string_types"},
    "cleared at the return": {"notices", "notifies"},
    "sends nothing": {"async", "async_", "closed", "dsn", "fileno", "get_backend_pid", "get_dsn_parameters"}
    | {"get_parameter_status", "get_transaction_status", "info", "isexecuting", "pgconn_ptr"}
    | {"protocol_version", "server_version", "status", "xid"},
}
#: The public names of a cursor.
CURSOR = {
    "guarded": {"callproc", "close", "copy_expert", "copy_from", "copy_to", "execute", "executemany"}
    | {"fetchall", "fetchmany", "fetchone", "nextset", "scroll"},
    "sends nothing": {"arraysize", "binary_types", "cast", "closed", "connection", "description", "itersize"}
    | {"lastrowid", "mogrify", "name", "pgresult_ptr", "query", "row_factory", "rowcount", "rownumber"}
    | {"scrollable", "setinputsizes", "setoutputsize", "statusmessage", "string_types", "typecaster"}
    | {"tzinfo_factory", "withhold"},
}


def public(kind: type) -> set[str]:
    return {
        name
        for name in dir(kind)
        if not name.startswith("_") and not name.endswith("Error") and name != "Warning"
    }


def test_every_public_name_of_a_connection_is_known() -> None:
    assert public(Connection) == set().union(*CONNECTION.values())


def test_every_public_name_of_a_cursor_is_known() -> None:
    assert public(Cursor) == set().union(*CURSOR.values())
