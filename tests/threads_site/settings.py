"""Its settings: those of ``tests.request_site``, and other pages."""

from tests.request_site.settings import *  # noqa: F403  # settings are a module's names

INSTALLED_APPS = ["poollife", "tests.threads_site"]
ROOT_URLCONF = "tests.threads_site.urls"
