"""The application for ASGI, with sessions that are opened at the start, and without."""

from __future__ import annotations

from django.core.asgi import get_asgi_application

from poollife.asgi import PoolASGIMiddleware

application = PoolASGIMiddleware(get_asgi_application())
warm = PoolASGIMiddleware(get_asgi_application(), warm=1)
