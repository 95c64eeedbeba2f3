"""The driver alone, with which a pool of SQLAlchemy without Django opens sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def connector(entry: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that opens a session.

    :param entry: the entry of ``DATABASES``.
    """
    # Imported here: some processes that import this module do not measure mysqlclient.
    import MySQLdb

    return lambda: MySQLdb.connect(
        host=entry["HOST"],
        port=int(entry["PORT"]),
        user=entry["USER"],
        password=entry["PASSWORD"],
        database=entry["NAME"],
    )
