"""What its processes note, a line each, where the test finds it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import uwsgi
from django.conf import settings

from tests.support.programs import sockets


def note(what: str, **more: Any) -> None:
    """Append a line; one write, so lines of several processes don't mix."""
    line = json.dumps({"what": what, "pid": os.getpid(), "worker": uwsgi.worker_id(), **more}) + "\n"
    path = Path(os.environ["FORK_SITE_FOLDER"], "notes")
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def born(what: str) -> None:
    """Note which sockets to the database a process has that has not used it yet."""
    note(what, sockets=sockets.to_server(settings.DATABASES["default"]))
