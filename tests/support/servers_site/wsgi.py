"""The application for WSGI."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

from tests.support.servers_site import loading

application = get_wsgi_application()
loading.settle()
