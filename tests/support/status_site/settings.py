"""Its settings."""

from __future__ import annotations

import json
import os

#: ATOMIC_REQUESTS: the page must not begin a transaction.
DATABASES = {"default": {**json.loads(os.environ["STATUS_SITE_DATABASE"]), "ATOMIC_REQUESTS": True}}
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.support.status_site.urls"
WSGI_APPLICATION = "tests.support.status_site.wsgi.application"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
POOLLIFE_STATUS_ACCESS = "tests.support.status_site.views.is_local"
USE_TZ = True
# Requests fail on purpose here.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "loggers": {"django.request": {"handlers": ["null"], "propagate": False}},
}
