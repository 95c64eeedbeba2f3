"""``pool_stats()``: exact counts, and histograms whose counts are exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import OperationalError, connections

from poollife import close_pool, pool_stats, resize_pool
from poollife.backends.mixin import PooledMixin
from poollife.board.layout import WAIT_TIME, Cells
from poollife.errors import PoolTimeout
from poollife.pools.meters import BOUNDS, Histogram, Meters, added, kind_of
from poollife.pools.pool import LeasePool
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.invariants.inv5_warm_checkout.test_calls import calls_of, cycle
from tests.support import ROOT
from tests.support.borrowing import PATIENCE, Busy, connection_id, run
from tests.support.counting import pool_of
from tests.support.web_server import eventually

ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 0.05}


def stats(alias: str) -> Any:
    return pool_stats()[alias]


def use(alias: str, times: int = 1) -> None:
    for _ in range(times):
        connection_id(alias)
        connections[alias].close()


def lease_of(alias: str) -> Any:
    return cast(PooledMixin, connections[alias]).lease


# --- counts -------------------------------------------------------------------------------------------------


def test_a_quiet_day(make_alias: MakeAlias) -> None:
    alias = make_alias()
    use(alias, 5)
    found = stats(alias)
    assert {key: value for key, value in found.items() if not key.endswith("_time")} == {
        "pid": found["pid"],
        "limit": 15,
        "out": 0,
        "idle": 1,
        "opening": 0,
        "waiting": 0,
        "max_waiting_seen": 0,
        "opened": 1,
        "closed": 0,
        "checkouts": 5,
        "timeouts": 0,
        "connect_errors": 0,
        "resets": 0,
        "replaced": {},
    }
    assert found["wait_time"]["count"] == 5
    assert found["create_time"]["count"] == 1
    assert 0 < found["create_time"]["sum"] < PATIENCE
    assert found["use_time"] is None
    assert json.loads(json.dumps(found)) == found


def test_a_checkout_that_is_held_up_by_other_threads_did_not_wait(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python gave its lock to others, for far longer than a warm checkout takes."""
    alias = make_alias(POOL=ONE)
    use(alias)
    pool, get = pool_of(alias), LeasePool._get

    def slow_get(pool: LeasePool, ticket: Any) -> Any:
        time.sleep(0.02)
        return get(pool, ticket)

    monkeypatch.setattr(LeasePool, "_get", slow_get)
    before = pool.meters.wait_time.stats()["sum"]
    use(alias, 3)
    assert (stats(alias)["wait_time"]["count"], pool.meters.wait_time.stats()["sum"]) == (4, before)
    connection_id(alias)
    with pytest.raises(PoolTimeout, match="5 checkouts, 1 of them queued or opened a session, 1 time-outs"):
        connections.create_connection(alias).ensure_connection()


def test_a_checkout_that_replaces_a_session_waits_for_the_new_one(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "recycle": 60})
    connection_id(alias)
    lease_of(alias).driver.born -= 61
    connections[alias].close()
    use(alias, 2)
    pool = pool_of(alias)
    assert (pool.opened, sum(pool.meters.wait_time.counts)) == (2, 2)


@pytest.mark.parametrize(
    "poolclass", ["poollife.pools.fair_queue.FairQueuePool", "sqlalchemy.pool.QueuePool"]
)
def test_a_checkout_that_queues_waits_with_any_poolclass(make_alias: MakeAlias, poolclass: str) -> None:
    alias = make_alias(POOL={**ONE, "timeout": PATIENCE, "poolclass": poolclass})
    connection_id(alias)
    waiter = threading.Thread(target=use, args=(alias,))
    waiter.start()
    waiter.join(0.1)
    connections[alias].close()
    waiter.join(PATIENCE)
    pool = pool_of(alias)
    assert (pool.opened, sum(pool.meters.wait_time.counts)) == (1, 2)


SITE = """
from poollife import pool_stats

stats = pool_stats()["default"]
print(stats["wait_time"]["count"] == stats["checkouts"], stats["create_time"]["sum"], stats["waiting"])
if use_time := stats["use_time"]:
    print(use_time["counts"], sum(use_time["bounds"]))
"""


@pytest.mark.slow
def test_numbers_of_a_pool_are_typed(tmp_path: Path) -> None:
    """As a site's own checker sees it: what is always there is not optional."""
    (tmp_path / "site_stats.py").write_text(SITE)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--config-file=",
            "site_stats.py",
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_waiting_and_giving_up(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "timeout": 1})
    connection_id(alias)
    waiters = [Busy(alias) for _ in range(2)]
    threads = [threading.Thread(target=waiter.work) for waiter in waiters]
    for thread in threads:
        thread.start()
    eventually("both wait", lambda: stats(alias)["waiting"] == 2)
    # For longer than any instant: the histogram has exactly these two, then.
    time.sleep(0.02)
    assert stats(alias)["wait_time"]["count"] == 1
    connections[alias].close()
    for waiter, thread in zip(waiters, threads, strict=True):
        waiter.go_on.set()
        thread.join()
    run(threading.Thread(target=use, args=(alias,)))
    found = stats(alias)
    assert (found["waiting"], found["timeouts"], found["checkouts"]) == (0, 0, 4)
    assert found["max_waiting_seen"] == 2
    assert found["wait_time"]["count"] == 4
    assert found["wait_time"]["sum"] >= 0.02


def test_timeouts_are_no_checkouts(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL=ONE)
    connection_id(alias)
    wrapper = connections.create_connection(alias)
    for _ in range(3):
        with pytest.raises(PoolTimeout):
            wrapper.ensure_connection()
    found = stats(alias)
    assert (found["timeouts"], found["checkouts"], found["wait_time"]["count"]) == (3, 1, 1)


def test_failures_to_connect(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL=ONE)
    entry = connections[alias].settings_dict
    entry["PASSWORD"], right = "wrong", entry["PASSWORD"]
    for _ in range(3):
        with pytest.raises(OperationalError):
            connection_id(alias)
    entry["PASSWORD"] = right
    use(alias)
    found = stats(alias)
    assert (found["connect_errors"], found["opened"], found["create_time"]["count"]) == (3, 1, 1)


def test_what_was_replaced_and_why(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL={"recycle": 60})
    connection_id(alias)
    lease_of(alias).driver.born -= 61
    connections[alias].close()
    number = connection_id(alias)  # too old
    connections[alias].close()
    mariadb.execute(f"KILL {number}")
    eventually("it is gone", lambda: number not in [session.id for session in mariadb.sessions()])
    number = connection_id(alias)  # killed while idle
    mariadb.execute(f"KILL {number}")
    with pytest.raises(OperationalError):
        connection_id(alias)  # killed while out
    connections[alias].close()
    connections[alias].ensure_connection()
    connections[alias].connection.query("SELECT 1")  # and not read
    connections[alias].close()
    found = stats(alias)
    assert found["replaced"] == {
        "older than recycle": 1,
        "closed by the server, or out of reach": 1,
        "OperationalError": 1,
        "results left unread": 1,
    }
    assert (found["opened"], found["closed"]) == (4, 4)


def test_several_pools_of_an_alias_are_added_up(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"stats": True})
    busy = Busy(alias)
    thread = threading.Thread(target=busy.work)
    thread.start()
    assert busy.begun.wait(PATIENCE)
    close_pool(alias)
    resize_pool(alias, pool_size=1, max_overflow=1)
    use(alias, 2)
    found = stats(alias)
    assert (found["limit"], found["out"], found["opened"], found["checkouts"]) == (2, 1, 2, 3)
    for key, count in (("wait_time", 3), ("create_time", 2), ("use_time", 2)):
        assert (found[key]["count"], sum(found[key]["counts"])) == (count, count)
    busy.go_on.set()
    thread.join()


# --- histograms ---------------------------------------------------------------------------------------------


def make_histogram() -> Histogram:
    return Histogram(Cells(), WAIT_TIME, 0)


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.001, 0), (0.0011, 1), (0.3, 5), (10.0, 8), (11.0, 9)]
)
def test_where_a_time_is_counted(seconds: float, place: int) -> None:
    histogram = make_histogram()
    histogram.observe(seconds)
    found = histogram.stats()
    assert found["counts"] == [int(number == place) for number in range(len(BOUNDS) + 1)]
    assert (found["count"], found["sum"], found["bounds"]) == (1, seconds, list(BOUNDS))


def test_those_that_took_no_time() -> None:
    histogram = make_histogram()
    histogram.observe(0.3)
    assert histogram.stats(total=5)["counts"] == [4, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert histogram.stats(total=0)["count"] == 1  # one that is just being counted elsewhere


def test_adding() -> None:
    one, other = make_histogram(), make_histogram()
    one.observe(0.3)
    other.observe(20)
    both = added(one.stats(), other.stats())
    assert both
    assert (both["count"], both["sum"], both["counts"]) == (2, 20.3, [0, 0, 0, 0, 0, 1, 0, 0, 0, 1])
    assert added(None, None) is None
    assert added(one.stats(), None) == added(None, one.stats()) == one.stats()


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("older than recycle (3600 s)", "older than recycle"),
        ("it could not be cleaned: (2006, 'gone')", "it could not be cleaned"),
        ("OperationalError: (2013, 'Lost connection: oh')", "OperationalError"),
        ("results left unread", "results left unread"),
    ],
)
def test_reasons_have_few_kinds(reason: str, kind: str) -> None:
    meters = Meters(False, Cells())
    meters.replace(reason)
    assert (meters.replaced, kind_of(reason)) == ({kind: 1}, kind)


# --- what it costs ------------------------------------------------------------------------------------------


def test_use_time_costs_little_and_nothing_when_it_is_off(make_alias: MakeAlias) -> None:
    off, on = make_alias(), make_alias(POOL={"stats": True})
    plain, measured = calls_of(lambda: cycle(off)), calls_of(lambda: cycle(on))
    extra = list(measured.made)
    for name in plain.made:
        extra.remove(name)
    extra = [name for name in extra if name.startswith("poollife.")]
    assert extra == ["poollife.pools.meters.Histogram.observe"]
    assert not any(name.startswith(("poollife.monitoring", "poollife.pools.meters")) for name in plain.made)
    assert stats(on)["use_time"]["count"] == 4


def test_how_long_it_was_out(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"stats": True})
    connection_id(alias)
    lease_of(alias).since -= 8
    connections[alias].close()
    found = stats(alias)["use_time"]
    assert (found["counts"][-2], found["count"]) == (1, 1)
    assert 7 < found["sum"] < 8 + PATIENCE


def test_counting_holds_up_who_counts(make_alias: MakeAlias) -> None:
    """So all numbers are those of one moment; only for as long as it takes to read them."""
    alias = make_alias()
    use(alias)
    pool: LeasePool = pool_of(alias)
    thread = threading.Thread(target=use, args=(alias,))
    with pool.counting:
        thread.start()
        thread.join(0.05)
        assert pool.checkouts == 1
    thread.join(PATIENCE)
    assert pool.checkouts == 2
