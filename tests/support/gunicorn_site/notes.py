"""What the processes of a gunicorn note, in one file: ``<pid> <what> <session>``."""

from __future__ import annotations

import os
import threading


def note(what: str, session: int | str = "-") -> None:
    """Append a line; one write, so lines of several processes don't mix."""
    file = os.open(os.environ["GUNICORN_SITE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{os.getpid()} {what} {session}\n".encode())
    finally:
        os.close(file)


def session() -> int:
    """The server's number for the session of this thread, which keeps it."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number: int = cursor.fetchone()[0]
    return number


class Resident:
    """A thread of the master with a session, from the start to the end: it must not lose it."""

    def __init__(self) -> None:
        self._leave = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def enter(self) -> None:
        self._thread.start()
        self._settled.wait()

    def leave(self) -> None:
        self._leave.set()
        self._thread.join()

    def _live(self) -> None:
        from tests.support.programs.databases import hold

        hold()
        note("resident", session())
        self._settled.set()
        self._leave.wait()
        note("resident", session())


resident = Resident()
