"""Its tasks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.db import transaction

from tests.support.celery_site import parent
from tests.support.celery_site.app import WITH, app
from tests.support.celery_site.notes import note
from tests.support.programs import sockets
from tests.support.programs.databases import ask, session
from tests.support.web_server import eventually

Report = dict[str, Any]


@app.task
def echo(number: int, seconds: float = 0.0) -> Report:
    """Who answered what, in which session, and when it was ours. Four queries."""
    mine, start = session(), time.monotonic()
    right = ask("SELECT %s", number) == number
    time.sleep(seconds)
    right = right and ask("SELECT %s", number) == number
    return {
        "pid": os.getpid(),
        "session": mine,
        "start": start,
        "end": time.monotonic(),
        "right": right and session() == mine,
        "inherited": inherited(),
    }


def inherited() -> list[str]:
    """The sockets of the main process that this one has got."""
    if os.getpid() == parent.pid:
        return []
    return [where for where in sockets.held().values() if where in parent.held]


@app.task
def fail() -> None:
    with transaction.atomic():
        session()
        raise ValueError("as the test wants it")


@app.task(bind=True, max_retries=1)
def again(self: Any) -> int:
    """The first attempt asks for a second one."""
    number = session()
    if not self.request.retries:
        raise self.retry(countdown=0)
    return number


@app.task(acks_late=True)
def late() -> int:
    return session()


@app.task
def wait(mark: str) -> None:
    """In Python code, in a transaction, until something from outside ends it."""
    with transaction.atomic():
        note(mark, session=session())
        time.sleep(600)


@app.task
def deaf(mark: str) -> None:
    """Nothing but SIGKILL ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(mark, session=session())
    time.sleep(600)


@app.task
def narrow(mark: str, until: str) -> None:
    """Borrow from a pool that has one connection, and keep it until this file is there."""
    note(mark, session=session("narrow"))
    eventually("it may end", Path(until).exists)


if "idle parent" not in WITH:
    parent.warm_up()
