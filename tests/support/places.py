"""A GeoDjango model, for test_gis.py. Importing it takes the libraries of GDAL and GEOS."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.gis.db import models

#: WGS 84: longitude and latitude.
SRID = 4326


class Place(models.Model):
    """Something on a map."""

    name = models.CharField(max_length=100)
    point = models.PointField(srid=SRID)

    objects: ClassVar[models.Manager[Place]] = models.Manager()

    class Meta:
        app_label = "places"

    def __str__(self) -> str:
        return self.name
