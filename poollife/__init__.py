"""Connection pooling for Django on SQLAlchemy's pool, with the life cycle that makes it safe."""

from poollife.fork import close_pool
from poollife.monitoring.stats import pool_stats
from poollife.threads import PooledThread, PooledThreadPoolExecutor, auto_close_db

__all__ = ["PooledThread", "PooledThreadPoolExecutor", "auto_close_db", "close_pool", "pool_stats"]
__version__ = "0.1.0"
