"""Django with what stands beside it, for any ASGI server: as it is, and with the middleware around it."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.threads_site.settings")
django: Any = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402  # after Django's setup
from django.urls import path  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from poollife.asgi import PoolASGIMiddleware  # noqa: E402
from tests.support.threads_site.frameworks import CONSUMERS, fastapi, starlette  # noqa: E402

http = Starlette(
    routes=[
        Mount("/starlette", app=starlette),
        Mount("/fastapi", app=fastapi),
        Mount("/", app=django),
    ]
)
websocket = URLRouter([path(f"channels/{name}", consumer.as_asgi()) for name, consumer in CONSUMERS.items()])
application = ProtocolTypeRouter({"http": http, "lifespan": http, "websocket": websocket})
pooled = PoolASGIMiddleware(application, warm=1)
