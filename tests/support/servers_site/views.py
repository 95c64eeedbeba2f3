"""Its views, beside one that forks."""

from __future__ import annotations

import os

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, JsonResponse

from tests.support.fork_site import master
from tests.support.fork_site.views import is_right
from tests.support.programs import sockets
from tests.support.programs.databases import session


def echo(request: HttpRequest, number: int) -> JsonResponse:
    """Who answered what, in which session; how many this process has, and which of its parent's sockets."""
    parent, theirs = master.noted_at_start()
    mine = session()
    here = sockets.to_server(settings.DATABASES["default"])
    return JsonResponse(
        {
            "pid": os.getpid(),
            "session": mine,
            "right": is_right(number),
            "sockets": len(set(here) - set(theirs)),
            "inherited": [where for where in here if where in theirs and os.getpid() != parent],
        }
    )


async def async_echo(request: HttpRequest, number: int) -> JsonResponse:
    """The same from an event loop's thread."""
    return await sync_to_async(echo)(request, number)
