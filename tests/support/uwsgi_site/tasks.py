"""What its mule and its spooler do, and its pages beside those of tests/support/fork_site."""

from __future__ import annotations

import os
import threading
from typing import Any

import uwsgi
from django.http import HttpRequest, JsonResponse

from poollife import auto_close_db
from poollife.fork import close_pool
from tests.support.fork_site.views import is_right
from tests.support.programs.databases import ask, session
from tests.support.uwsgi_site.notes import note

SLEEP = "SELECT SLEEP(600)"


def send(request: HttpRequest, number: int) -> JsonResponse:
    """Give the same question to both."""
    uwsgi.mule_msg(str(number))
    uwsgi.spool({b"number": str(number).encode()})
    return JsonResponse({"pid": os.getpid(), "right": is_right(number)})


def sleep(request: HttpRequest, who: str) -> JsonResponse:
    """A query that does not end, in this worker or in the mule."""
    if who == "mule":
        uwsgi.mule_msg("sleep")
        return JsonResponse({})
    raise AssertionError(ask(SLEEP))


def thread(request: HttpRequest) -> JsonResponse:
    """Borrow in this thread, and start another one that does not end."""
    threading.Thread(target=threading.Event().wait).start()
    return JsonResponse({"pid": os.getpid(), "session": session()})


@auto_close_db
def answer(what: str, number: int) -> None:
    note(what, number=number, right=is_right(number), session=session())


def mule(message: bytes) -> None:
    """A message to the mule."""
    if message == b"sleep":
        ask(SLEEP)
    else:
        answer("mule", int(message))


def spooler(job: dict[bytes | str, Any]) -> int:
    """A job for the spooler; number 0 leaves its session open."""
    answer("spooler", int(job[b"number"]))
    if int(job[b"number"]):
        # uWSGI ends its spoolers by SIGKILL, so this is the last moment for a word to the database.
        close_pool()
    done: int = uwsgi.SPOOL_OK
    return done
