"""Invariant 6 for wrappers that were dropped: only the cycle collector finds them, for a dry pool."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections

from poollife import clock
from poollife.pools import collector as module
from poollife.pools.collector import COLLECTION_INTERVAL, OWN_SHARE, SHARE, Collector
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, connection_id
from tests.support.counting import pool_of
from tests.support.stubs import StubBorrower, StubServer, refused, stub_pool


@pytest.fixture(autouse=True)
def _collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is collected but by the pool, which has not had anything collected yet."""
    monkeypatch.setattr(module.collector, "_ended", -math.inf)
    monkeypatch.setattr(module.collector, "_took", 0.0)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": PATIENCE})


@pytest.fixture
def looks(alias: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How often a checkout had to wait; none does for long."""
    found: list[float] = []

    def look(ticket: Any) -> float:
        found.append(ticket.deadline)
        return 0.0

    monkeypatch.setattr(pool_of(alias)._slots, "_patience_of", look)
    return found


def drop(alias: str) -> int:
    """Borrow, and forget the wrapper, as the recipe has it that deletes a connection which is not usable."""
    session = connection_id(alias)
    del connections[alias]
    return session


def test_a_thread_gets_what_it_has_dropped_itself_without_a_wait(alias: str, looks: list[float]) -> None:
    session = drop(alias)
    assert connection_id(alias) == session
    assert (looks, pool_of(alias).meters.timeouts) == ([], 0)


def test_what_another_thread_has_dropped_is_found_at_the_first_look(alias: str, looks: list[float]) -> None:
    dropped, go_on = threading.Event(), threading.Event()
    sessions: list[int] = []

    def work() -> None:
        sessions.append(drop(alias))
        dropped.set()
        go_on.wait(PATIENCE)

    thread = threading.Thread(target=work)
    thread.start()
    assert dropped.wait(PATIENCE)
    assert connection_id(alias) in sessions
    assert len(looks) == 1
    go_on.set()
    thread.join(PATIENCE)


def test_a_checkout_that_gives_up_has_the_collector_run_whatever_came_before(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the collector's share of the time goes."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0})
    monkeypatch.setattr(module.collector, "_ended", clock.monotonic())
    session, sessions = drop(alias), list[int]()
    thread = threading.Thread(target=lambda: sessions.append(connection_id(alias)))
    thread.start()
    thread.join(PATIENCE)
    assert sessions == [session]


def test_where_something_is_free_nothing_is_collected(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias, runs = make_alias(POOL={"pool_size": 2, "max_overflow": 0}), []
    monkeypatch.setattr(module.collector, "run", lambda *_, **__: runs.append(1))
    drop(alias)
    connection_id(alias)
    assert runs == []


def test_a_checkout_that_waits_for_a_server_has_nothing_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a crowd would stop all threads, and no session would come of it."""
    pool, server, runs = stub_pool("stub", pool_size=2, timeout=0.1), StubServer(), list[int]()
    monkeypatch.setattr(module.collector, "run", lambda *_, **__: runs.append(1))
    server.down = refused()
    with pytest.raises(OperationalError, match="2002"):
        StubBorrower(server).borrow(pool)
    assert (server.attempts, runs) == (1, [])
    pool.drain("the test is over")


# --- how often --------------------------------------------------------------------------------------------


class Process:
    """A process whose collector takes so long, and its time, in units that floats keep exactly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, duration: float) -> None:
        self.now, self.collecting, self.runs = 0.0, 0.0, 0
        self._duration = duration
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.now)
        monkeypatch.setattr(gc, "collect", self._collect)

    def _collect(self) -> None:
        self.now += self._duration
        self.collecting += self._duration
        self.runs += 1


@pytest.mark.parametrize("options", [{}, {"interval": 0}, {"interval": 0, "share": OWN_SHARE}])
@pytest.mark.parametrize("duration", [0.0, 1 / 1024, 1 / 16, 1.0, 8.0])
def test_the_collector_has_a_bounded_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, duration: float, options: dict[str, float]
) -> None:
    """However many ask, all the time."""
    process, collector = Process(monkeypatch, duration), Collector()
    while process.now < 1024:
        collector.run(**options)
        process.now += 1 / 64
    assert process.runs > 1
    assert process.collecting <= process.now / options.get("share", SHARE) + duration
    assert process.runs <= process.now / max(options.get("interval", COLLECTION_INTERVAL), 1 / 64) + 1


def test_a_run_that_is_interrupted_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process, collector = Process(monkeypatch, 0.0), Collector()

    def fail() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gc, "collect", fail)
        with pytest.raises(KeyboardInterrupt):
            collector.run()
    collector.run()
    assert process.runs == 0
    process.now += COLLECTION_INTERVAL
    collector.run()
    assert process.runs == 1
