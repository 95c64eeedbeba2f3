"""Settings from the environment: ``ECOSYSTEM_SITE`` holds those that differ from test to test, as JSON."""

import json
import os

INSTALLED_APPS = ["poollife", "tests.support.ecosystem_site.desk"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.support.ecosystem_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
globals().update(json.loads(os.environ["ECOSYSTEM_SITE"]))
