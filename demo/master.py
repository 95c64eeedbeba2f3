"""What the gunicorn master notes about its own session, so that the runner can see whether it lives on."""

from __future__ import annotations

import json
import os
from pathlib import Path


def warm_up() -> None:
    """Query the database in the master, before any worker is forked, and note who we were."""
    from demo.tickets.sessions import session_id

    _note("master", session_id())


def look_back() -> None:
    """Query once more when all workers have ended: every one of them held a copy of the master's session."""
    from demo.tickets.sessions import session_id

    try:
        _note("farewell", session_id())
    except Exception as error:  # whatever it is, the runner has to tell it
        _note("farewell", f"{type(error).__name__}: {error}")


def _note(name: str, session: int | str) -> None:
    if folder := os.environ.get("POOLLIFE_DEMO_FOLDER"):
        Path(folder, f"{name}.json").write_text(json.dumps({"pid": os.getpid(), "session": session}))
