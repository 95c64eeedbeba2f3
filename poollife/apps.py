"""``INSTALLED_APPS = ["poollife", ...]``."""

from django.apps import AppConfig


class PoollifeConfig(AppConfig):
    """Nothing to set up: backends install what they need when they load."""

    name = "poollife"
    verbose_name = "Connection pools"
