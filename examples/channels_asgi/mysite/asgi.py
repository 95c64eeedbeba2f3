# mysite/asgi.py
import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from poollife.asgi import PoolASGIMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django = get_asgi_application()

from mysite.consumers import SessionConsumer  # consumers need Django to be set up

router = ProtocolTypeRouter(
    {
        "http": django,
        "websocket": URLRouter([path("ws/", SessionConsumer.as_asgi())]),
    }
)
application = PoolASGIMiddleware(router, warm=1)  # outermost
