"""A program: states in which a process forks, and what its child does.

Its arguments, as JSON: the entries of the database by the kind of connection, the backend's name, and modules
to do without. It prints the cases in which the parent or the child was harmed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

entries, name, missing = map(json.loads, sys.argv[1:4])
for each in missing:
    sys.modules[each] = None  # type: ignore[assignment]
settings.configure(
    DATABASES={"default": {}, **entries},
    INSTALLED_APPS=["poollife"],
    SECRET_KEY="kit",
    USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()

import logging  # noqa: E402

from django.db import connections, transaction  # noqa: E402

from poollife import close_pool  # noqa: E402
from poollife.errors import ForkedJVM, ForkedTransaction  # noqa: E402
from tests.kit.backends import BACKENDS, ask, do  # noqa: E402

# A driver writes a line for what is freed in a child.
logging.disable(logging.CRITICAL)
backend = next(each for each in BACKENDS if each.name == name)
#: The alias of the case.
via = ""
#: What the parent has at the fork, and a child frees.
kept: list[Any] = []
#: A driver connection of the parent's.
parents: Any = None


def session() -> Any:
    """Return the session of this thread, and remember its driver connection."""
    global parents
    connections[via].ensure_connection()
    parents = connections[via].connection
    return ask(via, backend.session_id) if backend.session_id else 0


# --- the parent's state; each returns a function that goes on after the child has ended --------------------


def idle() -> Callable[[], object]:
    before = session()
    connections[via].close()
    return lambda: session() == before


def held() -> Callable[[], object]:
    before = session()
    connections[via].ensure_connection()
    return lambda: session() == before


def in_transaction(change: str = "INSERT INTO kit VALUES (30, 'thirty')") -> Callable[[], object]:
    block = transaction.atomic(using=via)
    block.__enter__()
    do(via, change)
    before = session()
    kept.append(block)

    def go_on() -> bool:
        found = ask(via, "SELECT COUNT(*) FROM kit WHERE id = 30 OR name = 'two'"), session()
        transaction.set_rollback(True, using=via)
        block.__exit__(None, None, None)
        return bool(found == (1, before))

    return go_on


def in_the_middle_of_a_query() -> Callable[[], object]:
    """Have another thread change a row that this one has changed: that lasts until ``go_on()``."""
    sessions: list[Any] = []
    in_order = in_transaction("UPDATE kit SET name = 'two' WHERE id = 1")

    def query() -> None:
        sessions.append(session())
        do(via, "UPDATE kit SET name = 'one' WHERE id = 1")
        sessions.append(session())
        connections[via].close()

    thread = threading.Thread(target=query)
    thread.start()
    while not ask(via, backend.waiting):  # type: ignore[arg-type]
        time.sleep(0.01)

    def go_on() -> bool:
        well = in_order()
        thread.join()
        return bool(well and len(sessions) == 2 and sessions[0] == sessions[1])

    return go_on


def half_read(how: str) -> Callable[[], Callable[[], object]]:
    def state() -> Callable[[], object]:
        before = session()
        connections[via].ensure_connection()
        rest = backend.half_read[how](connections[via])
        kept.append(rest)
        return lambda: rest() and session() == before

    state.__name__ = how
    return state


# --- what the child does ------------------------------------------------------------------------------------


def ends() -> None:
    """Nothing else."""


def frees() -> None:
    kept.clear()
    gc.collect()


def closes() -> None:
    connections.close_all()


def queries() -> None:
    found: list[Any] = []

    def query() -> None:
        try:
            found.append(ask(via, "SELECT 43"))
        except ForkedTransaction:
            if backend.serves_children:
                raise
            found.append(43)
        except ForkedJVM:
            if backend.outlives_forks:
                raise
            found.append(43)
        connections[via].close()

    # In a thread, because the parent's block is still open here.
    thread = threading.Thread(target=query)
    thread.start()
    thread.join()
    assert found == [43]


def uses_the_parents_connection() -> None:
    for use in (lambda: parents.cursor().execute("SELECT 1"), parents.commit, parents.rollback):
        try:
            use()
        except Exception:
            continue
        raise AssertionError("the child has used its parent's connection")
    parents.close()


STATES = [idle, held, in_transaction, *map(half_read, backend.half_read)]
if backend.waiting:
    STATES.append(in_the_middle_of_a_query)
CHILDREN = [ends, frees, closes, queries, uses_the_parents_connection]


def case(state: Callable[[], Callable[[], object]], child: Callable[[], None]) -> bool:
    """Return whether neither parent nor child was harmed; runs in a process of its own."""
    signal.alarm(60)
    go_on = state()
    if (pid := os.fork()) == 0:
        signal.alarm(40)
        child()
        sys.exit(0)  # a normal exit, with all destructors
    status = os.waitpid(pid, 0)[1]
    well = bool(go_on())
    return well and status == 0


def start(name: str, state: Callable[[], Callable[[], object]], child: Callable[[], None]) -> int:
    """Start the process of a case, and return its pid."""
    if pid := os.fork():
        return pid
    try:
        os._exit(0 if case(state, child) else 1)
    except Exception as error:
        print(f"{name}: {error!r}", file=sys.stderr)
        os._exit(2)


# No case has to import the driver, or to look at all that was imported when it collects garbage.
if backend.outlives_forks:
    for via in entries:
        connections[via].ensure_connection()
    connections.close_all()
    close_pool()
gc.collect()
gc.freeze()

cases = 0
harmed = []
for via in entries:
    for child in CHILDREN:
        names = [f"{via}, {state.__name__}, {child.__name__}" for state in STATES]
        pids = [start(name, state, child) for name, state in zip(names, STATES, strict=True)]
        harmed += [name for name, pid in zip(names, pids, strict=True) if os.waitpid(pid, 0)[1]]
        cases += len(pids)
print(json.dumps({"cases": cases, "harmed": harmed}))
