"""``INSTALLED_APPS = ["poollife", ...]``."""

import sys

from django.apps import AppConfig


class PoollifeConfig(AppConfig):
    """Brings the system checks, and what Celery needs; backends install all else when they load."""

    name = "poollife"
    verbose_name = "Connection pools"

    def ready(self) -> None:
        """Register the system checks, and connect Celery's signals."""
        import poollife.checks  # noqa: F401

        # Its own support of Django sets Django up before a worker starts.
        if "celery" in sys.modules:
            from poollife import celery

            celery.install()
