"""Settings for Django's own test suite: Django's, with the databases that tools/conformance.py asks for."""

import json
import os

from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403  # beside Django's runtests.py

DATABASES = json.loads(os.environ["CONFORMANCE_DATABASES"])
TEST_RUNNER = "tools.conformance_runner.RecordingRunner"
