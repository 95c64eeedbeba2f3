"""Openers of half-read results: each reads a part, and returns a function that reads the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

#: Opens a result that is read by half, and returns a function that reads the rest.
HalfRead = Callable[[Any], Callable[[], object]]
#: A SELECT that MariaDB, SQLite and PostgreSQL understand.
THOUSAND_OF_ALL = (
    "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) "
    "SELECT n FROM numbers"
)


def on_the_server(cursor_class: str) -> HalfRead:
    """Return an opener of an unbuffered cursor of MySQL's drivers."""

    def half_read(wrapper: Any) -> Callable[[], object]:
        cursor = wrapper.connection.cursor(getattr(wrapper.Database.cursors, cursor_class))
        cursor.execute("SELECT seq FROM seq_1_to_1000")
        cursor.fetchone()
        return lambda: len(cursor.fetchall()) == 999 and not cursor.close()

    return half_read


def plain(wrapper: Any) -> Callable[[], object]:
    """Read a result of a plain cursor by half."""
    cursor = wrapper.connection.cursor()
    cursor.execute(THOUSAND_OF_ALL)
    cursor.fetchone()
    return lambda: len(cursor.fetchall()) == 999 and not cursor.close()


def named(wrapper: Any) -> Callable[[], object]:
    """Read a result of a named cursor by half."""
    cursor = wrapper.chunked_cursor()
    cursor.execute("SELECT generate_series(1, 1000)")
    cursor.fetchmany(10)
    return lambda: len(cursor.fetchall()) == 990 and not cursor.close()


#: A SELECT of rows that do not fit into a socket's buffers: half of them stay on their way.
WIDE = "SELECT repeat('x', 10000) FROM generate_series(1, 300)"


def streamed(wrapper: Any) -> Callable[[], object]:
    """Read a stream of psycopg's by half."""
    rows = wrapper.connection.cursor().stream(WIDE)
    next(rows)
    return lambda: sum(1 for _ in rows) == 299


def copied_out(wrapper: Any) -> Callable[[], object]:
    """Read a COPY by half."""
    block = wrapper.connection.cursor().copy(f"COPY ({WIDE}) TO STDOUT")
    copy = block.__enter__()
    copy.read()

    def rest() -> bool:
        while copy.read():
            pass
        block.__exit__(None, None, None)
        return True

    return rest


def copied_in(wrapper: Any) -> Callable[[], object]:
    """Write a COPY by half."""
    block = wrapper.connection.cursor().copy("COPY kit (id, name) FROM STDIN")
    copy = block.__enter__()
    number = os.getpid() * 10  # several processes may do it
    copy.write(f"{number}\tseven\n")

    def rest() -> bool:
        copy.write(f"{number + 1}\teight\n")
        block.__exit__(None, None, None)
        return True

    return rest


def pipelined(wrapper: Any) -> Callable[[], object]:
    """Enter a pipeline, with an answer on its way."""
    block = wrapper.connection.pipeline()
    block.__enter__()
    cursor = wrapper.connection.cursor()
    cursor.execute("SELECT 1")

    def rest() -> bool:
        found = cursor.fetchone() == (1,)
        block.__exit__(None, None, None)
        return bool(found)

    return rest
