"""The peers: poollife, and the other ways to give Django its MySQL connections."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field, replace
from typing import Any

STOCK = "django.db.backends.mysql"


@dataclass(frozen=True)
class Peer:
    """A way to give Django its MySQL connections."""

    name: str
    engine: str
    #: Keys of its entry in DATABASES, without the server, database, user and password.
    entry: dict[str, Any] = field(default_factory=dict)
    #: Keys for a pool of a single session, so that the next borrower gets what the last one left in it.
    alone: dict[str, Any] = field(default_factory=dict)
    middleware: tuple[str, ...] = ()
    #: True if Django keeps the connection after a request, so ``close()`` would end the session.
    persistent: bool = False
    #: The packages that pip installs; their versions are reported.
    packages: tuple[str, ...] = ("mysqlclient",)

    def missing(self) -> str | None:
        """Return the first package that is not installed; None if all are."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return package
        return None


#: SQLAlchemy's own pool without Django. The report has each time also as a multiple of its time.
BARE = Peer("SQLAlchemy's QueuePool, bare", "")

POOLLIFE = Peer(
    "poollife",
    "poollife.backends.mysql",
    alone={"POOL": {"pool_size": 1, "max_overflow": 0}},
    middleware=("poollife.middleware.PoolMiddleware",),
    packages=("SQLAlchemy", "mysqlclient"),
)
PEERS = (
    Peer("stock, CONN_MAX_AGE=0", STOCK, {"CONN_MAX_AGE": 0}),
    Peer("stock, 0, health checks", STOCK, {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}),
    Peer("stock, CONN_MAX_AGE=600", STOCK, {"CONN_MAX_AGE": 600}, persistent=True),
    Peer(
        "stock, 600, health checks",
        STOCK,
        {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True},
        persistent=True,
    ),
    Peer(
        "django-db-connection-pool",
        "dj_db_conn_pool.backends.mysql",
        alone={"POOL_OPTIONS": {"POOL_SIZE": 1, "MAX_OVERFLOW": 0}},
        packages=("django-db-connection-pool", "SQLAlchemy", "mysqlclient"),
    ),
    Peer(
        "mysql-connector-python",
        "mysql.connector.django",
        {"OPTIONS": {"pool_name": "bench", "pool_size": 5}},
        {"OPTIONS": {"pool_name": "bench", "pool_size": 1}},
        packages=("mysql-connector-python",),
    ),
    POOLLIFE,
    *(
        replace(
            POOLLIFE,
            name=f"poollife, reset {reset}",
            entry={"POOL": {"reset": reset}},
            alone={"POOL": {"pool_size": 1, "max_overflow": 0, "reset": reset}},
        )
        for reset in ("always", "rollback")
    ),
)
