"""A program: states in which a process forks, and what its child does.

Its arguments, as JSON: the entry of the database, the backend's name, and modules to do without. It prints
the cases in which the parent or the child was harmed.
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

entry, name, missing = map(json.loads, sys.argv[1:4])
for each in missing:
    sys.modules[each] = None  # type: ignore[assignment]
settings.configure(
    DATABASES={"default": entry},
    INSTALLED_APPS=["poollife"],
    SECRET_KEY="kit",
    USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()

import logging  # noqa: E402

from django.db import connection, connections, transaction  # noqa: E402

from poollife import close_pool  # noqa: E402
from poollife.errors import ForkedTransaction  # noqa: E402
from tests.kit.backends import BACKENDS, ask, do  # noqa: E402

# A driver writes a line for what is freed in a child.
logging.disable(logging.CRITICAL)
backend = next(each for each in BACKENDS if each.name == name)
#: What the parent has at the fork, and a child frees.
kept: list[Any] = []
#: The parent's driver connection.
parents: Any = None


def session() -> Any:
    return ask("default", backend.session_id) if backend.session_id else 0


# --- the parent's state; each returns a function that goes on after the child has ended --------------------


def idle() -> Callable[[], object]:
    before = session()
    connection.close()
    return lambda: session() == before or backend.session_id is None


def held() -> Callable[[], object]:
    before = session()
    connection.ensure_connection()
    return lambda: session() == before


def in_transaction() -> Callable[[], object]:
    block = transaction.atomic()
    block.__enter__()
    do("default", "INSERT INTO kit VALUES (30, 'thirty')")
    kept.append(block)

    def go_on() -> bool:
        found = ask("default", "SELECT COUNT(*) FROM kit WHERE id = 30")
        transaction.set_rollback(True)
        block.__exit__(None, None, None)
        return bool(found == 1)

    return go_on


def in_the_middle_of_a_query() -> Callable[[], object]:
    found: list[Any] = []

    def query() -> None:
        do("default", backend.sleep.format(0.6))  # type: ignore[union-attr]
        found.append(ask("default", "SELECT 42"))
        connection.close()

    thread = threading.Thread(target=query)
    thread.start()
    time.sleep(0.3)

    def go_on() -> bool:
        thread.join()
        return found == [42]

    return go_on


def half_read(how: str) -> Callable[[], Callable[[], object]]:
    def state() -> Callable[[], object]:
        connection.ensure_connection()
        rest = backend.half_read[how](connection)
        kept.append(rest)
        return rest

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
            found.append(ask("default", "SELECT 43"))
        except ForkedTransaction:
            if backend.serves_children:
                raise
            found.append(43)
        connection.close()

    # In a thread, because the parent's block is still open here.
    thread = threading.Thread(target=query)
    thread.start()
    thread.join()
    assert found == [43]


def uses_the_parents_connection() -> None:
    if parents is not None:
        for use in (lambda: parents.cursor().execute("SELECT 1"), parents.commit, parents.rollback):
            try:
                use()
            except Exception:
                continue
            raise AssertionError("the child has used its parent's connection")
        parents.close()


STATES = [idle, held, in_transaction, *map(half_read, backend.half_read)]
if backend.sleep:
    STATES.append(in_the_middle_of_a_query)
CHILDREN = [ends, frees, closes, queries, uses_the_parents_connection]


def case(state: Callable[[], Callable[[], object]], child: Callable[[], None]) -> bool:
    """Return whether neither parent nor child was harmed; runs in a process of its own."""
    global parents
    signal.alarm(40)
    go_on = state()
    parents = connection.connection
    if (pid := os.fork()) == 0:
        signal.alarm(20)
        child()
        sys.exit(0)  # a normal exit, with all destructors
    status = os.waitpid(pid, 0)[1]
    well = bool(go_on())
    return well and status == 0


# What the first query imports is imported once, and not by each case. The collector looks at nothing of it.
with connection.cursor():
    pass
connection.close()
close_pool("default")
gc.collect()
gc.freeze()

harmed = []
for state in STATES:
    for child in CHILDREN:
        if (pid := os.fork()) == 0:
            try:
                os._exit(0 if case(state, child) else 1)
            except Exception as error:
                print(f"{state.__name__}, {child.__name__}: {error!r}", file=sys.stderr)
                os._exit(2)
        if os.waitpid(pid, 0)[1]:
            harmed.append(f"{state.__name__}, {child.__name__}")
print(json.dumps({"cases": len(STATES) * len(CHILDREN), "harmed": harmed}))
