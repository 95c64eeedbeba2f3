"""Law 2 for threads: what they borrowed goes back when they end."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction

from poollife import PooledThread, pool_stats
from servers import MariaDB
from tests.support.borrowing import (
    PATIENCE,
    Busy,
    Failure,
    TornDown,
    connection_id,
    insert,
    leave_a_transaction,
    leave_autocommit_off,
    leave_unread_rows,
    make_log,
    out,
    rows,
    run,
    sessions,
)
from tests.support.forms import FORMS, Body, by_name, every_kind


class WithRun(PooledThread):
    """What most of those do that are written by hand."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    def run(self) -> None:
        self._body()


class Timer(PooledThread, threading.Timer):
    """It goes with others of the kind."""


def with_run_of_its_own(body: Body) -> threading.Thread:
    thread = PooledThread()
    thread.run = body  # type: ignore[method-assign]
    return thread


THREADS: dict[str, Callable[[Body], threading.Thread]] = {
    "target": lambda body: PooledThread(target=body),
    "arguments": lambda body: PooledThread(target=lambda run, *, key: run(), args=(body,), kwargs={"key": 1}),
    "daemon": lambda body: PooledThread(target=body, daemon=True, name="a daemon"),
    "run() overridden": WithRun,
    "run on the instance": with_run_of_its_own,
    "a timer": lambda body: Timer(0, body),
}


@pytest.mark.parametrize("make", THREADS)
def test_a_thread_gives_back_when_it_ends(make_pool: Callable[[], str], mariadb: MariaDB, make: str) -> None:
    aliases = [make_pool(), make_pool()]
    seen = []

    def body() -> None:
        seen.append([(connection_id(alias), out(alias)) for alias in aliases])

    for _ in range(3):
        run(THREADS[make](body))
        assert [out(alias) for alias in aliases] == [0, 0]
    assert seen == [[(*sessions(mariadb, alias), 1) for alias in aliases]] * 3
    # As a control: the pool would not know otherwise.
    run(threading.Thread(target=body))
    assert [out(alias) for alias in aliases] == [1, 1]


@pytest.mark.parametrize("kind", [Failure, TornDown, SystemExit])
def test_or_when_it_fails(alias: str, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]) -> None:
    """The error goes where a thread's errors go."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: errors.append(arguments.exc_value))

    def body() -> None:
        connection_id(alias)
        raise error

    error = kind()
    run(PooledThread(target=body))
    assert (errors, out(alias)) == ([error], 0)


def leave_two(alias: str) -> None:
    leave_a_transaction(alias)
    leave_a_transaction(alias)


def leave_a_failed_transaction(alias: str) -> None:
    leave_a_transaction(alias)
    connections[alias].set_rollback(True)


def leave_a_closed_one(alias: str) -> None:
    leave_a_transaction(alias)
    connections[alias].close()


LEFT: dict[Callable[[str], None], int] = {
    leave_a_transaction: 0,
    leave_two: 0,
    leave_autocommit_off: 0,
    leave_a_failed_transaction: 0,
    leave_a_closed_one: 1,
    leave_unread_rows: 1,
}


@pytest.mark.parametrize("leave", LEFT, ids=by_name)
def test_what_a_thread_leaves_open_ends_with_it(
    alias: str, mariadb: MariaDB, leave: Callable[[str], None]
) -> None:
    make_log(mariadb, alias)
    run(PooledThread(target=leave, args=(alias,)))
    assert (out(alias), rows(mariadb, alias), pool_stats()[alias]["closed"]) == (0, 0, LEFT[leave])
    insert(alias)
    assert rows(mariadb, alias) == 1


def test_what_the_starting_thread_has_stays_its_own(alias: str) -> None:
    seen = []
    before, raw = connection_id(alias), connections[alias].connection
    run(PooledThread(target=lambda: seen.append((connection_id(alias), out(alias)))))
    ((session, taken),) = seen
    assert session != before
    assert (taken, out(alias)) == (2, 1)
    assert connections[alias].connection is raw
    assert connection_id(alias) == before


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


@every_kind
def test_what_a_thread_has_is_not_its_starters(alias: str, form: Callable[[Body], Any]) -> None:
    """It goes on after the work that has started it."""
    busy, seen = Busy(alias), []

    def target() -> None:
        before = connection_id(alias)
        busy.work()
        seen.append(connection_id(alias) == before)

    def body() -> threading.Thread:
        connection_id(alias)
        thread = PooledThread(target=target)
        thread.start()
        assert busy.begun.wait(PATIENCE)
        return thread

    thread = form(body)
    assert out(alias) == 1
    busy.go_on.set()
    thread.join(PATIENCE)
    assert (seen, out(alias)) == ([True], 0)


def test_threads_in_threads(make_pool: Callable[[int], str]) -> None:
    alias = make_pool(5)
    seen = []

    def nest(depth: int) -> None:
        before = connection_id(alias)
        if depth:
            run(PooledThread(target=nest, args=(depth - 1,)))
        seen.append((out(alias), connection_id(alias) == before))

    run(PooledThread(target=nest, args=(4,)))
    assert seen == [(count, True) for count in (5, 4, 3, 2, 1)]
    assert (out(alias), pool_stats()[alias]["checkouts"]) == (0, 5)


def test_all_forms_in_a_thread(alias: str) -> None:
    seen = []

    def target() -> None:
        for form in FORMS:
            form(lambda: connection_id(alias))
            seen.append(out(alias))

    run(PooledThread(target=target))
    assert seen == [0] * len(FORMS)


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
