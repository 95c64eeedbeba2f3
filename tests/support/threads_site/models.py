"""Something to ask the ORM for."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Visit(models.Model):
    """Counted, but never made."""

    objects: ClassVar[models.Manager[Visit]] = models.Manager()

    class Meta:
        app_label = "threads_site"
        db_table = "visits"
        managed = False  # the test makes the table
