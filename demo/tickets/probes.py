"""Two views for the runner."""

from __future__ import annotations

import os

from django.http import HttpRequest, JsonResponse

from demo.tickets import sessions
from poollife import pool_stats


def echo(request: HttpRequest, word: str) -> JsonResponse:
    """Return a word after a round trip through the database, and the session that it took."""
    return JsonResponse({"word": sessions.echo(word), "session": sessions.session_id(), "pid": os.getpid()})


def pool(request: HttpRequest) -> JsonResponse:
    """Return the pools of the process that answers."""
    return JsonResponse({"pid": os.getpid(), "pools": pool_stats()})
