"""What a worker's main process has, and whether it still has it in the end."""

from __future__ import annotations

import os
import threading

from celery import signals
from django.conf import settings
from django.db import DatabaseError, connections

from tests.support.celery_site.notes import held_here, note
from tests.support.programs import sockets
from tests.support.programs.databases import held_session, session

#: The process that imported this, and its database sockets; children that are forked get copies of both.
pid = os.getpid()
held: list[str] = []


class Resident(threading.Thread):
    """Has a session from the first to the last, while children are forked."""

    def __init__(self) -> None:
        super().__init__(name="resident")
        self.settled, self.leave = threading.Event(), threading.Event()

    def run(self) -> None:
        note("resident", session=held_session())
        self.settled.set()
        self.leave.wait()
        note("resident", session=session_or_error())
        connections.close_all()


resident = Resident()


def warm_up() -> None:
    """Query, as many sites do when they are imported."""
    note("import", session=session())
    if not os.environ.get("FORKED_BY_MULTIPROCESSING"):  # as Celery marks children that import all of it anew
        resident.start()
        resident.settled.wait()
        held.extend(sockets.to_server(settings.DATABASES["default"]))


@signals.worker_shutdown.connect
def look_back(**_: object) -> None:
    """All children are gone."""
    note("main thread over", held=held_here())
    note("shutdown", session=session_or_error())
    connections.close_all()
    resident.leave.set()
    resident.join()


def session_or_error() -> int | str:
    """Its number, or why there is none any more."""
    try:
        return session()
    except DatabaseError as error:
        return str(error)
