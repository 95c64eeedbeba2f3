"""The Django app: ``INSTALLED_APPS = ["poollife", ...]``."""

import sys
from types import ModuleType

from django.apps import AppConfig


class PoollifeConfig(AppConfig):
    """The app, which registers the system checks and Celery's hooks. Backends install the other hooks."""

    name = "poollife"
    verbose_name = "Connection pools"

    def __init__(self, app_name: str, app_module: ModuleType | None) -> None:
        """Refuse an ENGINE of poollife's that does not exist, before the first model is imported."""
        super().__init__(app_name, app_module)
        from poollife.engines import refuse_missing_engine

        refuse_missing_engine()

    def ready(self) -> None:
        """Register the system checks, and connect Celery's signals."""
        import poollife.checks
        import poollife.status_page.checks  # noqa: F401

        # Celery is imported by now: its own support of Django sets Django up before a worker starts.
        if "celery" in sys.modules:
            from poollife import celery

            celery.install()
