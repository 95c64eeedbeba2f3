"""``INSTALLED_APPS = ["poollife", ...]``."""

from django.apps import AppConfig


class PoollifeConfig(AppConfig):
    """Brings the system checks; backends install all else when they load."""

    name = "poollife"
    verbose_name = "Connection pools"

    def ready(self) -> None:
        """Register the system checks."""
        import poollife.checks  # noqa: F401
