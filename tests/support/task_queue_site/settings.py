"""Its settings. What depends on the test comes from the environment, as JSON."""

import json
import os

INSTALLED_APPS = ["poollife", "tests.support.task_queue_site"]
SECRET_KEY = "tests"
USE_TZ = True
globals().update(json.loads(os.environ["TASK_QUEUE_SITE"]))
