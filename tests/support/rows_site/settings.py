"""Settings from the environment: ``ROWS_SITE`` is what a test says about its run, as JSON."""

from __future__ import annotations

import json
import multiprocessing
import os

SITE = json.loads(os.environ["ROWS_SITE"])

# Said always: the default differs between versions of Python.
multiprocessing.set_start_method(SITE["start_method"], force=True)

SECRET_KEY = "tests"
INSTALLED_APPS = ["poollife", "tests.support.rows_site.rows"]
DATABASES = SITE["databases"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
