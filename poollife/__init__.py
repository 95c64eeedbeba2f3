"""Connection pooling for Django on SQLAlchemy's pool, with hooks for requests, threads and processes."""

from importlib import import_module
from typing import TYPE_CHECKING

from poollife.control import (
    drain_pool,
    pool_available,
    renew_pool,
    resize_pool,
    resume_pool,
    suspend_pool,
)
from poollife.fork import close_pool
from poollife.monitoring.stats import pool_stats
from poollife.threads import PooledThread, PooledThreadPoolExecutor, auto_close_db

if TYPE_CHECKING:
    from poollife.errors import ForkedTransaction, PoolOverloaded, PoolTimeout

__all__ = [
    "ForkedTransaction",
    "PoolOverloaded",
    "PoolTimeout",
    "PooledThread",
    "PooledThreadPoolExecutor",
    "auto_close_db",
    "close_pool",
    "drain_pool",
    "pool_available",
    "pool_stats",
    "renew_pool",
    "resize_pool",
    "resume_pool",
    "suspend_pool",
]
__version__ = "0.2.0"

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # These errors are subclasses of Django's. A gunicorn master that loads no site imports no Django.
        if name in ("ForkedTransaction", "PoolOverloaded", "PoolTimeout"):
            return getattr(import_module("poollife.errors"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
