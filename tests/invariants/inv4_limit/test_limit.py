"""Invariant 4 in corners: no session is lent twice, and none is open beyond the limit."""

from __future__ import annotations

import gc
import random
import threading
from typing import Any, cast
from weakref import WeakSet

import pytest
from django.db import OperationalError, connections
from sqlalchemy import exc

from poollife.backends.mixin import PooledMixin
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from poollife.errors import PoolTimeout
from poollife.pools.tickets import Ticket, current
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, connection_id, out, run, sessions
from tests.support.counting import pool_of


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={"pool_size": 2, "max_overflow": 0, "timeout": 5, "recycle": 60})


@pytest.mark.parametrize("old_sessions", [0, 1])
def test_a_timeout_of_another_pool_is_none_of_ours(
    alias: str, monkeypatch: pytest.MonkeyPatch, old_sessions: int
) -> None:
    """A password may be kept in a database, behind a pool of SQLAlchemy's that has run dry."""
    for _ in range(old_sessions):
        leave_old_session(alias)
    pool, asked, others = pool_of(alias), 0, []

    def get_connection_params() -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")
        return type(connections[alias]).get_connection_params(connections[alias])

    def other() -> None:
        others.append(connection_id(alias))
        go_on.wait(PATIENCE)
        connections[alias].close()

    monkeypatch.setattr(connections[alias], "get_connection_params", get_connection_params)
    with pytest.raises(OperationalError, match="QueuePool limit of size 5") as caught:
        connection_id(alias)
    assert not isinstance(caught.value, PoolTimeout)
    assert asked == 1
    assert (out(alias), pool.opened) == (0, old_sessions)
    # No place in the queue is left behind either: both slots are lent, each once.
    go_on, thread = threading.Event(), threading.Thread(target=other)
    thread.start()
    mine = connection_id(alias)
    go_on.set()
    thread.join(PATIENCE)
    assert others != [mine]
    assert len(others) == 1


def test_a_slot_that_is_being_closed_is_not_lent(
    mariadb: MariaDB, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkouts were struck. One's session takes its time to close; the other's frames are freed then."""
    pool = pool_of(alias)
    checkouts = [struck_checkout(alias), struck_checkout(alias)]
    both = sessions(mariadb, alias)
    closing, go_on = threading.Event(), threading.Event()
    close = GuardedConnection.close

    def slow(self: GuardedConnection) -> None:
        closing.set()
        assert go_on.wait(PATIENCE)
        close(self)

    monkeypatch.setattr(GuardedConnection, "close", slow)
    thread = threading.Thread(target=pool.reclaim)
    thread.start()
    assert closing.wait(PATIENCE)
    checkouts.clear()
    gc.collect()
    idle, still = pool.idle, sessions(mariadb, alias)
    go_on.set()
    thread.join(PATIENCE)
    assert (idle, still) == (0, both)
    assert (pool.out, pool.idle, pool.closed) == (0, 0, 2)
    run(threading.Thread(target=connection_id, args=(alias,)))
    assert connection_id(alias) not in both
    assert (pool.out, pool.opened) == (1, 3)


def test_slot_of_an_interrupted_opening_is_freed_after_its_session(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames of the traceback would keep the session open beside the one that another thread opens."""
    wrapper, pool = cast(PooledMixin, connections[alias]), pool_of(alias)
    live: WeakSet[Any] = WeakSet()
    at_each_free: list[int] = []
    open_connection, free = wrapper.open_connection, pool._slots.free

    def opened(params: dict[str, Any]) -> Any:
        connection = open_connection(params)
        live.add(connection)
        return connection

    def freed(*args: Any) -> None:
        at_each_free.append(len(live))
        free(*args)

    def interrupted(*_: float) -> float:
        assert len(live) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(wrapper, "open_connection", opened)
    monkeypatch.setattr(pool._slots, "free", freed)
    monkeypatch.setattr(random.SystemRandom, "uniform", interrupted)  # drawn after connect() has returned
    with pytest.raises(KeyboardInterrupt):
        wrapper.connect()
    assert at_each_free == [0]
    assert (pool.out, pool.exhausted) == (0, False)


def leave_old_session(alias: str) -> None:
    """The pool keeps it, and replaces it when it is lent again."""
    connection_id(alias)
    wrapper = cast(PooledMixin, connections[alias])
    assert wrapper.lease
    wrapper.lease.driver.born -= 61
    wrapper.close()


def struck_checkout(alias: str) -> Any:
    """What the frames of a checkout have that got its session, but did not get to its lease."""
    ticket = current.ticket = Ticket(connections[alias])
    try:
        return pool_of(alias)._sessions.connect()
    finally:
        current.ticket = None
        ticket.active = False
