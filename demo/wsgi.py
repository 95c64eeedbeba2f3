"""The WSGI application, with a query at import time.

Many sites do that without noticing: a setting read from a table, a cache warmed up. With gunicorn's --preload
the query runs in the master, whose session every worker then inherits. It is the classic wound of pooling, so
the demo has it on purpose: the master must end up with the session it began with.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from demo import master  # noqa: E402

master.warm_up()
