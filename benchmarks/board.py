"""The cost of the board: a warm checkout and return with a row on it, and without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from benchmarks.dialects import Dialect
from poollife import close_pool
from poollife.work import Work

#: Cycles of one measurement.
CYCLES = 200


def cycle() -> None:
    """Borrow and return, outside of any work."""
    connection.ensure_connection()
    connection.close()


def request() -> None:
    """Borrow and return in a request."""
    work = Work("GET /catalogue/items/4711/")
    work.run(connection.ensure_connection)
    work.end(True)


def board(dialect: Dialect, entry: dict[str, Any], seconds: float) -> dict[str, dict[str, float]]:
    """Return the microseconds of CPU of a warm checkout and return, without and with a row on the board.

    Both kinds take turns in one process, and the order changes each time. Less than the row can't be switched
    off: the counters are numbers in memory in any case.

    :param seconds: of each of the two kinds of cycle.
    :returns: by kind, the least without and with a row, and the median of the differences.
    """
    connection.ensure_connection()
    driver = connection.connection
    row = driver.row
    assert row is not None, "the board has a row for it"
    connection.close()
    found = {}
    for each in (cycle, request):
        times: dict[bool, list[float]] = {True: [], False: []}
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end or turn < 2:
            turn += 1
            for shown in (True, False) if turn % 2 else (False, True):
                driver.row = row if shown else None
                times[shown].append(_time_of(each))
        driver.row = row
        found[str(each.__doc__)] = {
            "without": min(times[False]),
            "with": min(times[True]),
            "difference": statistics.median(
                one - other for one, other in zip(times[True], times[False], strict=True)
            ),
        }
    close_pool()
    return found


def _time_of(work: Callable[[], None]) -> float:
    began = time.thread_time()  # the row is work of the CPU, and other programs take turns
    for _ in range(CYCLES):
        work()
    return (time.thread_time() - began) / CYCLES * 1e6
