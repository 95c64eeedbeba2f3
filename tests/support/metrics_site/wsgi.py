"""The application. The master has queried before it starts OpenTelemetry's exports."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.metrics_site.settings"

from tests.support.fork_site.wsgi import application
from tests.support.metrics_site import metrics

__all__ = ["application"]
metrics.start_exports()
