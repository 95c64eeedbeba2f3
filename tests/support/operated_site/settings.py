"""The settings of all its processes, ``pool_status`` included: so they share one folder of the board."""

from __future__ import annotations

import json
import os

SITE = json.loads(os.environ["OPERATED_SITE"])
DATABASES = SITE["databases"]
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.support.operated_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
