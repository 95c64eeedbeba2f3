"""The work of its requests and tasks."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from django.db import connections, transaction

from tests.support.operated_site.settings import SITE
from tests.support.programs.databases import ask, change, session

Report = dict[str, Any]


def echo(number: int) -> Report:
    """Borrow once, and return the number that the database answers."""
    return {"pid": os.getpid(), "number": ask("SELECT %s", number)}


def hold(name: str) -> Report:
    """Borrow, and keep the session until the test releases this name."""
    ask("SELECT 1")
    wait_for_release(name)
    return {"pid": os.getpid()}


def pay(name: str, alias: str) -> Report:
    """Lock a row in a transaction that stays open until the test releases this name."""
    with transaction.atomic(using=alias):
        change("UPDATE accounts SET balance = balance + 1 WHERE id = 1", using=alias)
        _file(f"locked-{name}").touch()
        wait_for_release(name)
    return {"pid": os.getpid()}


def export(name: str) -> Report:
    """Start a plain thread that borrows, and keeps the session although this work is over."""
    said: SimpleQueue[int] = SimpleQueue()

    def run() -> None:
        said.put(session())
        wait_for_release(name)
        connections.close_all()

    threading.Thread(target=run, name=name).start()
    return {"pid": os.getpid(), "session": said.get()}


def freeze(name: str) -> Report:
    """Borrow, and call C code that keeps Python's lock until a signal comes."""
    ask("SELECT 1")
    libc = ctypes.PyDLL(None)
    _file(f"frozen-{name}").touch()
    libc.pause()
    return {"pid": os.getpid()}


def wait_for_release(name: str) -> None:
    while not _file(f"released-{name}").exists():
        time.sleep(0.02)


def _file(name: str) -> Path:
    return Path(SITE["folder"], name)
