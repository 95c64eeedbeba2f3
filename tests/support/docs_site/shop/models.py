"""One model."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Order(models.Model):
    """Something that somebody ordered."""

    number = models.IntegerField()
    paid = models.BooleanField(default=False)

    objects: ClassVar[models.Manager[Order]] = models.Manager()

    def __str__(self) -> str:
        return f"order {self.number}"
