"""GeoDjango's MySQL backend, pooled. It needs GEOS and GDAL, as GeoDjango does."""

from __future__ import annotations

from django.contrib.gis.db.backends.mysql import base

from poollife.backends.mysql.base import PooledMySQLMixin


class DatabaseWrapper(PooledMySQLMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
