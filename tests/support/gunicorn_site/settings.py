"""Its settings; the database comes from the environment."""

import json
import os

DATABASES = json.loads(os.environ["GUNICORN_SITE_DATABASES"])
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "tests.support.gunicorn_site.urls"
SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
