"""What gunicorn's master has, and whether it still has it in the end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connections

from tests.support.programs import sockets
from tests.support.programs.databases import session

#: The descriptions of the master's database sockets; every worker gets a copy of them.
held: list[str] = []


def warm_up() -> None:
    """Query, as sites do at import; one session stays borrowed, the other one waits in its pool."""
    sessions = {alias: session(alias) for alias in connections}
    connections["idle"].close()
    held.extend(sockets.to_server(settings.DATABASES["default"]))
    note("start", sessions)


def look_back() -> None:
    """Query once more, when all workers have ended."""
    note("end", {alias: session_or_error(alias) for alias in connections})
    connections.close_all()


def session_or_error(alias: str) -> int | str:
    """Its number, or why there is none any more."""
    try:
        return session(alias)
    except DatabaseError as error:
        return str(error)


def note(name: str, sessions: Mapping[str, int | str]) -> None:
    """Write it where the test finds it."""
    report = {"pid": os.getpid(), "sessions": sessions, "sockets": len(held), "held": held}
    _file(name).write_text(json.dumps(report))


@cache
def noted_at_start() -> tuple[int | None, list[str]]:
    """Which process that was, and its sockets: for one that was not forked from it, but started by it."""
    file = _file("start")
    report = json.loads(file.read_text()) if file.exists() else {"pid": None, "held": []}
    return report["pid"], report["held"]


def _file(name: str) -> Path:
    return Path(os.environ["FORK_SITE_FOLDER"], f"{name}.json")
