"""Its settings. The databases come from the environment, as JSON."""

from __future__ import annotations

import json
import os

DATABASES = json.loads(os.environ["FORK_SITE_DATABASES"])
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.fork_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
