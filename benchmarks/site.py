"""The site that gunicorn serves for the part ``throughput``; ``BENCHMARK_SITE`` has its settings as JSON."""

from __future__ import annotations

import json
import os

from django.conf import settings

settings.configure(
    **json.loads(os.environ["BENCHMARK_SITE"]),
    ROOT_URLCONF="benchmarks.views",
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="benchmarks",
    USE_TZ=True,
)

from django.core.wsgi import get_wsgi_application  # noqa: E402  # needs the settings

application = get_wsgi_application()
