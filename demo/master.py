"""The gunicorn master's notes about its own session, by which the runner sees whether that still works."""

from __future__ import annotations

import json
import os
from pathlib import Path


def warm_up() -> None:
    """Query the database in the master before any worker is forked, and note the session."""
    from demo.tickets.sessions import session_id

    _note("master", session_id())


def look_back() -> None:
    """Query once more after all workers have ended, and note the session: each worker had a copy of it."""
    from demo.tickets.sessions import session_id

    try:
        _note("farewell", session_id())
    except Exception as error:  # the runner reports it
        _note("farewell", f"{type(error).__name__}: {error}")


def _note(name: str, session: int | str) -> None:
    if folder := os.environ.get("POOLLIFE_DEMO_FOLDER"):
        Path(folder, f"{name}.json").write_text(json.dumps({"pid": os.getpid(), "session": session}))
