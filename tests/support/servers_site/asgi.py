"""The application for ASGI."""

from __future__ import annotations

from django.core.asgi import get_asgi_application

from poollife.asgi import PoolASGIMiddleware
from tests.support.servers_site import loading

application = get_asgi_application()
loading.settle()

#: For a server whose workers end by a signal, so that no exit handler runs: uvicorn.
with_middleware = PoolASGIMiddleware(application)
