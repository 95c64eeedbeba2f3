"""States that a program can be in when it forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

#: Wide rows, and more of them than fit into a socket's buffers: a half-read result stays on its way.
LONG = 300
ROWS = (
    f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {LONG}) "
    "SELECT n, REPEAT('x', 40000) FROM numbers"
)


def read_half(using: str = "default") -> Any:
    """A cursor with rows still on their way; the first was read."""
    wrapper: Any = connections[using]
    wrapper.ensure_connection()
    if wrapper.vendor == "postgresql":
        cursor = wrapper.chunked_cursor()
    else:
        cursor = wrapper.connection.cursor(wrapper.Database.cursors.SSCursor)
    cursor.execute(ROWS)
    assert cursor.fetchone()[0] == 1
    return cursor


@contextmanager
def half_read(using: str = "default") -> Iterator[Any]:
    """The same, closed in the end."""
    cursor = read_half(using)
    yield cursor
    cursor.close()


def rest_is_right(cursor: Any, read: int = 1) -> bool:
    """Whether the rows that were not read yet are all there."""
    return [row[0] for row in cursor.fetchall()] == list(range(read + 1, LONG + 1))


@contextmanager
def thread(work: Callable[[threading.Event, threading.Event], None], name: str) -> Iterator[threading.Thread]:
    """Beside the block a thread runs ``work(ready, stop)``: it sets the one, and waits for the other."""
    ready, stop = threading.Event(), threading.Event()
    # A daemon: at its exit a child that no hook told of the fork would wait for all others, and has none.
    running = threading.Thread(target=work, args=(ready, stop), name=name, daemon=True)
    running.start()
    assert ready.wait(30)
    yield running
    stop.set()
    running.join()


@contextmanager
def locked(*locks: Any) -> Iterator[None]:
    """Another thread holds these locks."""

    def hold(ready: threading.Event, stop: threading.Event) -> None:
        for lock in locks:
            lock.acquire()
        ready.set()
        stop.wait()
        for lock in locks:
            lock.release()

    with thread(hold, "holder of locks"):
        yield


def pool_locks(*aliases: str) -> list[Any]:
    """Every lock that a checkout, a checkin or the closing of these pools takes."""
    from poollife.pools.registry import registry

    locks: list[Any] = [registry._lock]
    for alias in aliases:
        pool = connections[alias].lease_pool  # type: ignore[attr-defined]
        locks += [pool._lock, pool._sessions._lock]
    return locks


def refusal(attempt: Callable[[], object]) -> str | None:
    """The name of the error, if it is one."""
    try:
        attempt()
    except Exception as error:
        return type(error).__name__
    return None
