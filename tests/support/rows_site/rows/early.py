"""What careless code does before any test database exists: it looks at the real one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

#: By alias, opened in the main thread and never closed.
cursors: dict[str, Any] = {}
#: One thread, whose connections are opened early and never closed.
thread = ThreadPoolExecutor(1)
_pid = os.getpid()


def look() -> None:
    """Query every alias, in this thread and in the other."""
    for alias in connections:
        cursors[alias] = _read(alias)
    thread.submit(lambda: [_read(alias) for alias in connections]).result()


def thread_is_here() -> bool:
    """Not in a forked child, which has the forking thread only."""
    return os.getpid() == _pid


def _read(alias: str) -> Any:
    cursor = connections[alias].cursor()
    cursor.execute("SELECT name FROM rows_row")
    return cursor
