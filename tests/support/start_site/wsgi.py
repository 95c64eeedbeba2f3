"""The application for WSGI."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

if os.environ.get("START_SITE_ANNOUNCES"):
    # As docs/uwsgi.md has it for lazy-apps.
    import poollife.uwsgi

    poollife.uwsgi.announce()
