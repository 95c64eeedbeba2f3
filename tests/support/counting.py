"""What a server was asked, what a database has in it, and what a pool has out."""

from __future__ import annotations

from typing import Any, cast

from django.db import connections

from poollife.backends.mixin import PooledMixin
from poollife.pools.pool import LeasePool
from servers import MariaDB


def pool_of(alias: str) -> LeasePool:
    """This process's pool of an alias."""
    return cast(PooledMixin, connections[alias]).lease_pool


#: For each table its rows, and its definition.
Content = dict[str, tuple[list[tuple[Any, ...]], str]]


def content(server: MariaDB, name: str) -> Content:
    """All that a database has in it; a definition's AUTO_INCREMENT tells of rolled back inserts too."""
    return {
        table: (
            sorted(server.execute(f"SELECT * FROM `{name}`.`{table}`")),
            server.execute(f"SHOW CREATE TABLE `{name}`.`{table}`")[0][1],
        )
        for (table,) in server.execute(f"SHOW TABLES FROM `{name}`")
    }


class Questions:
    """``with Questions(server) as asked: ...`` and then ``asked.count``: exactly what the block sent."""

    def __init__(self, server: MariaDB) -> None:
        self._server = server
        self._before = 0
        self.count = 0

    def __enter__(self) -> Questions:
        self._before = self._server.status("Questions")
        return self

    def __exit__(self, *_: object) -> None:
        after = self._server.status("Questions")
        self.count = after - self._before - self._server.QUESTIONS_PER_EXECUTE
