"""Its settings. The databases come from the environment, as JSON."""

from __future__ import annotations

import json
import os

DATABASES = json.loads(os.environ["FORK_SITE_DATABASES"])
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.support.fork_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
# To gunicorn's log, which the test reads; without DEBUG Django would mail it to the administrators.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "WARNING", "propagate": False}},
}
