"""What the processes of a worker note, in one file of JSON lines."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


def note(event: str, **more: Any) -> None:
    """Append a line; one write, so lines of several processes don't mix."""
    line = json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n"
    file = os.open(os.environ["TASK_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(file: Path) -> list[dict[str, Any]]:
    """All of them."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def held_here() -> int:
    """What this thread has borrowed and not given back."""
    from poollife.pools.live import live_pools

    me = threading.current_thread()
    return sum(lease.thread is me for pool in live_pools.strong_references() for lease in pool.leases.copy())
