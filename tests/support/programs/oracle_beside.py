"""One alias on the stand-in for Oracle: a request's calls, the next borrower's settings, and children.

It knows nothing of poollife: the ENGINE may be any.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

entry, control = map(json.loads, sys.argv[1:3])
settings.configure(DATABASES={"default": entry}, USE_TZ=True, SECRET_KEY="tests")
django.setup()
# Some write about sessions that are lost here.
logging.disable(logging.CRITICAL)

from django.db import DatabaseError, InterfaceError, close_old_connections, connection  # noqa: E402

SESSION = "SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL"
LANGUAGE = "SELECT value FROM nls_session_parameters WHERE parameter = 'NLS_LANGUAGE'"
#: Calls that no statement has made.
LIFE = ("logon", "logoff", "closed", "gone")


def calls() -> list[list[Any]]:
    """Return the calls that have arrived at the server."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(control)
        with line.makefile("rwb") as lines:
            lines.write(b'["calls"]\n')
            lines.flush()
            found: list[list[Any]] = json.loads(lines.readline())["is"]
            return found


def ask(sql: str) -> Any:
    """Run a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def request(work: Callable[[], Any]) -> Any:
    """Do something as a request does."""
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()


def alter() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER SESSION SET NLS_LANGUAGE = 'GERMAN'")


def after_child(queries: bool) -> tuple[bool, bool]:
    """Fork; return whether the child was in another session, and whether the parent's lives."""
    before = ask(SESSION)
    reading, writing = os.pipe()
    sys.stdout.flush()
    if os.fork() == 0:
        if queries:
            os.write(writing, str(ask(SESSION)).encode())
        sys.exit(0)
    os.wait()
    os.close(writing)
    in_another = os.read(reading, 100).decode() not in ("", str(before))
    try:
        lives = ask(SESSION) == before
    except (DatabaseError, InterfaceError):
        lives = False
    connection.close()
    return in_another, lives


for _ in range(3):
    request(lambda: ask("SELECT 1 FROM DUAL"))
before = len(calls())
request(lambda: ask("SELECT 1 FROM DUAL"))
report = {"calls": sum(kind not in LIFE for _, kind, _ in calls()[before:])}
request(alter)
report["next sees it"] = request(lambda: ask(LANGUAGE)) == "GERMAN"
_, report["lives after a child"] = after_child(queries=False)
report["own session"], report["lives after its query"] = after_child(queries=True)
print(json.dumps(report))
