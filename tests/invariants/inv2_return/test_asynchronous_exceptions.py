"""Invariant 2 under asynchronous exceptions, such as a time limit's or Ctrl-C's: no slot is ever lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.pool import QueuePool

from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.tickets import Ticket, current
from servers import MariaDB
from tests.support.programs.running import run

JOBS = 10_000
CASES = [
    *[("decorated", work, start) for work in ("query", "block", "unread") for start in ("cold", "warm")],
    ("decorated", "query", "crowded"),
    ("decorated", "unread", "crowded"),
    ("unwrapped", "query", "warm"),
    ("decorated", "query", "dead"),
    ("decorated", "query", "down"),
    ("decorated", "query", "refused"),
    ("decorated", "dirty", "warm"),
    ("decorated", "dirty", "dead"),
    ("decorated", "block", "listened"),
    ("decorated", "dirty", "listened"),
    *[
        (form, work, "warm")
        for form in ("generator", "with", "thread", "unwrapped", "executor")
        for work in ("block", "unread")
    ],
    *[("response", work, "warm") for work in ("query", "unread")],
]


@pytest.mark.slow
@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
@pytest.mark.parametrize(("form", "work", "start"), CASES)
def test_struck_at_each_point_no_slot_is_lost(
    mariadb: MariaDB, name: str, form: str, work: str, start: str
) -> None:
    """At each point where CPython delivers such an exception, one after the other."""
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql"}
    report = run("strikes", database, "everywhere", form, work, start)
    # A warm checkout and its return have about a hundred.
    assert report.pop("points") > 80
    assert report == {"not back": [], "slots lost": [], "hung": []}


@pytest.mark.slow
def test_struck_while_somebody_keeps_watch_no_slot_is_lost(mariadb: MariaDB, name: str) -> None:
    """With all that looks at leases where POOL asks for it."""
    pool = {"leak_after": 3600, "stats": True}
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql", "POOL": pool}
    report = run("strikes", database, "everywhere", "decorated", "query", "warm")
    assert report.pop("points") > 100
    assert report == {"not back": [], "slots lost": [], "hung": []}


@pytest.mark.slow
def test_struck_while_a_session_is_pinged_no_slot_is_lost(mariadb: MariaDB, name: str) -> None:
    """And nobody gets its answer."""
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql", "POOL": {"pre_ping": True}}
    report = run("strikes", database, "everywhere", "decorated", "query", "warm")
    assert report.pop("points") > 100
    assert report == {"not back": [], "slots lost": [], "hung": []}


@pytest.mark.slow
def test_struck_at_random_no_slot_is_lost(mariadb: MariaDB, name: str) -> None:
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql"}
    report = run("strikes", database, "at_random", JOBS, 1)
    ends = report["ends"]
    assert sum(ends.values()) == JOBS
    assert min(ends.values()) > 100
    assert (report["out"], report["free"], report["others"]) == (0, report["limit"], {})


@pytest.mark.slow
def test_why_there_is_a_queue_of_our_own(mariadb: MariaDB, name: str) -> None:
    """Should this fail with a newer SQLAlchemy, ours may have had its day."""
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql"}
    report = run("strikes", database, "bare")
    assert report["points"] > 30
    assert report["lost"] > 0
    assert report["hung"] > 0


@pytest.fixture
def name(new_database: Callable[[], str]) -> str:
    return new_database()


# --- the pool by itself -------------------------------------------------------------------------------------


class Connection:
    """A driver's connection."""

    def close(self) -> None:
        pass


def make_pool(size: int = 1, overflow: int = 0) -> FairQueuePool:
    return FairQueuePool(
        lambda: Connection(), pool_size=size, max_overflow=overflow, timeout=0, reset_on_return=None
    )


def test_it_counts_as_sqlalchemys_does() -> None:
    """But for what that one would close when it comes back."""
    ours = make_pool(2, 1)
    creator: Any = Connection
    stock = QueuePool(creator, pool_size=2, max_overflow=1, timeout=0, reset_on_return=None)
    handles: list[list[object]] = [[], []]
    for step in ("connect", "connect", "connect", "close", "close", "connect", "close"):
        for pool, held in zip((ours, stock), handles, strict=True):
            if step == "connect":
                held.append(pool.connect())
            else:
                held.pop().close()  # type: ignore[attr-defined]
        assert ours.status() == stock.status()


def test_who_withdraws_gets_nothing_more() -> None:
    pool = make_pool()
    handle = pool.connect()
    waiting = current.ticket = Ticket()
    try:
        with pytest.raises(Exception, match="None of 1 became free"):
            pool.connect()
    finally:
        current.ticket = None
    assert pool.withdraw(waiting)
    handle.close()
    assert (waiting.served, pool.checkedin()) == (False, 1)


def test_who_was_served_in_the_last_moment_is_told() -> None:
    pool = make_pool()
    handle = pool.connect()
    waiting = current.ticket = Ticket()
    try:
        with pytest.raises(Exception, match="None of 1 became free"):
            pool.connect()
        handle.close()
        assert not pool.withdraw(waiting)
        assert pool.connect() is not None
    finally:
        current.ticket = None


def test_what_nobody_has_any_more_is_closed_before_its_slot_is_free() -> None:
    pool = make_pool()
    lost = current.ticket = Ticket()
    try:
        handle = pool.connect()
    finally:
        current.ticket = None
    lost.active = False
    before = pool.exhausted
    pool.free()
    assert (before, pool.exhausted) == (True, False)
    handle.close()
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


class Holder:
    """A lease, as far as the pool knows it."""

    active = True


def test_what_is_handed_over_while_somebody_looks_is_not_lost() -> None:
    """A checkout ends between the look at who has its slot, and the look whether that one still does."""

    class Slots(dict[Any, Any]):
        def copy(self) -> dict[Any, Any]:
            before = super().copy()
            pool.hold(ticket, lease)
            ticket.active = False
            return before

    pool, lease = make_pool(), Holder()
    ticket = current.ticket = Ticket()
    try:
        entry = pool.take(ticket)
    finally:
        current.ticket = None
    pool._slots = Slots(pool._slots)
    pool.free()
    assert entry.dbapi_connection is not None
    assert dict(pool._slots) == {entry: lease}
