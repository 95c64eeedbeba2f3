"""poollife's SQLite wrapper."""

from poollife.backends.sqlite3.base import DatabaseWrapper

__all__ = ["DatabaseWrapper"]
