"""Forks in the middle of a request, and all that such a child can do to the sessions of its parent.

A child made by fork() has a copy of all objects of its parent, driver connections included. Each use of these
reaches the parent's sockets, even if the child only frees their memory. The children in here collect garbage,
query, close, and end. The request that forked must not be affected.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import multiprocessing
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import thread
from multiprocessing.connection import Connection
from typing import Any

from django.db import DatabaseError, connection

from demo.tickets.models import Comment, Ticket
from demo.tickets.sessions import echo, session_id

Answer = dict[str, Any]
Work = Callable[[], Answer]

_FORK = multiprocessing.get_context("fork")
_PATIENCE = 10.0  # seconds; a child that found an inherited lock taken would wait for ever
_ECHOES = 50


def nothing() -> Answer:
    """Return an empty answer, for a parent that only waits."""
    return {}


def count() -> Answer:
    """Return a report on the tickets, from a session of the child's own."""
    return {
        "session": session_id(),
        "open": Ticket.objects.filter(closed=False).count(),
        "closed": Ticket.objects.filter(closed=True).count(),
        "comments": Comment.objects.count(),
    }


def echoes() -> Answer:
    """Send many different queries, and count the answers that belong to another query."""
    words = [secrets.token_hex(8) for _ in range(_ECHOES)]
    return {"asked": len(words), "wrong": sum(echo(word) != word for word in words)}


def intrude() -> Answer:
    """Try to work inside the transaction of the parent, which must be refused."""
    return {"intruded into": session_id()}


def ask_child(work: Work, *, finalize: bool, meanwhile: Work = nothing) -> tuple[Answer, Answer]:
    """Fork a child for a work.

    :param work: the function that the child calls.
    :param finalize: True: the child ends as an interpreter ends, and frees all objects.
    :param meanwhile: the function that the parent calls at the same time.
    :returns: the answers of the child and of the parent.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_child, args=(sender, work, finalize))
    child.start()
    sender.close()
    own = meanwhile()
    with receiver:
        answer = _receive(receiver)
    child.join(0 if "error" in answer else _PATIENCE)
    if child.exitcode is None:
        child.kill()
        answer.setdefault("error", "the child never ended")
    elif child.exitcode:
        answer.setdefault("error", f"the child ended with status {child.exitcode}")
    return answer, own


def _receive(pipe: Connection) -> Answer:
    try:
        answer: Answer = pipe.recv() if pipe.poll(_PATIENCE) else {"error": "the child never answered"}
    except EOFError:
        answer = {"error": "the child died without an answer"}
    return answer


def _child(pipe: Connection, work: Work, finalize: bool) -> None:
    """Do the work, and before and after it all that could harm an inherited session."""
    # Otherwise the standard library would wait at the exit for threads that exist only in the parent.
    thread._threads_queues.clear()  # type: ignore[attr-defined]
    gc.collect()
    pipe.send({"pid": os.getpid(), **_do(work)})
    connection.close()
    gc.collect()
    if finalize:
        _end_interpreter()
    sys.exit(0)  # multiprocessing turns this into os._exit(), which frees nothing


def _end_interpreter() -> None:
    """End as an interpreter ends by itself: run exit handlers and free all objects, inherited ones too."""
    if sys.version_info < (3, 13):
        ctypes.pythonapi.Py_Exit(0)
    # Later versions crash in there if a thread other than the main one has forked, so only the handlers run.
    atexit._run_exitfuncs()
    os._exit(0)


def _do(work: Work) -> Answer:
    try:
        return work()
    except DatabaseError as refusal:
        return {"refused": f"{type(refusal).__name__}: {refusal}"}
