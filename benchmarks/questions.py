"""Statements by Django's connection, as a view sends them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

#: Seconds after which a statement has no answer.
HANGS = 10.0


def ask(sql: str) -> Any:
    """Send a statement, and return the first column of the first row; None if it has no result."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return str(cursor.fetchall()[0][0]) if cursor.description else None


@contextmanager
def time_limit() -> Iterator[None]:
    """End a block that hangs.

    :raises TimeoutError: inside of the block, after ``HANGS`` seconds.
    """

    def ring(*_: object) -> None:
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, ring)
    # Again and again: the first error may end in a handler that then waits for the same thing.
    signal.setitimer(signal.ITIMER_REAL, HANGS, HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
