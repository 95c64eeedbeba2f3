"""The part ``forks``: what a child does to its parent's session, by the state of that session.

The child of ``os.fork()`` ends as a program ends: the interpreter frees what is left.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from django.db import connection, connections, transaction

from benchmarks.dialects import Dialect
from benchmarks.process import first_line
from benchmarks.questions import HANGS, ask

#: Questions of a child, each with an answer of its own.
QUESTIONS = 100
#: The number in the row of a transaction that is open in a fork.
ROW = 4711
COUNT = f"SELECT COUNT(*) FROM other WHERE n = {ROW}"
#: Django's words for a child that has lost the session of its parent's transaction, which it is not given.
REFUSAL = "Cannot open a new connection in an atomic block"
#: The verdict on a process that was not harmed.
OK = "ok"

Check = Callable[[], str]
_numbers = itertools.count(1)


def verdict(dialect: Dialect, request: Callable[[str], Any], state: str, deed: str) -> str:
    """Fork once, and return what became of parent and child; ``OK``: no harm was done.

    :param request: makes a request that sends a statement, and returns the answer.
    :param state: a key of ``STATES``: the state of the parent's session.
    :param deed: a key of ``DEEDS``: what the child does.
    """
    # Without a pool, each request may have a session of its own.
    session = request(dialect.session)
    keeps = request(dialect.session) == session
    check = STATES[state](dialect, request)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        found = _judged(lambda: DEEDS[deed](request))
        if keeps and deed == "queries" and found == OK and request(dialect.session) == session:
            found = "USES ITS PARENT'S SESSION"
        os.write(writer, json.dumps(found).encode())
        # As a program ends, and without the ends of the parent's blocks.
        raise SystemExit(0)
    os.close(writer)
    verdicts = []
    late = time.monotonic() + HANGS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if (state, deed) == ("idle", "queries"):
            verdicts.append(_judged(lambda: _ask_own(request)))
        if time.monotonic() > late:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    verdicts.append(_judged(check))
    if keeps:
        verdicts.append(_judged(lambda: OK if request(dialect.session) == session else "LOSES ITS SESSION"))
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(ended[1])
    childs = json.loads(said) if status == 0 and said else "HANGS" if status == -9 else f"ENDS WITH {status}"
    parents = next((each for each in verdicts if each != OK), OK)
    bad = [f"{who} {what}" for who, what in (("parent", parents), ("child", childs)) if what != OK]
    return ", ".join(bad) or OK


def _judged(work: Check) -> str:
    try:
        return work()
    except Exception as error:  # of the database, the driver, or a pool
        print(first_line(error))
        return "FAILS"


def _ask_own(request: Callable[[str], Any]) -> str:
    """Ask a question whose answer no other process gets."""
    own = f"{os.getpid()}{next(_numbers):06}"
    answer = request(f"SELECT {own}")
    if answer == own:
        return OK
    print(f"{answer} in place of {own}")
    if isinstance(answer, list):
        return "refused" if REFUSAL in answer[0] else "FAILS"
    return "HANGS" if answer == "hangs" else "WRONG"


# --- the states ---------------------------------------------------------------------------------------------


def idle(dialect: Dialect, request: Callable[[str], Any]) -> Check:
    return lambda: _ask_own(request)


def in_a_transaction(dialect: Dialect, request: Callable[[str], Any]) -> Check:
    block = transaction.atomic()
    block.__enter__()
    ask(f"INSERT INTO other VALUES ({ROW})")

    def check() -> str:
        inside = ask(COUNT)
        block.__exit__(None, None, None)
        found = request(COUNT)
        request(f"DELETE FROM other WHERE n = {ROW}")
        return OK if inside == found == "1" else "LOSES A ROW"

    return check


def half_read(dialect: Dialect, request: Callable[[str], Any]) -> Check:
    connection.ensure_connection()
    rows = dialect.read_half(connection.connection)

    def check() -> str:
        rest = sum(1 for _ in rows)
        rows.close()
        return OK if rest == 99_999 else "LOSES ROWS"

    return check


STATES = {"idle": idle, "in a transaction": in_a_transaction, "a result half read": half_read}


# --- the deeds ----------------------------------------------------------------------------------------------


def ends(request: Callable[[str], Any]) -> str:
    return OK


def closes(request: Callable[[str], Any]) -> str:
    connections.close_all()
    return OK


def queries(request: Callable[[str], Any]) -> str:
    return next((bad for _ in range(QUESTIONS) if (bad := _ask_own(request)) != OK), OK)


DEEDS = {"ends": ends, "closes": closes, "queries": queries}
