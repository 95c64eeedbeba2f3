"""The application for WSGI."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

from tests.servers_site import preload

application = get_wsgi_application()
preload.warm_up()
