"""The site under each ASGI server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.web_server import WebServer

SERVERS = {
    "uvicorn": ("uvicorn", "--port", "{port}", "--loop", "asyncio", "--log-level", "warning"),
    "uvloop": ("uvicorn", "--port", "{port}", "--loop", "uvloop", "--log-level", "warning"),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
    "daphne": ("daphne", "--port", "{port}", "--verbosity", "0"),
    "granian": ("granian", "--port", "{port}", "--interface", "asgi", "--log-level", "warning"),
    "gunicorn": (
        "gunicorn",
        "--bind",
        "127.0.0.1:{port}",
        "--worker-class",
        "asgi",
        "--log-level",
        "warning",
    ),
}
APPLICATION = "tests.support.threads_site.together"
#: What each is asked for.
DJANGO = (
    *("sync_view", "sync_to_async", "async_orm", "thread_insensitive", "to_thread", "run_in_executor"),
    *("create_task", "thread", "executor"),
)
STARLETTE = (
    "sync",
    "sync_to_async",
    "async_orm",
    "to_thread",
    "state",
    "stream",
    "stream_async",
    "background",
)
FASTAPI = ("sync", "async_orm", "sync_to_async", "background")
CHANNELS = ("sync", "database_sync_to_async", "sync_to_async", "async_orm")


class SiteServer(WebServer):
    """One process that serves it."""

    def __init__(self, name: str, log: Path, *, pooled: bool, **site: Any) -> None:
        """
        :param name: a key of ``SERVERS``.
        :param pooled: whether the ASGI middleware is around it.
        """
        super().__init__("uvicorn", log, **site)
        program, *arguments = SERVERS[name]
        application = f"{APPLICATION}:{'pooled' if pooled else 'application'}"
        arguments = [argument.format(port=self.port) for argument in arguments]
        self._command = [sys.executable, "-m", program, *arguments, application]
