"""``drain_pool()``, ``suspend_pool()``, ``resume_pool()`` and ``resize_pool()``, on a real server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import NotSupportedError, OperationalError, connections
from django.utils.connection import ConnectionDoesNotExist

import poollife
from poollife import pool_available
from poollife.errors import PoolTimeout
from poollife.pools.pool import LeasePool
from poollife.pools.registry import registry
from servers import MariaDB, Proxy
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, Busy, connection_id, out, run, sessions
from tests.support.counting import pool_of
from tests.support.web_server import eventually


@pytest.fixture
def alias(make_alias: MakeAlias) -> Iterator[str]:
    alias = make_alias(POOL={"pool_size": 2, "max_overflow": 0, "timeout": 5})
    yield alias
    registry.suspend(alias, False)
    registry._sizes.pop(alias, None)


class Client:
    """A thread that asks something, and gives back."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.answer: int | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.answer = connection_id(self.alias)
        connections[self.alias].close()

    def done(self) -> int:
        self.thread.join(PATIENCE)
        assert self.answer
        return self.answer


def waits(alias: str, number: int = 1) -> None:
    eventually("it waits", lambda: pool_of(alias)._slots.waiting == number)


# --- suspend and resume -----------------------------------------------------------------------------------


def test_who_asks_waits_until_it_is_resumed(alias: str, mariadb: MariaDB) -> None:
    mine = connection_id(alias)
    poollife.suspend_pool(alias)
    client = Client(alias)
    waits(alias)
    assert connection_id(alias) == mine  # what is out goes on ...
    connections[alias].close()  # ... and comes back
    assert (out(alias), client.answer, sessions(mariadb, alias)) == (0, None, {mine})
    poollife.resume_pool(alias)
    assert client.done() == mine


def test_no_longer_than_the_timeout(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 2, "timeout": 0.05})
    connection_id(alias)
    connections[alias].close()
    poollife.suspend_pool(alias)
    with pytest.raises(PoolTimeout, match="which is suspended, became free"):
        connection_id(alias)
    poollife.resume_pool(alias)
    assert connection_id(alias)


def test_a_pool_that_is_made_later_is_suspended_too(alias: str, mariadb: MariaDB) -> None:
    poollife.suspend_pool(alias)
    client = Client(alias)
    eventually("its pool is there", lambda: bool(registry._of(alias)))
    waits(alias)
    assert not sessions(mariadb, alias)
    poollife.resume_pool(alias)
    assert client.done()


@pytest.mark.parametrize("control", ["suspend", "resize"])
def test_a_pool_that_is_made_at_that_moment(
    alias: str, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    """It was made with what was said by then, and is not to be found yet."""
    say = {
        "suspend": lambda: poollife.suspend_pool(alias),
        "resize": lambda: poollife.resize_pool(alias, pool_size=7),
    }
    operator = threading.Thread(target=say[control])
    make = registry._make

    def make_meanwhile(*args: Any) -> LeasePool:
        made = make(*args)
        operator.start()
        operator.join(0.2)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_make", make_meanwhile)
        pool = pool_of(alias)
    operator.join(PATIENCE)
    assert (pool.suspended, pool.options.limit) == ((True, 2) if control == "suspend" else (False, 7))


def test_twice_is_once(alias: str) -> None:
    for change in (poollife.suspend_pool, poollife.resume_pool):
        change(alias)
        change(alias)
    assert connection_id(alias)


def test_first_come_first_served_when_it_is_resumed(alias: str) -> None:
    poollife.suspend_pool(alias)
    clients = []
    for number in range(5):
        clients.append(Client(alias))
        eventually("its pool is there", lambda: bool(registry._of(alias)))
        waits(alias, number + 1)
    poollife.resume_pool(alias)
    assert len({client.done() for client in clients}) <= 2


def test_who_waited_in_a_pool_that_was_closed_keeps_his_place(make_alias: MakeAlias) -> None:
    """Whoever came after it was closed waits behind him, and he is not one too many."""
    alias = make_alias(POOL={"pool_size": 2, "max_overflow": 0, "timeout": PATIENCE, "max_waiting": 2})
    poollife.suspend_pool(alias)
    client = Client(alias)
    eventually("its pool is there", lambda: bool(registry._of(alias)))
    waits(alias)
    old = pool_of(alias)
    with old._lock:  # which he needs on his way
        registry._remove(alias)
        old.closed_because = "the test closes it"
        clients = [Client(alias) for _ in range(2)]
        eventually("its pool is there", lambda: bool(registry._of(alias)))
        waits(alias, 2)
        (first,) = old._slots._waiting  # type: ignore[attr-defined]
    waits(alias, 3)
    assert pool_of(alias)._slots._waiting[0].deadline == first.deadline  # type: ignore[attr-defined]
    poollife.resume_pool(alias)
    for each in (client, *clients):
        assert each.done()


def test_a_child_is_not_suspended(alias: str) -> None:
    """Nobody would know to resume it."""
    poollife.suspend_pool(alias)
    if (child := os.fork()) == 0:
        status = 1
        try:
            status = int(not connection_id(alias))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


# --- drain ------------------------------------------------------------------------------------------------


def test_what_is_out_is_waited_for(alias: str, mariadb: MariaDB) -> None:
    busy, drained = Busy(alias), []
    thread = threading.Thread(target=busy.work)
    thread.start()
    assert busy.begun.wait(PATIENCE)
    connection_id(alias)
    connections[alias].close()
    assert len(sessions(mariadb, alias)) == 2
    assert poollife.drain_pool(alias, timeout=0) is False
    assert len(sessions(mariadb, alias)) == 1
    waiter = threading.Thread(target=lambda: drained.append(poollife.drain_pool(alias, PATIENCE)))
    waiter.start()
    time.sleep(0.05)
    assert not drained
    busy.go_on.set()
    thread.join(PATIENCE)
    waiter.join(PATIENCE)
    assert drained == [True]
    eventually("the server has none", lambda: not sessions(mariadb, alias))


def test_who_is_about_to_have_one_is_waited_for(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """His session is being opened, or just then asked whether it is alive."""
    begun, go_on, drained = threading.Event(), threading.Event(), []

    def password() -> str:
        begun.set()
        assert go_on.wait(PATIENCE)
        return mariadb.password

    alias = make_alias(PASSWORD=password)
    client = Client(alias)
    assert begun.wait(PATIENCE)
    assert poollife.drain_pool(alias, timeout=0) is False
    waiter = threading.Thread(target=lambda: drained.append(poollife.drain_pool(alias, PATIENCE)))
    waiter.start()
    go_on.set()
    assert client.done()
    waiter.join(PATIENCE)
    assert drained == [True]
    eventually("the server has none", lambda: not sessions(mariadb, alias))


def test_what_dead_threads_had_is_not_waited_for(alias: str) -> None:
    wrapper = connections.create_connection(alias)
    wrapper.inc_thread_sharing()

    def borrow() -> None:
        kept.append(connections[alias])
        connection_id(alias)

    kept: list[object] = []
    run(threading.Thread(target=borrow))
    assert poollife.drain_pool(alias, timeout=0) is True
    assert kept


def test_all_pools(alias: str, make_alias: MakeAlias) -> None:
    other = make_alias()
    for each in (alias, other):
        connection_id(each)
    assert poollife.drain_pool(timeout=PATIENCE) is True
    assert out(alias) == out(other) == 0


def test_for_maintenance(alias: str, mariadb: MariaDB) -> None:
    """Suspended and drained, nobody has a session, and nobody's request fails."""
    before = connection_id(alias)
    poollife.suspend_pool(alias)
    assert poollife.drain_pool(alias, PATIENCE)
    clients = [Client(alias) for _ in range(3)]
    eventually("its pool is there", lambda: bool(registry._of(alias)))
    waits(alias, 3)
    eventually("the server has none", lambda: not sessions(mariadb, alias))
    poollife.resume_pool(alias)
    assert before not in {client.done() for client in clients}


def test_who_waited_in_a_pool_that_was_closed_does_not_wait_twice(make_alias: MakeAlias) -> None:
    """His timeout is that of his request."""
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 1.0})
    poollife.suspend_pool(alias)
    deadlines: list[float] = []

    def ask() -> None:
        with pytest.raises(PoolTimeout):
            connection_id(alias)

    client = threading.Thread(target=ask)
    client.start()
    for _ in range(2):
        eventually("its pool is there", lambda: bool(registry._of(alias)))
        waits(alias)
        deadlines.append(pool_of(alias)._slots._waiting[0].deadline)  # type: ignore[attr-defined]
        poollife.close_pool(alias)
    client.join(PATIENCE)
    poollife.resume_pool(alias)
    assert deadlines[0] == deadlines[1]


# --- resize -----------------------------------------------------------------------------------------------


def test_who_waits_gets_what_there_is_room_for_now(alias: str) -> None:
    held = [connections.create_connection(alias) for _ in range(2)]
    for wrapper in held:
        wrapper.ensure_connection()
    client = Client(alias)
    waits(alias)
    poollife.resize_pool(alias, pool_size=3)
    assert client.done()
    assert (pool_of(alias).opened, poollife.pool_stats()[alias]["limit"]) == (3, 3)
    for wrapper in held:
        wrapper.close()


def test_what_is_too_much_goes(alias: str, mariadb: MariaDB) -> None:
    """The idle ones now, the others when they come back; the limit holds from then on."""
    poollife.resize_pool(alias, pool_size=1, max_overflow=3)
    held = [connections.create_connection(alias) for _ in range(4)]
    for wrapper in held:
        wrapper.ensure_connection()
    held[3].close()
    poollife.resize_pool(alias, max_overflow=1)
    assert (pool_of(alias).idle, pool_of(alias).closed) == (0, 1)
    held[2].close()
    assert (pool_of(alias).idle, pool_of(alias).closed) == (0, 2)
    client = Client(alias)
    waits(alias)
    held[1].close()
    client.done()
    held[0].close()
    assert (pool_of(alias).out, pool_of(alias).idle, pool_of(alias).opened) == (0, 2, 4)
    eventually("the server has two", lambda: len(sessions(mariadb, alias)) == 2)


def test_what_is_no_part_of_the_core_any_more_is_retired(make_alias: MakeAlias) -> None:
    """Even if nobody borrows from then on."""
    alias = make_alias(POOL={"pool_size": 3, "max_overflow": 0, "retire_interval": 0.05})
    held = [connections.create_connection(alias) for _ in range(3)]
    for wrapper in held:
        wrapper.ensure_connection()
    for wrapper in held:
        wrapper.close()
    pool = pool_of(alias)
    assert (pool.idle, pool.closed) == (3, 0)
    poollife.resize_pool(alias, core_size=1)
    eventually("one is left", lambda: (pool.idle, pool.closed) == (1, 2))
    registry._sizes.pop(alias)


def test_it_outlives_the_pool(alias: str) -> None:
    poollife.resize_pool(alias, pool_size=7)
    connection_id(alias)
    poollife.close_pool(alias)
    assert pool_of(alias).options.limit == 7


@pytest.mark.parametrize("sizes", [{"pool_size": 0}, {"core_size": 3}, {"min_idle": 3}, {"max_overflow": -1}])
def test_a_bad_size_changes_nothing(alias: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"POOL\\['{next(iter(sizes))}'\\] is"):
        poollife.resize_pool(alias, **sizes)
    assert connection_id(alias)
    assert pool_of(alias).options.limit == 2


# --- where it can't be ------------------------------------------------------------------------------------

CONTROLS: list[Callable[[str], object]] = [
    poollife.suspend_pool,
    poollife.resume_pool,
    lambda alias: poollife.resize_pool(alias, pool_size=3),
]


@pytest.mark.parametrize("control", CONTROLS, ids=["suspend", "resume", "resize"])
def test_other_pools_are_told_that_they_can_not(
    make_alias: MakeAlias, control: Callable[[str], object]
) -> None:
    for alias in (
        make_alias(POOL=False),
        make_alias(POOL={"poolclass": "sqlalchemy.pool.QueuePool"}),
        make_alias("django.db.backends.mysql"),
    ):
        with pytest.raises(NotSupportedError, match="has no FairQueuePool, which this function needs"):
            control(alias)


@pytest.mark.parametrize(
    "control", [*CONTROLS, poollife.drain_pool], ids=["suspend", "resume", "resize", "drain"]
)
def test_an_unknown_alias(control: Callable[[str], object]) -> None:
    with pytest.raises(ConnectionDoesNotExist, match="nowhere"):
        control("nowhere")


# --- what a router may ask --------------------------------------------------------------------------------


def test_pool_is_available_until_an_attempt_fails_and_again_without_any_query(
    make_alias: MakeAlias, mariadb: MariaDB
) -> None:
    """Queries go elsewhere meanwhile: nothing but the background thread finds that the server is back."""
    with Proxy(mariadb.host, mariadb.port) as proxy:
        # A checkout that has waited for its whole timeout starts no probe: the outage is a short one.
        alias = make_alias(PORT=str(proxy.port), POOL={"timeout": 0.2, "outage_wait": 600})
        assert pool_available(alias)  # nothing is known yet
        connection_id(alias)
        connections[alias].close()
        with proxy.dropped():
            assert pool_available(alias)  # no attempt has failed yet
            with pytest.raises(OperationalError):
                connection_id(alias)
            assert not pool_available(alias)
        eventually("it is back", lambda: pool_available(alias))
        assert pool_of(alias).out == 0


def test_pool_of_the_same_server_is_not_available_either(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """The server of two aliases with equal OPTIONS has one state."""
    with Proxy(mariadb.host, mariadb.port) as proxy:
        aliases = [make_alias(PORT=str(proxy.port), POOL={"outage_wait": 0}) for _ in range(2)]
        for alias in aliases:
            connection_id(alias)
            connections[alias].close()
        with proxy.dropped():
            with pytest.raises(OperationalError):
                connection_id(aliases[0])
            assert [pool_available(alias) for alias in aliases] == [False, False]
        eventually("it is back", lambda: all(map(pool_available, aliases)))


def test_database_of_another_engine_is_available(make_alias: MakeAlias) -> None:
    assert pool_available(make_alias("django.db.backends.mysql"))
    with pytest.raises(ConnectionDoesNotExist):
        pool_available("nowhere")
