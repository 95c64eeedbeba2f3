"""Its views."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.http import HttpRequest, HttpResponse

from poollife.board.page import page as board
from tests.support.programs.databases import ask


def is_local(request: HttpRequest) -> bool:
    """Return whether the request comes from this machine."""
    return bool(request.META["REMOTE_ADDR"] == "127.0.0.1")


def quick(request: HttpRequest) -> HttpResponse:
    """Query once."""
    return HttpResponse(str(ask("SELECT 1")))


def late(request: HttpRequest) -> HttpResponse:
    """Put a time-out on the board, which no checkout of this site has: its pools wait for long."""
    board.note_timeout("default", 30.0, "GET /late/", f"{'it waits for itself ' * 8}: {'x' * 100}")
    return HttpResponse("noted")


def hold(request: HttpRequest, name: str) -> HttpResponse:
    """Query, and keep the connection until the file ``released`` is there."""
    ask("SELECT 1")
    released = Path(os.environ["STATUS_SITE_FOLDER"], "released")
    while not released.exists():
        time.sleep(0.02)
    return HttpResponse(name)
