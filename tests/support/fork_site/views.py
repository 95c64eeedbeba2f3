"""Its views."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import thread
from functools import partial
from multiprocessing import process
from typing import Any, NoReturn

from django.conf import settings
from django.db import DatabaseError, connection, connections, transaction
from django.http import HttpRequest, JsonResponse

from poollife import auto_close_db
from poollife.fork import close_pool
from tests.support.fork_site import master
from tests.support.programs import children, sockets
from tests.support.programs.databases import ask, change, session

Report = dict[str, Any]


def echo(request: HttpRequest, number: int) -> JsonResponse:
    """Who answered what, and which of the master's sockets this worker has got."""
    return JsonResponse(
        {
            "pid": os.getpid(),
            "session": session(),
            "right": is_right(number),
            "inherited": [where for where in sockets.held().values() if where in master.held],
        }
    )


@auto_close_db
def fork(request: HttpRequest, how: str, number: int) -> JsonResponse:
    """Fork a child in the middle of a transaction, and work on in the same session while it does."""
    mine = session()
    with transaction.atomic():
        change("INSERT INTO rows_ (number) VALUES (%s)", number)
        finish = start_child(how, partial(child_work, number))
        right = all(is_right(number + i) for i in range(20))
        report = finish()
    # The web server's own sockets are no concern of ours.
    server = sockets.address(settings.DATABASES["default"])
    report["inherited"] = [where for where in report["inherited"] if where.endswith(server)]
    same = session() == mine
    return JsonResponse({"pid": os.getpid(), "same session": same, "right": right, "child": report})


def start_child(how: str, work: children.Work) -> Callable[[], Report]:
    """Start a child, and return a function that waits for its end and returns its report.

    :param how: "process" (of multiprocessing), "fork", "leave", or "greenlet".
    """
    if how == "process":
        return children.process(work).finish
    if how == "greenlet" and connection.vendor == "postgresql":
        # A greenlet's child has copies of the others, which would go on in it while psycopg waits. So this
        # child does nothing but exec.
        program = subprocess.Popen(["true"])
        return lambda: {"status": program.wait(), "right": True, "inherited": []}
    return children.fork(work, children.finalize if how == "fork" else leave).finish


def child_work(number: int) -> Report:
    """Try the parent's transaction, close and collect what was inherited, and ask things of its own."""
    try:
        change("INSERT INTO rows_ (number) VALUES (%s)", -number)
    except DatabaseError as error:
        refusal = str(error)
    connections.close_all()
    gc.collect()
    # At the exit of a child of such a thread the standard library would wait for the others and for this one.
    thread._threads_queues.clear()  # type: ignore[attr-defined]
    process._children.clear()  # type: ignore[attr-defined]
    right = all(is_right(number - i, using="idle") for i in range(20))
    return {"refusal": refusal, "own": session("idle"), "right": right}


def leave() -> NoReturn:
    """Close the pools and end. At any other end of a greenlet's child all of its parent's would go on."""
    close_pool()
    os._exit(0)


def is_right(number: int, using: str = "default") -> bool:
    """Whether the database gives the answer to this question and not to another one."""
    answer: int = ask("SELECT %s", number, using=using)
    return answer == number
