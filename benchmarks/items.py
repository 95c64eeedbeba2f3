"""The table that the parts ``cpu`` and ``throughput`` read and change."""

from __future__ import annotations

from servers import MariaDB

TABLE = "item"
#: The number of rows; their keys are 1 to this. Concurrent requests change different rows, so no request
#: waits for a lock.
ROWS = 1000


def create_items(server: MariaDB, database: str) -> None:
    """Create the table and its rows, in place of a table of that name."""
    name = f"`{database}`.`{TABLE}`"
    rows = ", ".join(f"({key}, 'item {key}', 0)" for key in range(1, ROWS + 1))
    server.execute(f"DROP TABLE IF EXISTS {name}")
    server.execute(
        f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL, number INT NOT NULL)"
        " ENGINE=InnoDB"
    )
    server.execute(f"INSERT INTO {name} VALUES {rows}")
