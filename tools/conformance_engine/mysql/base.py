"""poollife's MySQL wrapper."""

from poollife.backends.mysql.base import DatabaseWrapper

__all__ = ["DatabaseWrapper"]
