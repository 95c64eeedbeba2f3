"""Clocks that run fast, and busy neighbours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from django.db import connection

from poollife import clock as poollife_clock
from poollife.errors import PoolTimeout

#: Longer than any limit of a pool: "wait_timeout" is eight hours by default.
HOURS = 10 * 3600.0
#: Statements from one neighbour to the next. Each may have the cycle collector run.
EVERY = 5


class Clock:
    """Puts both of Python's clocks forward, and poollife's."""

    def __init__(self) -> None:
        self.rests = 0
        self.neighbours = 0
        self._offset = 0.0

    @contextmanager
    def running_fast(self) -> Iterator[None]:
        """Let hours pass before each of Django's statements, in this thread."""
        self._put_into(time, "monotonic")
        self._put_into(time, "time")
        self._put_into(poollife_clock, "monotonic")
        with connection.execute_wrapper(self._before_statement):
            yield

    def rest(self) -> None:
        """Let hours pass, and every now and then have somebody else try to get a connection."""
        self.pass_hours()
        self.rests += 1
        if self.rests % EVERY == 1:
            thread = threading.Thread(target=self._call_neighbour)
            thread.start()
            thread.join()

    def pass_hours(self) -> None:
        self._offset += HOURS

    def _put_into(self, module: ModuleType, name: str) -> None:
        original: Callable[[], float] = getattr(module, name)
        setattr(module, name, lambda: original() + self._offset)

    def _before_statement(self, execute: Callable[..., Any], *args: Any) -> Any:
        self.rest()
        return execute(*args)

    def _call_neighbour(self) -> None:
        # The pool has one connection, and that is out: it looks for leases that nobody has any more.
        try:
            connection.ensure_connection()
        except PoolTimeout:
            self.neighbours += 1


clock = Clock()
