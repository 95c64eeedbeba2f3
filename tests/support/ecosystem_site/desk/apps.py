"""An app that may query as soon as it is ready."""

from __future__ import annotations

import warnings

from django.apps import AppConfig
from django.conf import settings
from django.db import connection


class DeskConfig(AppConfig):
    """Has a session on the real database before there is one for tests, and never closes it."""

    name = "tests.support.ecosystem_site.desk"

    def ready(self) -> None:
        """Look into the database, if ``LOOK_EARLY`` says so."""
        if getattr(settings, "LOOK_EARLY", False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Django advises against it
                with connection.cursor() as cursor:
                    cursor.execute("SELECT DATABASE()")
