"""Two models, one of which refers to the other."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Customer(models.Model):
    """Who has tickets."""

    name = models.CharField(max_length=100, unique=True)

    objects: ClassVar[models.Manager[Customer]] = models.Manager()

    def __str__(self) -> str:
        return self.name


class Ticket(models.Model):
    """What they have."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    title = models.CharField(max_length=100)
    done = models.BooleanField(default=False)

    objects: ClassVar[models.Manager[Ticket]] = models.Manager()

    def __str__(self) -> str:
        return self.title
