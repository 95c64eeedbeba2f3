"""The peers: poollife, and the other ways to give Django its connections."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

#: The errors of ``benchmarks.install``, by the name of the package.
NOT_INSTALLED = Path(sys.prefix, "not-installed.json")
#: Seconds after which a checkout gives up in the part ``fair``, where a pool has such a limit.
TIMEOUT = 5
#: The same limit in the other parts: a busy machine is no reason to give up.
PATIENCE = 30
#: Sessions of a pool that more threads share.
SHARED = 4


def unlimited(size: int, timeout: int) -> dict[str, Any]:
    """Return the keys of a peer without a pool: each thread has a connection of its own."""
    return {}


@dataclass(frozen=True)
class Peer:
    """A way to give Django its connections."""

    name: str
    engine: str
    #: Keys of its entry in DATABASES, without the server, database, user and password.
    entry: dict[str, Any] = field(default_factory=dict)
    #: Returns the keys for a pool of so many sessions at most, in which a checkout waits for so many seconds.
    pool: Callable[[int, int], dict[str, Any]] = unlimited
    middleware: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    #: True if Django keeps the connection after a request, so ``close()`` would end the session.
    persistent: bool = False
    #: The packages that pip installs; their versions are reported.
    packages: tuple[str, ...] = ("mysqlclient",)
    #: True if gevent has to patch the standard library in its processes.
    gevent: bool = False

    def missing(self) -> str | None:
        """Return the first package that is not installed, and why if pip has said so; None if all are."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                errors = json.loads(NOT_INSTALLED.read_text()) if NOT_INSTALLED.exists() else {}
                return f"{package} is not installed" + (f" ({errors[package]})" if package in errors else "")
        return None

    def database(
        self, entry: dict[str, Any], size: int, timeout: int = PATIENCE, **pool: Any
    ) -> dict[str, Any]:
        """Return the whole entry for ``DATABASES``.

        :param entry: the entry with the server, database, user and password.
        :param size: the sessions that a pool may have.
        :param timeout: seconds after which a checkout gives up.
        :param pool: more keys for poollife's ``POOL``.
        """
        own = {**self.entry, **self.pool(size, timeout)}
        if "POOL" in own:
            own["POOL"] = {**self.entry.get("POOL", {}), **own["POOL"], **pool}
        options = {key: {**entry.get(key, {}), **own[key]} for key in ("OPTIONS",) if key in own}
        return {**entry, **own, **options, "ENGINE": self.engine}


#: poollife with transactions that begin with their first statement.
LAZY = "poollife, lazy_begin"
#: SQLAlchemy's own pool without Django. The report has each time also as a multiple of its time.
BARE = Peer("SQLAlchemy's QueuePool, bare", "")


def poollife(database: str, *packages: str) -> tuple[Peer, ...]:
    """Return poollife, with its defaults and with other settings."""
    usual = Peer(
        "poollife",
        f"poollife.backends.{database}",
        pool=lambda size, timeout: {"POOL": {"pool_size": size, "max_overflow": 0, "timeout": timeout}},
        middleware=("poollife.middleware.PoolMiddleware",),
        apps=("poollife",),
        packages=("SQLAlchemy", *packages),
    )
    others = [
        replace(usual, name=f"poollife, reset {reset}", entry={"POOL": {"reset": reset}})
        for reset in ("always", "rollback")
    ]
    return (usual, replace(usual, name=LAZY, entry={"POOL": {"lazy_begin": True}}), *others)


def stock(database: str, age: int | None, *packages: str, checks: bool = False) -> Peer:
    """Return Django without a pool.

    :param age: its ``CONN_MAX_AGE``.
    :param checks: its ``CONN_HEALTH_CHECKS``.
    """
    return Peer(
        f"stock, {age}, health checks" if checks else f"stock, CONN_MAX_AGE={age}",
        f"django.db.backends.{database}",
        {"CONN_MAX_AGE": age, "CONN_HEALTH_CHECKS": checks},
        persistent=age != 0,
        packages=packages,
    )


def django_db_connection_pool(database: str, *packages: str) -> Peer:
    return Peer(
        "django-db-connection-pool",
        f"dj_db_conn_pool.backends.{database}",
        pool=lambda size, timeout: {
            "POOL_OPTIONS": {"POOL_SIZE": size, "MAX_OVERFLOW": 0, "TIMEOUT": timeout}
        },
        packages=("django-db-connection-pool", "SQLAlchemy", *packages),
    )


def psycopg_pool(size: int, timeout: int) -> dict[str, Any]:
    """Return the keys of Django's own pool."""
    return {"OPTIONS": {"pool": {"min_size": size, "max_size": size, "timeout": timeout}}}


PEERS = {
    "mysql": (
        stock("mysql", 0, "mysqlclient"),
        stock("mysql", 0, "mysqlclient", checks=True),
        stock("mysql", 600, "mysqlclient"),
        stock("mysql", 600, "mysqlclient", checks=True),
        django_db_connection_pool("mysql", "mysqlclient"),
        Peer(
            "mysql-connector-python",
            "mysql.connector.django",
            pool=lambda size, timeout: {"OPTIONS": {"pool_name": "bench", "pool_size": size}},
            packages=("mysql-connector-python",),
        ),
        *poollife("mysql", "mysqlclient"),
    ),
    "postgresql": (
        stock("postgresql", None, "psycopg"),
        stock("postgresql", 0, "psycopg"),
        Peer(
            "Django's own pool",
            "django.db.backends.postgresql",
            pool=psycopg_pool,
            packages=("psycopg", "psycopg-pool"),
        ),
        django_db_connection_pool("postgresql", "psycopg"),
        Peer(
            "django-db-geventpool",
            "django_db_geventpool.backends.postgresql_psycopg3",
            pool=lambda size, timeout: {"OPTIONS": {"MAX_CONNS": size, "pool": False}},
            packages=("django-db-geventpool", "gevent", "psycopg"),
            gevent=True,
        ),
        Peer(
            "django-pg-real-pool",
            "django_pg_real_pool",
            pool=psycopg_pool,
            packages=("django-pg-real-pool", "psycopg", "psycopg-pool"),
        ),
        *poollife("postgresql", "psycopg"),
    ),
}
#: The peers of the part ``throughput``.
SITES = {
    "mysql": (
        stock("mysql", None, "mysqlclient"),
        stock("mysql", 0, "mysqlclient"),
        *poollife("mysql", "mysqlclient")[:2],
    ),
    "postgresql": tuple(peer for peer in PEERS["postgresql"] if "reset" not in peer.name),
}
