"""Forking a child in the middle of a request, and everything that such a child can do to its parent.

A child made by fork() has a copy of all that its parent has, database sessions included. Whatever it does to
them goes out on the parent's own sockets, even if it only frees their memory. The children in here do all of
it: they collect garbage, query, close, and end. The request that forked must not notice.
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
    """What a parent does that only waits."""
    return {}


def count() -> Answer:
    """Honest work: a report on the tickets, with a session of the child's own."""
    return {
        "session": session_id(),
        "open": Ticket.objects.filter(closed=False).count(),
        "closed": Ticket.objects.filter(closed=True).count(),
        "comments": Comment.objects.count(),
    }


def echoes() -> Answer:
    """Ask many things and compare the answers: those of somebody else are wrong."""
    words = [secrets.token_hex(8) for _ in range(_ECHOES)]
    return {"asked": len(words), "wrong": sum(echo(word) != word for word in words)}


def intrude() -> Answer:
    """Try to work inside the transaction of the parent, which must be refused."""
    return {"intruded into": session_id()}


def ask_child(work: Work, *, finalize: bool, meanwhile: Work = nothing) -> tuple[Answer, Answer]:
    """Fork a child for some work; return its answer, and that of the work which the parent did meanwhile."""
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
    """Some work, and around it everything that hurts an inherited session."""
    # Lest the standard library wait, in the end, for threads that stayed behind in the parent.
    thread._threads_queues.clear()  # type: ignore[attr-defined]
    gc.collect()
    pipe.send({"pid": os.getpid(), **_do(work)})
    connection.close()
    gc.collect()
    if finalize:
        _end_interpreter()
    sys.exit(0)  # multiprocessing makes os._exit() of it: nothing is freed


def _end_interpreter() -> None:
    """End as an interpreter ends by itself: run exit handlers and free all objects, inherited ones too."""
    if sys.version_info < (3, 13):
        ctypes.pythonapi.Py_Exit(0)
    # Later versions crash in there if a thread other than the main one has forked. At least the handlers:
    atexit._run_exitfuncs()
    os._exit(0)


def _do(work: Work) -> Answer:
    try:
        return work()
    except DatabaseError as refusal:
        return {"refused": f"{type(refusal).__name__}: {refusal}"}
