"""Its settings. What differs from test to test comes from the environment, as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

_GIVEN: dict[str, Any] = json.loads(os.environ["REQUEST_SITE"])

DATABASES = _GIVEN["DATABASES"]
MIDDLEWARE = _GIVEN.get("MIDDLEWARE", ["poollife.middleware.PoolMiddleware"])
INSTALLED_APPS = ["poollife"]
ROOT_URLCONF = "tests.support.request_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
# Views fail on purpose here; nobody wants to read of it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "loggers": {"django.request": {"handlers": ["null"], "propagate": False}},
}
