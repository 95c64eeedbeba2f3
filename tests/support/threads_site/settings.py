"""Its settings: those of ``tests.support.request_site``, and other pages."""

from tests.support.request_site.settings import *  # noqa: F403  # settings are a module's names

INSTALLED_APPS = ["poollife", "tests.support.threads_site"]
ROOT_URLCONF = "tests.support.threads_site.urls"
