"""Forks children in the middle of another thread's write transactions on SQLite, and reports what came of it.

Arguments: the database's path, its journal mode, the number of forks; then optionally ``unguarded``, which
takes poollife out, for the proof that the test can fail.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing

import django
from django.conf import settings

PATH, JOURNAL_MODE, FORKS = sys.argv[1], sys.argv[2], int(sys.argv[3])
UNGUARDED = sys.argv[4:] == ["unguarded"]
ENGINE = "django.db.backends.sqlite3" if UNGUARDED else "poollife.backends.sqlite3"

# A small cache: a transaction's pages go to the file long before its commit.
PRAGMAS = f"PRAGMA journal_mode = {JOURNAL_MODE}; PRAGMA cache_size = 10; PRAGMA synchronous = OFF"
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": ENGINE,
            "NAME": PATH,
            "OPTIONS": {"timeout": 1 if UNGUARDED else 60, "init_command": PRAGMAS},
        },
        # Children give up soon: while somebody writes, SQLite lets nobody else.
        "child": {"ENGINE": ENGINE, "NAME": PATH, "OPTIONS": {"timeout": 0.01}},
    },
    USE_TZ=True,
)
django.setup()

from django.db import DatabaseError, OperationalError, connection, connections, transaction  # noqa: E402

ROWS = 100
QUERIED, REFUSED, LOCKED = 10, 11, 12
FINE = (0, QUERIED, REFUSED, LOCKED)


def write() -> None:
    """One transaction of a megabyte, in place: the file does not grow."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE blobs SET version = version + 1, data = %s WHERE id = %s",
            [(os.urandom(5000).hex(), number) for number in range(ROWS)],
        )


def exit_normally() -> int:
    return 0


def collect() -> int:
    gc.collect()
    return 0


def close() -> int:
    connection.close()
    return 0


def query() -> int:
    try:
        with connections["child"].cursor() as cursor:
            cursor.execute("INSERT INTO children (pid) VALUES (%s)", [os.getpid()])
    except OperationalError as error:
        return LOCKED if "locked" in str(error) else REFUSED
    return QUERIED


CHILDREN: list[Callable[[], int]] = [exit_normally, collect, close, query]


def fork(child: Callable[[], int]) -> int:
    """Fork a child that ends as Python programs end, and return its exit status."""
    pid = os.fork()
    if pid == 0:
        # A child that hangs (on a mutex of SQLite that a lost thread holds) is ended by this, and counted.
        signal.alarm(2 if UNGUARDED else 60)
        sys.exit(child())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, version INTEGER, data TEXT)")
        cursor.executemany("INSERT INTO blobs VALUES (%s, 0, '')", [(number,) for number in range(ROWS)])
        cursor.execute("CREATE TABLE children (pid INTEGER)")
    connection.close()

    done = threading.Event()
    transactions = 0
    errors: list[str] = []

    def writer() -> None:
        nonlocal transactions
        try:
            while not done.is_set():
                write()
                transactions += 1
                connection.close()
        except Exception as error:
            errors.append(repr(error))

    thread = threading.Thread(target=writer)
    thread.start()
    statuses: list[int] = []
    try:
        statuses += [fork(CHILDREN[number % len(CHILDREN)]) for number in range(FORKS)]
        # The forking thread's own transaction: nothing that it could wait for.
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO children (pid) VALUES (0)")
            statuses += [fork(exit_normally), fork(collect), fork(query)]
        connection.close()
    except DatabaseError as error:
        errors.append(repr(error))
    finally:
        done.set()
        thread.join()

    # With a connection of its own: what the file is like for everybody else.
    with closing(sqlite3.connect(PATH)) as check:
        print(
            json.dumps(
                {
                    "integrity": check.execute("PRAGMA integrity_check").fetchone()[0],
                    "writes_lost": transactions * ROWS
                    - check.execute("SELECT SUM(version) FROM blobs").fetchone()[0],
                    "errors": errors,
                    "children_queried": statuses.count(QUERIED),
                    "children_refused": statuses.count(REFUSED),
                    "children_rows": check.execute("SELECT COUNT(*) FROM children").fetchone()[0] - 1,
                    "children_failed": sum(status not in FINE for status in statuses),
                }
            )
        )


main()
