"""Connection pooling for Django on SQLAlchemy's pool, with hooks for requests, threads and processes."""

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

__all__ = [
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
__version__ = "0.1.0"
