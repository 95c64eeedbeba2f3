"""poollife's PostgreSQL wrapper."""

from poollife.backends.postgresql.base import DatabaseWrapper

__all__ = ["DatabaseWrapper"]
