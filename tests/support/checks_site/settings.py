"""What is under test comes from the environment, as JSON."""

import json
import os

INSTALLED_APPS = ["poollife", "django.contrib.contenttypes", "django.contrib.auth"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = __name__
urlpatterns: list[object] = []
SECRET_KEY = "tests"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
globals().update(json.loads(os.environ["CHECKS_SITE"]))
