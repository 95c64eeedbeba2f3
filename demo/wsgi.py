"""The WSGI application, with a query at import time.

Many sites have such a query without intent: a setting is read from a table, or a cache is filled. With
gunicorn's --preload the query runs in the master, and each worker inherits the master's session. This is a
frequent error with pools, so the demo does it on purpose: at its end the master must have the session of its
begin.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from demo import master  # noqa: E402

master.warm_up()
