"""The tables that the parts ``cpu``, ``throughput`` and ``last_ids`` read and change."""

from __future__ import annotations

from typing import Any

from benchmarks.dialects import Dialect

TABLE = "item"
#: The number of rows; their keys are 1 to this. Concurrent requests change different rows, so no request
#: waits for a lock.
ROWS = 1000
#: The table whose keys the server draws.
DRAWN = "drawn"


def create_items(dialect: Dialect, server: Any, database: str) -> None:
    """Create the table and its rows, in place of a table of that name."""
    rows = ", ".join(f"({key}, 'item {key}', 0)" for key in range(1, ROWS + 1))
    dialect.execute(
        server,
        database,
        f"DROP TABLE IF EXISTS {{at}}{TABLE}",
        f"CREATE TABLE {{at}}{TABLE} (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL, number INT NOT NULL)",
        f"INSERT INTO {{at}}{TABLE} VALUES {rows}",
    )


def create_drawn(dialect: Dialect, server: Any, database: str) -> None:
    """Create the table whose keys the server draws."""
    dialect.execute(
        server,
        database,
        f"CREATE TABLE {{at}}{DRAWN} (id {dialect.serial} PRIMARY KEY, tag VARCHAR(40) NOT NULL)",
    )
