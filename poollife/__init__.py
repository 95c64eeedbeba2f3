"""Connection pooling for Django on SQLAlchemy's pool, with the life cycle that makes it safe."""

from poollife.monitoring.stats import pool_stats

__all__ = ["pool_stats"]
__version__ = "0.1.0"
