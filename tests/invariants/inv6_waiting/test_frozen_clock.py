"""Invariant 6 where a user's test freezes the time: waits end all the same."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest
import time_machine
from freezegun import freeze_time

from poollife import clock
from poollife.errors import PoolTimeout
from poollife.pools.pool import LeasePool
from tests.support import ROOT
from tests.support.borrowing import PATIENCE
from tests.support.stubs import StubBorrower, StubServer, stub_pool

#: What tests stop the time with.
STOPPED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "freezegun": lambda: freeze_time("2030-01-01"),
    "freezegun, tick": lambda: freeze_time("2030-01-01", auto_tick_seconds=1),
    "time-machine": lambda: time_machine.travel("2030-01-01", tick=False),
    "unittest.mock": lambda: mock.patch("time.monotonic", return_value=0.0),
}


@pytest.fixture
def pool() -> Iterator[LeasePool]:
    pool = stub_pool("stub", pool_size=1, max_overflow=0, timeout=0.3)
    yield pool
    pool.drain("the test is over")


@pytest.mark.parametrize("stop", STOPPED.values(), ids=STOPPED)
def test_a_wait_ends_while_the_time_stands_still(
    pool: LeasePool, stop: Callable[[], AbstractContextManager[Any]]
) -> None:
    server = StubServer()
    holder = StubBorrower(server)
    holder.borrow(pool)
    with stop(), pytest.raises(PoolTimeout):
        StubBorrower(server).borrow(pool)
    holder.give_back()


@pytest.mark.parametrize("stop", STOPPED.values(), ids=STOPPED)
def test_the_clock_goes_on_while_the_time_stands_still(
    stop: Callable[[], AbstractContextManager[Any]],
) -> None:
    with stop():
        began = clock.monotonic()
        while clock.monotonic() == began:
            pass


def test_freezegun_does_freeze_the_time() -> None:
    """Or the above would show nothing: also for whoever has bound it early."""
    import tests.invariants.inv6_waiting.test_frozen_clock as this

    this.bound = time.monotonic  # type: ignore[attr-defined]
    try:
        with freeze_time("2030-01-01"):
            assert time.monotonic() == time.monotonic()
            assert this.bound() == this.bound()  # type: ignore[attr-defined]
    finally:
        del this.bound  # type: ignore[attr-defined]


def test_a_clock_that_is_first_loaded_while_the_time_stands_still_goes_on_later() -> None:
    program = (
        "from freezegun import freeze_time\n"
        "with freeze_time('2030-01-01'):\n"
        "    from poollife import clock\n"
        "    began = clock.monotonic()\n"
        "    while clock.monotonic() == began: pass\n"
        "began = clock.monotonic()\n"
        "while clock.monotonic() == began: pass\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_a_wait_for_another_attempt_ends_where_sleep_is_replaced() -> None:
    """As ``mock.patch("time.sleep")`` in a test of a user's does it."""
    server = StubServer(connect_time=0.5)
    pool = stub_pool("stub", pool_size=4, max_overflow=0, timeout=0.2)
    pool._outage.doubt()
    sleep = time.sleep
    with mock.patch("time.sleep") as replaced:
        # The stub's own sleep is one of a server, and stays.
        replaced.side_effect = lambda seconds: sleep(seconds) if seconds == server.connect_time else None
        first = threading.Thread(target=StubBorrower(server).borrow, args=(pool,))
        first.start()
        while not server.connecting:
            sleep(0.001)
        with pytest.raises(PoolTimeout):
            StubBorrower(server).borrow(pool)
    first.join(PATIENCE)
    pool.drain("the test is over")


def test_poollife_has_one_clock() -> None:
    """``time.monotonic`` is read by nothing but what Django compares with its own."""
    found = []
    for path in sorted((ROOT / "poollife").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.monotonic", "time.time"):
                found.append(path.name)
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                found.append(path.name)
    assert found == ["mixin.py"]
