"""Invariant 4 over time: unused pools and sessions do not pile up, and those in use stay."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from poollife import clock, pool_stats
from poollife.pools.background import Housekeeper
from poollife.pools.pool import LeasePool
from poollife.pools.registry import registry
from poollife.pools.sweeper import next_sweep, quiet_pools
from poollife.process.atfork import LIMIT, Gate, at_fork
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.borrowing import PATIENCE, Busy, connection_id
from tests.support.counting import pool_of
from tests.support.engines.tenants import base as tenants
from tests.support.stubs import StubBorrower, StubServer, stub_pool
from tests.support.web_server import eventually

#: The surplus goes at once, in place of after five seconds.
QUICK = {"pool_size": 2, "max_overflow": 0, "retire_interval": 0.05}
GONE, ELSEWHERE = "its alias is not in DATABASES any more", "its alias uses other databases now"


@pytest.fixture(autouse=True)
def _no_other_pools() -> Iterator[None]:
    """Start without pools of earlier tests, and leave none."""
    registry.drain(None, "another test begins")
    yield
    registry.drain(None, "the test is over")


@pytest.fixture
def databases(new_database: Callable[[], str]) -> list[str]:
    return [new_database() for _ in range(6)]


@pytest.fixture
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the thread look all the time, and not once a minute, for aliases that were removed."""
    monkeypatch.setattr("poollife.pools.sweeper.LONGEST_NAP", 0.05)


def use(alias: str) -> int:
    """Return the number of the session that served a query; it is back in its pool."""
    number = connection_id(alias)
    connections[alias].close()
    return number


def use_database(alias: str, name: str) -> int:
    """Change NAME in place, as sites with a database for each tenant do, and query."""
    connections[alias].close()
    connections[alias].settings_dict["NAME"] = name
    return use(alias)


def use_tenant(alias: str, name: str) -> int:
    """Make an alias for one query, and remove it."""
    connections.settings[name] = {**connections[alias].settings_dict, "NAME": name}
    try:
        return use(name)
    finally:
        del connections[name], connections.settings[name]


def sessions(server: MariaDB, databases: list[str]) -> set[int]:
    return {session.id for session in server.sessions() if session.db in databases}


def swept(server: MariaDB, databases: list[str]) -> bool:
    """Sweep, as happens at least once a minute, and return whether these databases have no session."""
    registry._sweeper.sweep()
    return not sessions(server, databases)


def sweepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "poollife's sweeper"]


def used_pools(*numbers: int, alias: str = "default", **options: Any) -> list[LeasePool]:
    """Return stub pools of one alias with so many idle sessions each; the first was used first."""
    pools = []
    for age, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        pool, server = stub_pool(alias, **options), StubServer()
        borrowers = [StubBorrower(server) for _ in range(number)]
        for borrower in borrowers:
            borrower.borrow(pool)
        for borrower in borrowers:
            borrower.give_back()
        pool.last_used -= age
        pools.append(pool)
    return pools


def closed(pools: list[LeasePool], after: float) -> dict[int, str]:
    """Return which of these pools are closed, and why, if none is used for so many seconds."""
    now = max(pool.last_used for pool in pools) + after
    return {pools.index(pool): reason for pool, reason in quiet_pools(pools, now)}


# --- which pools are closed -------------------------------------------------------------------------------


def test_a_pool_is_closed_after_max_pool_idle_and_not_before() -> None:
    pools = used_pools(2)
    assert closed(pools, 3599) == {}
    # Not at 3,600: a time that is a sum is as exact as its size allows.
    assert closed(pools, 3601) == {0: "unused for 3600 s (max_pool_idle)"}


def test_max_pool_idle_none_keeps_a_pool_for_ever() -> None:
    assert closed(used_pools(2, max_pool_idle=None), 1e9) == {}


def test_a_pool_with_a_session_out_is_in_use() -> None:
    (pool,) = used_pools(2, max_pool_idle=30)
    borrower, states = StubBorrower(StubServer()), [pool.in_use]
    borrower.borrow(pool)
    states.append(pool.in_use)
    # And so it is looked at again after the whole time, not at once.
    assert next_sweep([pool], pool.made + 1e6) == pytest.approx(30)
    borrower.give_back()
    assert [*states, pool.in_use] == [False, True, False]


def test_a_pool_that_is_waited_for_is_in_use() -> None:
    """The server is slow: nothing is out, and nothing was ever opened."""
    pool, server = stub_pool("gone"), StubServer(connect_time=0.2)
    thread = threading.Thread(target=StubBorrower(server).borrow, args=(pool,))
    thread.start()
    eventually("a session is being opened", lambda: server.connecting == 1)
    assert pool.in_use
    thread.join(PATIENCE)


def test_a_pool_whose_alias_is_gone_is_surplus() -> None:
    pools = used_pools(1, alias="gone")
    assert closed(pools, 4) == {}
    assert closed(pools, 5) == {0: GONE}


def test_an_alias_keeps_as_many_sessions_as_one_pool_may_have() -> None:
    """The pools used last keep theirs."""
    pools = used_pools(1, 1, 1, 1, pool_size=2, max_overflow=0)
    assert closed(pools, 10) == {1: ELSEWHERE, 0: ELSEWHERE}
    assert closed(used_pools(1, 1, 1, 1), 10) == {}


def test_a_pool_that_was_used_of_late_is_no_surplus() -> None:
    """However many there are: a burst over many tenants keeps its sessions while it lasts."""
    pools = used_pools(1, 1, 1, 1, pool_size=2, max_overflow=0)
    assert closed(pools, 0) == {}
    assert closed(pools, 1.5) == {}
    assert closed(pools, 2.5) == {0: ELSEWHERE}


def test_sessions_that_are_out_count_too() -> None:
    old, busy = used_pools(1, 1, pool_size=2, max_overflow=0)
    borrowers = [StubBorrower(StubServer()) for _ in range(2)]
    for borrower in borrowers:
        borrower.borrow(busy)
    assert closed([old, busy], 10) == {0: ELSEWHERE}


def test_a_sweep_is_planned_only_where_something_can_be_due() -> None:
    pools = used_pools(1)
    now = pools[0].last_used
    pools[0].made = now - 60
    assert next_sweep(pools, now) == pytest.approx(60)
    assert next_sweep(pools, now + 3599) == pytest.approx(1)
    assert next_sweep(pools, now + 1e6) == pytest.approx(0.01)
    assert next_sweep([], now) is None
    # Its alias may be gone by then.
    assert next_sweep(pools, pools[0].made) == pytest.approx(5)
    (unpooled,) = used_pools(1, poolclass="sqlalchemy.pool.NullPool")
    assert next_sweep([unpooled], now) is None
    (never,) = used_pools(1, max_pool_idle=None)
    never.made = -math.inf
    assert next_sweep([never], now) == pytest.approx(60)
    (gone,) = used_pools(1, alias="gone")
    gone.made = -math.inf
    assert next_sweep([gone], now) == pytest.approx(5)


# --- on a server --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_looks_often")
def test_sessions_of_aliases_that_are_gone_end(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str]
) -> None:
    alias = make_alias(POOL=QUICK)
    use(alias)
    for name in databases:
        use_tenant(alias, name)
    eventually("their sessions end", lambda: not sessions(mariadb, databases))
    eventually("their pools are gone", lambda: {pool.key.alias for pool in registry.pools()} == {alias})
    assert pool_stats().keys() & set(databases) == set()
    assert pool_stats()[alias]["idle"] == 1


@pytest.mark.usefixtures("_looks_often")
def test_one_alias_that_is_gone_is_enough(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str]
) -> None:
    """No other pool is made, or used, after it."""
    use_tenant(make_alias(POOL={**QUICK, "retire_interval": 1}), databases[0])
    eventually("its session ends", lambda: not sessions(mariadb, databases))


def test_what_is_borrowed_outlives_its_alias(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str]
) -> None:
    alias, name = make_alias(POOL=QUICK), databases[0]
    connections.settings[name] = {**connections[alias].settings_dict, "NAME": name}
    busy = Busy(name)
    thread = threading.Thread(target=busy.work)
    thread.start()
    assert busy.begun.wait(PATIENCE)
    del connections.settings[name]
    registry._sweeper.sweep()
    assert len(sessions(mariadb, databases)) == 1
    busy.go_on.set()
    thread.join(PATIENCE)
    eventually("its session ends", lambda: swept(mariadb, databases))


@pytest.mark.parametrize("leave", ["ends", "waits for a job"])
def test_what_threads_have_left_out_of_an_alias_that_is_gone_is_taken_back(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str], leave: str
) -> None:
    """No checkout of that pool comes by any more, which would look for it."""
    alias, name = make_alias(POOL=QUICK), databases[0]
    connections.settings[name] = {**connections[alias].settings_dict, "NAME": name}
    executor = ThreadPoolExecutor(1)

    def work() -> None:
        with connections[name].cursor() as cursor:
            cursor.execute("SET @mine = 1")

    executor.submit(work).result()
    if leave == "ends":
        executor.shutdown()
    assert len(sessions(mariadb, databases)) == 1
    del connections.settings[name]
    eventually("its session ends", lambda: swept(mariadb, databases))
    executor.shutdown()


def test_databases_of_one_alias_keep_what_one_pool_may_have(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str]
) -> None:
    alias = make_alias(POOL=QUICK)
    used = [use_database(alias, name) for name in databases]
    eventually("the surplus ends", lambda: sessions(mariadb, databases) == set(used[-2:]))
    assert use_database(alias, databases[-2]) == used[-2]


def test_an_alias_that_switches_back_and_forth_keeps_its_sessions(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str]
) -> None:
    """One request is for this tenant, the next one for that, with pauses."""
    alias = make_alias(POOL={**QUICK, "pool_size": 3})
    used = set()
    for _ in range(4):
        for name in databases[:3]:
            used.add(use_database(alias, name))
            for pool in registry.pools():
                pool.last_used -= 60
            registry._sweeper.sweep()
    assert len(used) == 3
    assert sessions(mariadb, databases) == used


def test_a_pool_key_that_depends_on_the_thread_needs_no_more_sessions(
    make_alias: MakeAlias, mariadb: MariaDB, databases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that are the same for all say nothing of which pool is used still."""

    class Tenant(threading.local):
        name = ""

        def __get__(self, wrapper: object, owner: object) -> str:
            return self.name

    monkeypatch.setattr(tenants.DatabaseWrapper, "tenant", tenant := Tenant())
    alias = make_alias("tests.support.engines.tenants", POOL=QUICK)

    def work(name: str) -> None:
        tenant.name = name
        use(alias)

    for name in databases:
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        thread.join(PATIENCE)
    eventually("the surplus ends", lambda: len(sessions(mariadb, databases)) == 2)


def test_the_next_checkout_makes_the_pool_anew(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL={"max_pool_idle": 0.05})
    first, pool = use(alias), pool_of(alias)
    eventually("the pool is closed", lambda: pool.closed_because is not None)
    eventually("its session ends", lambda: first not in {session.id for session in mariadb.sessions()})
    assert alias not in pool_stats()
    assert use(alias) != first
    assert pool_of(alias) is not pool


def test_a_pool_that_has_come_into_use_meanwhile_stays(make_alias: MakeAlias) -> None:
    alias = make_alias()
    connection_id(alias)
    pool = pool_of(alias)
    registry.close_unused(pool, "it was unused a moment ago")
    assert (pool.closed_because, pool_of(alias)) == (None, pool)
    connections[alias].close()
    # Nor is the next one of the same key taken for it.
    registry.drain(alias, "the test closes it")
    use(alias)
    registry.close_unused(pool, "it was closed already")
    assert pool_of(alias).closed_because is None


def test_pools_that_keep_no_sessions_leave_the_registry(make_alias: MakeAlias, databases: list[str]) -> None:
    """With POOL: False there is nothing to close, but there would be more and more of them."""
    eventually("no pool, no thread", lambda: not sweepers())
    alias = make_alias(POOL=False)
    for name in databases:
        use_tenant(alias, name)
    assert not sweepers()
    for pool in registry.pools():
        pool.last_used -= 60
    use(make_alias(POOL=QUICK))
    eventually("they are gone", lambda: not {pool.key.alias for pool in registry.pools()} & set(databases))


# --- the thread ---------------------------------------------------------------------------------------------


def test_the_sweeper_is_there_only_while_there_are_pools(make_alias: MakeAlias) -> None:
    eventually("no pool, no thread", lambda: not sweepers())
    aliases = [make_alias() for _ in range(3)]
    for alias in aliases:
        use(alias)
    (thread,) = sweepers()
    assert thread.daemon
    registry.drain(None, "the test closes them")
    eventually("no pool, no thread", lambda: not sweepers())
    use(aliases[0])
    assert len(sweepers()) == 1


def test_a_process_that_can_start_no_thread_still_gets_its_sessions(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert use(make_alias())


def test_the_sweeper_is_stopped_for_a_fork_and_goes_on_in_the_parent(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a process with no threads of its own has none at the fork: Python 3.12 and later warn of them."""
    use(make_alias())
    at_fork: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(registry, "resume", lambda: at_fork.append(len(sweepers())))
        exit_child_after(lambda: None)
    assert at_fork == [0]
    exit_child_after(lambda: None)
    eventually("the parent has it again", lambda: len(sweepers()) == 1)


def test_a_child_sweeps_its_own_pools_only(make_alias: MakeAlias) -> None:
    alias = make_alias()
    mine = use(alias)

    def child() -> None:
        assert not sweepers()
        use(alias)
        assert len(sweepers()) == 1
        for pool in registry.pools():
            pool.last_used -= 3600
        registry._sweeper.sweep()
        assert not registry.pools()

    exit_child_after(child)
    assert use(alias) == mine


def test_a_sweep_that_takes_long_holds_up_no_fork(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session is closed that does not want to."""
    go_on, begun = threading.Event(), threading.Event()

    def drain(pool: LeasePool, reason: str) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr("poollife.pools.sweeper.STOP_WAIT", 0.05)
    monkeypatch.setattr(LeasePool, "drain", drain)
    use(make_alias(POOL={"max_pool_idle": 0.01}))
    assert begun.wait(PATIENCE)
    exit_child_after(lambda: None)
    assert not go_on.is_set()
    go_on.set()


def test_the_sweeper_goes_on_after_a_fork_that_met_a_long_sweep(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stopped thread is still at work when the parent wants it again."""
    go_on, begun, drain = threading.Event(), threading.Event(), LeasePool.drain

    def slow(pool: LeasePool, reason: str) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        drain(pool, reason)

    monkeypatch.setattr("poollife.pools.sweeper.STOP_WAIT", 0.05)
    monkeypatch.setattr(LeasePool, "drain", slow)
    use(make_alias(POOL={"max_pool_idle": 0.01}))
    assert begun.wait(PATIENCE)
    use(make_alias(POOL={"max_pool_idle": 0.5}))
    exit_child_after(lambda: None)
    go_on.set()
    eventually("the other one is closed as well", lambda: not registry.pools())


def test_the_sweeper_does_not_begin_while_another_thread_forks(make_alias: MakeAlias) -> None:
    """That fork's child would have half of what it does. The last fork of several starts it again."""
    use(make_alias())
    settled, go_on = threading.Event(), threading.Event()

    def fork() -> None:
        at_fork.gate.close()
        registry.settle()
        settled.set()
        assert go_on.wait(PATIENCE)
        at_fork.gate.open()
        registry.resume()

    other = threading.Thread(target=fork)
    other.start()
    assert settled.wait(PATIENCE)
    registry.resume()
    assert not sweepers()
    go_on.set()
    other.join(PATIENCE)
    assert len(sweepers()) == 1


def test_a_fork_whose_end_was_not_told_is_over_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    gate.close()
    assert gate.closed
    later = clock.monotonic() + LIMIT
    monkeypatch.setattr(clock, "monotonic", lambda: later)
    assert not gate.closed


def test_a_second_stop_waits_for_the_thread_as_well() -> None:
    """The second one of two forks at the same time."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    housekeeper = Housekeeper("a housekeeper", work)
    housekeeper.call()
    worker = housekeeper._worker
    assert worker
    assert begun.wait(PATIENCE)
    housekeeper.stop(0)
    threading.Timer(0.2, go_on.set).start()
    housekeeper.stop(PATIENCE)
    assert not worker.is_alive()


def test_a_thread_that_is_stopped_while_it_begins_ends_and_the_next_call_starts_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked, begun = list[str](), threading.Event()

    def work() -> float:
        worked.append(threading.current_thread().name)
        begun.set()
        return PATIENCE

    housekeeper, start = Housekeeper("a housekeeper", work), threading.Thread.start

    def stopped_before(thread: threading.Thread) -> None:
        housekeeper.stop(PATIENCE)
        start(thread)
        thread.join(PATIENCE)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", stopped_before)
        housekeeper.call()
    assert worked == []
    housekeeper.call()
    assert begun.wait(PATIENCE)
    housekeeper.stop(PATIENCE)
    assert worked == ["a housekeeper"]


def exit_child_after(work: Callable[[], object]) -> None:
    """Fork, work in the child, and look whether it came to its end."""
    if (pid := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


PROGRAM = """
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {{"ENGINE": "poollife.backends.sqlite3", "NAME": {name!r}}}}},
                   INSTALLED_APPS=["poollife"])
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
{more}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        "",
        "connection.close()",
        "import os; (pid := os.fork()) and os.waitpid(pid, 0)",
        "connection.lease_pool.drain('x')",
    ],
)
def test_the_sweeper_keeps_no_process_alive_and_says_nothing(tmp_path: Any, more: str) -> None:
    """At its end, with an hour to go."""
    program = PROGRAM.format(name=str(tmp_path / "site.sqlite3"), more=more)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
