"""A process that has sessions, and ends. Its arguments: DATABASES as JSON, and the name of the ending."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from django.db import connection, transaction

from tests.support.programs.databases import held_session, session, set_up


def idle() -> None:
    """All given back."""
    together = threading.Barrier(3)

    def work(_: int) -> None:
        held_session()
        together.wait()
        connection.close()

    with ThreadPoolExecutor(3) as executor:
        list(executor.map(work, range(3)))


def kept_alive() -> None:
    """Something in C has a reference too many to the connection, so that no destructor ever runs."""
    session()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection.connection))
    connection.close()


def attached() -> None:
    """The main thread's last query left one with it, as in most scripts."""
    session()


def dead_threads() -> None:
    """Threads ended without giving back, and their wrappers have not been collected."""
    threads = [threading.Thread(target=session) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_transaction() -> NoReturn:
    """The script ends in the middle of an atomic block."""
    with transaction.atomic():
        session()
        sys.exit(3)


def outside_atomic() -> NoReturn:
    """Autocommit is off, and nobody commits."""
    session()
    transaction.set_autocommit(False)
    session()
    sys.exit(3)


def fails() -> NoReturn:
    session()
    raise RuntimeError("on purpose")


def daemon_thread() -> None:
    """A daemon thread still has one; the process can't know whether it is in the middle of a query."""
    had, forever = threading.Event(), threading.Event()

    def work() -> None:
        session()
        had.set()
        forever.wait()

    threading.Thread(target=work, daemon=True).start()
    had.wait()


def forked_children() -> None:
    """Bare forks that exit as any script does: with sessions of their own, and copies of the parent's."""
    mine = session()
    for _ in range(3):
        if (pid := os.fork()) == 0:
            session()
            sys.exit(0)
        os.waitpid(pid, 0)
    assert session() == mine


def children_that_do_nothing() -> None:
    """They inherit the exit handler, and must not touch what it would have closed in the parent."""
    mine = session()
    for _ in range(3):
        if (pid := os.fork()) == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
    assert session() == mine


def multiprocessing_children() -> None:
    # Imported only here: multiprocessing has an exit handler of its own.
    import multiprocessing

    mine = session()
    children = [multiprocessing.get_context("fork").Process(target=session) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert session() == mine


def process_pool() -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        assert len(set(executor.map(numbered_session, range(10)))) <= 2


def numbered_session(_: int) -> int:
    return session()


def late_handler() -> None:
    """Somebody's exit handler, registered before ours and so run after it, queries."""
    session()


if __name__ == "__main__":
    ending = globals()[sys.argv[2]]
    if ending is late_handler:
        atexit.register(session)
    set_up(json.loads(sys.argv[1]))
    ending()
