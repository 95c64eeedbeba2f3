"""One model."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Row(models.Model):
    """Something to lose."""

    name = models.CharField(max_length=100)
    note = models.CharField(max_length=100, default="")

    objects: ClassVar[models.Manager[Row]] = models.Manager()

    def __str__(self) -> str:
        return self.name
