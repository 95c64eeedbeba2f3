"""``INSTALLED_APPS = ["poollife", ...]``."""

import sys
from types import ModuleType

from django.apps import AppConfig


class PoollifeConfig(AppConfig):
    """Brings the system checks, and what Celery needs; backends install all else when they load."""

    name = "poollife"
    verbose_name = "Connection pools"

    def __init__(self, app_name: str, app_module: ModuleType | None) -> None:
        """Refuse an ENGINE that does not exist, before the first model is imported."""
        super().__init__(app_name, app_module)
        from poollife.engines import refuse_missing_engine

        refuse_missing_engine()

    def ready(self) -> None:
        """Register the system checks, and connect Celery's signals."""
        import poollife.checks  # noqa: F401

        # Its own support of Django sets Django up before a worker starts.
        if "celery" in sys.modules:
            from poollife import celery

            celery.install()
