"""Invariant 4 with each driver: no more sessions than the limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from poollife import auto_close_db
from tests.kit.backends import ask
from tests.kit.conftest import Bed


def test_no_more_sessions_than_the_limit(bed: Bed) -> None:
    most = 0
    lock = threading.Lock()

    @auto_close_db
    def work(number: int) -> None:
        nonlocal most
        assert ask(bed.alias, f"SELECT {number}") == number
        with lock:
            most = max(most, bed.pool.opened - bed.pool.closed)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(100)))
    assert most <= 2
    assert bed.pool.opened - bed.pool.closed <= 2
    assert bed.pool.out == 0
