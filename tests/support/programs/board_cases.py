"""Processes for the board: each does something, says so by a line of JSON, and waits for its input's end."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import traceback
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.db import connections

from poollife import auto_close_db
from poollife.board.page import page
from tests.support.programs.databases import ask, set_up

#: With PyDLL, the GIL is kept during the call.
_libc = ctypes.PyDLL(None)


def say(**report: Any) -> None:
    print(
        json.dumps({"pid": os.getpid(), "token": page.token, "missing": page.missing, **report}), flush=True
    )


def wait() -> None:
    sys.stdin.read()


@auto_close_db
def hold() -> None:
    """Hold a connection, in a thread with the GIL and without an end."""
    connections["default"].ensure_connection()
    say(session=connections["default"].connection.number_at_server())
    wait()


def query(times: int = 3) -> None:
    """Query some times, each time with a connection of its own."""
    for _ in range(times):
        connections["default"].ensure_connection()
        connections["default"].close()
    say()
    wait()


@auto_close_db
def hang() -> None:
    """Keep the GIL for ever, with a connection."""
    connections["default"].ensure_connection()
    say()
    _libc.pause()


@auto_close_db
def fork(hook: bool) -> None:
    """Query, fork, and query in the child; the child ends, and the parent goes on, with a connection.

    :param hook: False: a fork in C, of which no Python code is told. No other thread may be there: it might
        leave the interpreter's own locks taken in the child.
    """
    query_once()
    wrapper: Any = connections["default"]
    wrapper.ensure_connection()
    lease = wrapper.lease
    child = os.fork() if hook else _libc.fork()
    if child == 0:
        status = 1
        try:
            lease.hand_over(None)  # what a work that ends in the child may do with its parent's lease
            query_elsewhere()
            query_elsewhere()
            sys.stdout.write(json.dumps({"child": os.getpid(), "token": page.token}) + "\n")
            sys.stdout.flush()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    say(status=status, threads=threading.active_count())
    wait()


@auto_close_db
def query_elsewhere() -> None:
    """Query in work of its own."""
    query_once()


def query_once() -> None:
    ask("SELECT 1")
    connections["default"].close()


def more_than_one_file(threads: int) -> None:
    """Hold more connections than one file of the board has rows."""
    ready, over = threading.Semaphore(0), threading.Event()

    @auto_close_db
    def borrow() -> None:
        connections["default"].ensure_connection()
        ready.release()
        over.wait()

    running = [threading.Thread(target=borrow) for _ in range(threads)]
    for thread in running:
        thread.start()
    for _ in running:
        ready.acquire()
    say()
    wait()
    over.set()
    for thread in running:
        thread.join()
    say()


def load(threads: int) -> None:
    """Query in some threads, for as long as the input is open; say what became of the queries."""
    over, numbers = threading.Event(), {"good": 0, "failed": 0}
    lock, begun = threading.Lock(), threading.Event()

    @auto_close_db
    def query_once_more() -> None:
        ask("SELECT 1")

    def run() -> None:
        while not over.is_set():
            try:
                query_once_more()
                what = "good"
            except Exception:
                traceback.print_exc()
                what = "failed"
            with lock:
                numbers[what] += 1
            begun.set()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    begun.wait()  # the first query puts the process on the board
    say()
    wait()
    over.set()
    for thread in running:
        thread.join()
    say(**numbers)


def command(*arguments: str) -> None:
    """Run a command of ``manage.py``."""
    out = StringIO()
    try:
        call_command(*arguments, stdout=out)
    except CommandError as error:
        out.write(f"CommandError: {error}")
    say(printed=out.getvalue())


def main(database: dict[str, Any], case: str, *arguments: Any) -> None:
    set_up({"default": database})
    cases = {each.__name__: each for each in (hold, query, hang, fork, more_than_one_file, load, command)}
    cases[case](*arguments)


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
