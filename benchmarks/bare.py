"""The driver by itself: what a pool of SQLAlchemy's without Django opens sessions with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def connector(entry: dict[str, Any]) -> Callable[[], Any]:
    """A function that opens one.

    :param entry: of ``DATABASES``.
    """
    # Not every process that imports this measures mysqlclient.
    import MySQLdb

    return lambda: MySQLdb.connect(
        host=entry["HOST"],
        port=int(entry["PORT"]),
        user=entry["USER"],
        password=entry["PASSWORD"],
        database=entry["NAME"],
    )
