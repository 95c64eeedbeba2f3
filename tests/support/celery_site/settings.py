"""Its settings; the database comes from the environment, as JSON."""

import json
import os

DATABASES = json.loads(os.environ["CELERY_SITE_DATABASES"])
# Where a test wants to see what happens without it, it is to be there for nothing but the backend.
INSTALLED_APPS = ["poollife"] if "poollife" in json.loads(os.environ["CELERY_SITE_WITH"]) else []
SECRET_KEY = "tests"
USE_TZ = True
