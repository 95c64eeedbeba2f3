"""A handler of a real signal queries, every few milliseconds, in the middle of whatever its thread does.

It has a wrapper of its own, and the pool has two sessions: one for the main thread, and one that another
thread borrows and gives back all the time.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

from django.db import connection, connections

from tests.support.programs.databases import ask, set_up

#: Seconds until the first signal, and from one to the next.
FIRST, INTERVAL = 0.001, 0.002


class Program:
    """Counts what the handler, the main thread and another thread got."""

    def __init__(self, signals: int) -> None:
        self._signals = signals
        self._inside = False
        self.handled = 0
        self.failed: list[str] = []

    def run(self) -> dict[str, Any]:
        from tests.support.counting import pool_of

        ask("SELECT 1")
        connection.close()
        other = threading.Thread(target=self._query_until_done)
        other.start()
        signal.signal(signal.SIGALRM, self._handle)
        signal.setitimer(signal.ITIMER_REAL, FIRST, INTERVAL)
        self._query_until_done()
        signal.setitimer(signal.ITIMER_REAL, 0)
        other.join()
        return {"handled": self.handled, "failed": self.failed, "out": pool_of("default").out}

    def _query_until_done(self) -> None:
        while self.handled < self._signals and not self.failed:
            self._try(lambda: ask("SELECT 1"))
            connection.close()

    def _handle(self, *_: object) -> None:
        if self._inside:
            return
        self._inside = True
        wrapper = connections.create_connection("default")
        try:
            self._try(lambda: query_with(wrapper))
            self.handled += 1
        finally:
            wrapper.close()
            self._inside = False

    def _try(self, work: Any) -> None:
        try:
            work()
        except Exception as error:
            self.failed.append(f"{type(error).__name__}: {error}")


def query_with(wrapper: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")


if __name__ == "__main__":
    set_up({"default": json.loads(sys.argv[1])})
    print(json.dumps(Program(json.loads(sys.argv[2])).run()))
