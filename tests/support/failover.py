"""A failover of MariaDB that leaves the sessions at the old primary."""

from __future__ import annotations

from typing import Any

from servers import MariaDB, Proxy

#: The keys of ``DATABASES`` for the account.
WRITER: dict[str, Any] = {"USER": "writer", "PASSWORD": "writer"}


class Failover:
    """Two servers behind one address, with an account that may not write where that is read-only."""

    def __init__(self, primary: MariaDB, heir: MariaDB, name: str) -> None:
        self.primary, self.heir, self.name = primary, heir, name
        for server in (primary, heir):
            server.execute(f"CREATE DATABASE IF NOT EXISTS {name}")
            server.execute(f"CREATE TABLE {name}.log (n INT) ENGINE=InnoDB")
            server.execute("CREATE OR REPLACE USER writer@'%' IDENTIFIED BY 'writer'")
            server.execute(f"GRANT ALL ON {name}.* TO writer@'%'")

    def __enter__(self) -> Failover:
        return self

    def __exit__(self, *_: object) -> None:
        self.primary.execute("SET GLOBAL read_only = 0")
        self.primary.execute("DROP USER writer@'%'")

    def happen(self, proxy: Proxy) -> None:
        """Sessions that are open stay where they are."""
        self.primary.execute("SET GLOBAL read_only = 1")
        proxy.server = (self.heir.host, self.heir.port)


def rows(server: MariaDB, name: str) -> int:
    return int(server.execute(f"SELECT COUNT(*) FROM {name}.log")[0][0])
