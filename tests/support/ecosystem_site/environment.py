"""Settings all of which come from the environment, as containers have them.

``DATABASE_URL`` and ``POOL`` (JSON), read by the package that ``READER`` names.
"""

import os

import dj_database_url
import environ

os.environ.setdefault("ECOSYSTEM_SITE", "{}")
from tests.support.ecosystem_site.settings import *  # noqa: F403

env = environ.Env()
READERS = {
    "dj-database-url": lambda: dj_database_url.config(engine="poollife.backends.mysql"),
    "django-environ": lambda: env.db(engine="poollife.backends.mysql"),
}

DATABASES = {"default": {**READERS[env("READER")](), "POOL": env.json("POOL", default={})}}
