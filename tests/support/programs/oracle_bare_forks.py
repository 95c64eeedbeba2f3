"""Forks by the C function on the stand-in for Oracle: none of Python's hooks runs.

Its argument: the entry of a database. It prints the ends of the children, and what they did to their parent.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction

from tests.support.programs.databases import ask, change, set_up

SESSION = "SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL"
#: The parent's driver connection, its half-read cursor, and a LOB.
kept: list[Any] = []


def ends() -> None:
    """Nothing else: a normal end, with all destructors."""


def closes() -> None:
    connections.close_all()


def frees() -> None:
    kept.clear()
    for alias in connections:
        del connections[alias]
    gc.collect()


def queries() -> None:
    assert ask("SELECT 40 + 2 FROM DUAL", using="other") == 42
    assert ask(SESSION, using="other") not in sessions


def refusal(attempt: Callable[[], object]) -> str:
    """Return the text of an error."""
    try:
        attempt()
    except Exception as error:
        return str(error)
    return ""


def uses() -> None:
    raw, cursor, _ = kept
    for attempt in (raw.ping, raw.commit, raw.rollback, raw.cursor, cursor.fetchall):
        assert "belongs to process" in refusal(attempt)
    raw.close()


# python-oracledb before 3.0 starts a thread when it is imported. A child of a bare fork has lost it, and
# would wait for it at its end. Python waits for no daemon thread, and a thread of a daemon thread is one.
importer = threading.Thread(target=importlib.import_module, args=("oracledb",), daemon=True)
importer.start()
importer.join()

entry = json.loads(sys.argv[1])
set_up({"default": entry, "other": dict(entry)})
change("CREATE TABLE bare (a INT, b NCLOB)")
change("INSERT INTO bare VALUES (1, 'text')")
connections["default"].close()
sessions = {ask(SESSION, using="other")}
connections["other"].close()

report = {}
for child in (ends, closes, frees, queries, uses):
    with transaction.atomic():
        change("UPDATE bare SET a = 2")
        before = ask(SESSION)
        sessions.add(before)
        raw: Any = connections["default"].connection
        cursor, lobs = raw.cursor(), raw.cursor()
        cursor.execute("SELECT LEVEL FROM DUAL CONNECT BY LEVEL <= 1000")
        cursor.fetchone()
        lob = lobs.execute("SELECT b FROM bare").fetchone()[0]
        kept[:] = raw, cursor, lob
        if ctypes.PyDLL(None).fork() == 0:
            del raw, cursor, lobs, lob
            child()
            sys.exit(0)
        status = os.wait()[1]
        rest = len(cursor.fetchall()), lob.read(), ask("SELECT a FROM bare"), ask(SESSION) == before
        report[child.__name__] = [status, *rest]
        transaction.set_rollback(True)
    connections["default"].close()
print(json.dumps(report))
