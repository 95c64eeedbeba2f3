"""Its pages."""

from __future__ import annotations

import os
import time

from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.support.gunicorn_site.notes import note, session


def alive(request: HttpRequest) -> HttpResponse:
    """Borrows nothing."""
    return HttpResponse("yes")


def one(request: HttpRequest) -> HttpResponse:
    """The process and the session that answer."""
    return HttpResponse(f"{os.getpid()} {session()}")


def hang(request: HttpRequest) -> HttpResponse:
    """Hold a session, in Python code that a signal can interrupt."""
    note("hangs", session())
    time.sleep(600)
    raise AssertionError("not reached")


urlpatterns = [path("alive", alive), path("one", one), path("hang", hang)]
