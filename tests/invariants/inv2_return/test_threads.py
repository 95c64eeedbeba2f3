"""Invariant 2 for ``PooledThread``: what is particular to threads."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from typing import Any

import pytest
from django.db import connections, transaction

from poollife import PooledThread, pool_stats
from servers import MariaDB
from tests.support.borrowing import (
    PATIENCE,
    Busy,
    connection_id,
    insert,
    leave_a_transaction,
    make_log,
    out,
    rows,
    run,
)


def test_connection_of_a_stock_thread_stays_out_until_the_pool_looks(alias: str) -> None:
    """As a control for the tests of every kind of work: nothing else returns it at the thread's end."""
    run(threading.Thread(target=connection_id, args=(alias,)))
    assert out(alias) == 1


def leave_a_closed_transaction(alias: str) -> None:
    leave_a_transaction(alias)
    connections[alias].close()


def test_closed_transaction_that_a_thread_leaves_ends_with_it(alias: str, mariadb: MariaDB) -> None:
    make_log(mariadb, alias)
    run(PooledThread(target=leave_a_closed_transaction, args=(alias,)))
    assert (out(alias), rows(mariadb, alias), pool_stats()[alias]["closed"]) == (0, 0, 1)
    insert(alias)
    assert rows(mariadb, alias) == 1


def test_a_shared_wrapper_stays_in_its_owners_transaction(alias: str, mariadb: MariaDB) -> None:
    """As in LiveServerTestCase: the thread has connected it, and the transaction is another's."""
    make_log(mariadb, alias)
    shared, begun, go_on = connections[alias], threading.Event(), threading.Event()

    def target() -> None:
        shared.ensure_connection()
        begun.set()
        assert go_on.wait(PATIENCE)

    shared.inc_thread_sharing()
    try:
        thread = PooledThread(target=target)
        thread.start()
        assert begun.wait(PATIENCE)
        with transaction.atomic(using=alias):
            insert(alias)
            go_on.set()
            thread.join(PATIENCE)
            assert shared.in_atomic_block
            insert(alias)
            transaction.set_rollback(True, using=alias)
        assert rows(mariadb, alias) == 0
    finally:
        go_on.set()
        shared.dec_thread_sharing()
        shared.close()
    assert out(alias) == 0


def test_never_started(alias: str) -> None:
    """``run()`` called by hand is just a call: the connection is the caller's."""
    seen = []
    thread = PooledThread(target=lambda: seen.append(connection_id(alias)))
    assert out(alias) == 0
    with pytest.raises(RuntimeError, match="cannot join thread before it is started"):
        thread.join()
    thread.run()
    assert (seen, out(alias)) == ([connection_id(alias)], 1)


def test_started_twice(alias: str) -> None:
    seen = []
    thread = PooledThread(target=lambda: seen.append(connection_id(alias)))
    run(thread)
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    assert (len(seen), out(alias)) == (1, 0)


def test_started_twice_while_it_works(alias: str) -> None:
    busy = Busy(alias)
    thread = PooledThread(target=busy.work)
    thread.start()
    assert busy.begun.wait(PATIENCE)
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    busy.go_on.set()
    thread.join(PATIENCE)
    assert out(alias) == 0


def test_started_twice_before_it_works(alias: str) -> None:
    go_on, seen = threading.Event(), []

    class Late(PooledThread):
        """``start()`` returns before ``run`` is looked up."""

        def __getattribute__(self, name: str) -> Any:
            if name == "run" and threading.current_thread() is self:
                assert go_on.wait(PATIENCE)
            return super().__getattribute__(name)

    thread = Late(target=lambda: seen.append(connection_id(alias)))
    thread.start()
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    go_on.set()
    thread.join(PATIENCE)
    assert (len(seen), out(alias)) == (1, 0)


@pytest.mark.parametrize("make", [threading.Thread, PooledThread])
def test_a_thread_is_freed_as_soon_as_nobody_has_it(make: type[threading.Thread]) -> None:
    """Started once or twice, it leaves no cycle of references for the collector."""
    thread = make(target=int)
    run(thread)
    with pytest.raises(RuntimeError) as caught:
        thread.start()
    caught.value.__traceback__ = None
    freed = weakref.ref(thread)
    gc.disable()
    try:
        del thread, caught
        assert freed() is None
    finally:
        gc.enable()


def test_it_is_a_thread() -> None:
    thread = PooledThread(name="its name", daemon=True)
    assert isinstance(thread, threading.Thread)
    assert (thread.name, thread.daemon) == ("its name", True)
    assert inspect.signature(PooledThread) == inspect.signature(threading.Thread)
