"""The settings of the ticket desk. poollife needs the three numbered places, and no other setting."""

from __future__ import annotations

import json
import os
from typing import Any

# The runner gives the database in the environment. Without it, as for `django makemigrations`, it is a file.
_FILE = '{"ENGINE": "poollife.backends.sqlite3", "NAME": "demo.sqlite3"}'
_DATABASE: dict[str, Any] = json.loads(os.environ.get("POOLLIFE_DEMO_DATABASE", _FILE))

# 1. The ENGINE is one of poollife's, and POOL says how many sessions one process may have open.
#    A gunicorn worker of the demo runs four threads, so four sessions are enough for its requests.
DATABASES = {"default": {**_DATABASE, "POOL": {"pool_size": 4, "max_overflow": 4}}}

# 2. The app.
INSTALLED_APPS = ["poollife", "demo.tickets"]

# 3. The middleware comes first, so that it returns the sessions after all other middleware.
MIDDLEWARE = [
    "poollife.middleware.PoolMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

SECRET_KEY = "a demo has no secrets"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "demo.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"surprises": {"()": "demo.tickets.failures.Surprises"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["surprises"]}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
