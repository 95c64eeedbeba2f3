"""Two addresses for the runner, not for people."""

from __future__ import annotations

import os

from django.http import HttpRequest, JsonResponse

from demo.tickets import sessions
from poollife import pool_stats


def echo(request: HttpRequest, word: str) -> JsonResponse:
    """A word that has been through the database, and in which session."""
    return JsonResponse({"word": sessions.echo(word), "session": sessions.session_id(), "pid": os.getpid()})


def pool(request: HttpRequest) -> JsonResponse:
    """The pools of the process that happens to answer."""
    return JsonResponse({"pid": os.getpid(), "pools": pool_stats()})
