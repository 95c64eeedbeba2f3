"""Leaks: what is held for longer than ``leak_after`` is told, once, and told again when it is back."""

from __future__ import annotations

import inspect
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse

from poollife.pools import leaks
from poollife.pools.registry import registry
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, Busy, connection_id, out, run
from tests.support.counting import pool_of
from tests.support.handlers import site, wsgi
from tests.support.programs.running import run as run_program
from tests.support.web_server import eventually

AFTER = 0.1


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Warnings:
    caplog.set_level(logging.WARNING, "poollife")
    return Warnings(caplog)


class Warnings:
    """What the log says of leaks."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def all(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.name == "poollife"]

    def wait_for(self, number: int) -> list[str]:
        eventually(f"{number} warnings", lambda: len(self.all) >= number)
        return self.all


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={"leak_after": AFTER})


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    eventually("they have gone home", lambda: not housekeepers())


def housekeepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "poollife-leaks"]


def hold(seconds: float, alias: str) -> None:
    connection_id(alias)
    time.sleep(seconds)
    connections[alias].close()


def test_one_warning_without_any_traffic_and_one_when_it_is_back(alias: str, warnings: Warnings) -> None:
    busy = Busy(alias)
    thread = threading.Thread(target=busy.work, name="worker")
    thread.start()
    warnings.wait_for(1)
    assert len(pool_of(alias).leases) == 1
    busy.go_on.set()
    thread.join()
    pool_of(alias).reclaim()  # the thread has just ended with it
    warned, back = warnings.all
    head, *stack = warned.splitlines()
    assert re.match(rf"Pool '{alias}': thread worker has had session \d+ for \d+\.\d s", head)
    assert "longer than leak_after (0.1 s), and is now at " in head
    assert head.endswith(" in work. Borrowed by:")
    _, first = inspect.getsourcelines(Busy.work)
    assert stack[0].endswith(f'tests/support/borrowing.py", line {first + 2}, in work')
    assert stack[1] == "    connection_id(self._alias)"
    assert stack[2].endswith(", in connection_id")
    assert stack[4].endswith(", in hold")
    assert len(stack) == 6
    assert re.match(rf"Pool '{alias}': the connection of thread worker is back after \d+\.\d s", back)


def test_it_is_told_once_however_long_it_takes(alias: str, warnings: Warnings) -> None:
    """Nor is a thread left to look at it; but the next one is looked at."""
    connection_id(alias)
    warnings.wait_for(1)
    eventually("nobody looks any more", lambda: not housekeepers())
    busy = Busy(alias)
    another = threading.Thread(target=busy.work, name="another")
    another.start()
    warnings.wait_for(2)
    busy.go_on.set()
    another.join()
    pool_of(alias).reclaim()
    connections[alias].close()
    told = [line.partition("thread ")[2].partition(" ") for line in warnings.all]
    assert [(name, rest[:8]) for name, _, rest in told] == [
        ("MainThread", "has had "),
        ("another", "has had "),
        ("another", "is back "),
        ("MainThread", "is back "),
    ]


def test_a_request_is_named(alias: str, warnings: Warnings) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        connection_id(alias)
        warnings.wait_for(1)
        return HttpResponse()

    with site(view=view):
        wsgi("/view").close()
    warned, back = warnings.all
    assert warned.startswith(f"Pool {alias!r}: GET /view in thread MainThread has had")
    assert back.startswith(f"Pool {alias!r}: the connection of GET /view in thread MainThread is back")


def test_who_gives_back_in_time_is_left_in_peace(make_alias: MakeAlias, warnings: Warnings) -> None:
    """One thread looks after any number of checkouts, and goes when nothing is out."""
    alias = make_alias(POOL={"leak_after": 1})
    started = set()
    for _ in range(50):
        connection_id(alias)
        started.update(housekeepers())
        connections[alias].close()
    assert len(started) == 1
    eventually("it is gone", lambda: not housekeepers())
    assert warnings.all == []


def test_nothing_is_done_when_it_is_off(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"leak_after": None})
    connection_id(alias)
    (lease,) = pool_of(alias).leases
    assert (lease.stack, pool_of(alias)._watch, housekeepers()) == ((), None, [])


@pytest.mark.parametrize("first", ["close", "give back"])
def test_nobody_looks_after_a_closed_pool_where_nothing_is_out(make_alias: MakeAlias, first: str) -> None:
    """Or each that is closed would leave a thread, for as long as leak_after is."""
    alias = make_alias(POOL={"leak_after": 1000})
    connection_id(alias)
    if first == "give back":
        connections[alias].close()
    assert len(housekeepers()) == 1
    registry.drain(alias, "the test closes it")
    connections[alias].close()
    eventually("nobody looks any more", lambda: not housekeepers())


def test_a_closed_pool_is_looked_after_while_something_is_out(alias: str, warnings: Warnings) -> None:
    connection_id(alias)
    registry.drain(alias, "the test closes it")
    warnings.wait_for(1)
    connections[alias].close()


def test_tracing_alone_warns_of_nothing(make_alias: MakeAlias, warnings: Warnings) -> None:
    alias = make_alias(POOL={"trace": True})
    connection_id(alias)
    (lease,) = pool_of(alias).leases
    assert lease.stack
    assert housekeepers() == []


def test_where_no_thread_can_be_started_the_return_tells(
    alias: str, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the interpreter, or where uWSGI has no threads. (A stub.)"""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    hold(2 * AFTER, alias)
    warned, back = warnings.all
    assert "longer than leak_after (0.1 s). Borrowed by:\n" in warned
    assert "is back after 0." in back


def test_a_thread_that_is_gone_is_replaced(
    alias: str, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Struck by something from outside, say. The next one comes when its promise has run out."""
    monkeypatch.setattr(leaks, "GRACE", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(leaks.Watch, "_look_after", lambda self: None)
        connection_id(alias)
        connections[alias].close()
    time.sleep(AFTER)
    connection_id(alias)
    warnings.wait_for(1)
    connections[alias].close()


def test_what_a_dead_thread_had_is_told_and_taken_back(alias: str, warnings: Warnings) -> None:
    """It ends without giving back, and nobody asks for a connection."""
    run(threading.Thread(target=connection_id, args=(alias,), name="gone"))
    assert out(alias) == 1
    warned, back = warnings.wait_for(2)
    assert "thread gone has had" in warned
    assert "is now at" not in warned
    assert "the connection of thread gone is back after 0." in back
    assert out(alias) == 0


def test_handlers_of_the_log_may_query(
    alias: str, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that looks, too, which keeps nothing while it sleeps."""
    monkeypatch.setattr(leaks, "SHORTEST_NAP", 3.0)
    busy, handler = Busy(alias), logging.Handler()
    thread = threading.Thread(target=busy.work)

    def emit(record: logging.LogRecord) -> None:
        connection_id(alias)
        if not busy.begun.is_set():  # something to look after, so that it stays
            thread.start()
            assert busy.begun.wait(PATIENCE)

    handler.emit = emit  # type: ignore[method-assign]
    logging.getLogger("poollife").addHandler(handler)
    try:
        connection_id(alias)
        (watch,) = {pool_of(alias)._watch}
        assert watch
        promised = watch._promised
        eventually("it has looked", lambda: watch._promised > promised)
        assert [lease.holder for lease in sorted(pool_of(alias).leases, key=lambda lease: lease.since)] == [
            "thread MainThread",
            f"thread {thread.name}",
        ]
    finally:
        logging.getLogger("poollife").removeHandler(handler)
        busy.go_on.set()
        thread.join()
    connections[alias].close()


def test_a_child_looks_after_its_own(mariadb: MariaDB, name: str) -> None:
    """Forked while the parent's thread looks after the parent's."""
    database = {
        **mariadb.database(name),
        "ENGINE": "poollife.backends.mysql",
        "POOL": {"leak_after": AFTER},
    }
    report = run_program("leaks", database)
    assert report == {"parent": ["has had", "is back"], "child": ["has had", "is back"], "threads": []}


@pytest.fixture
def name(new_database: Callable[[], str]) -> str:
    return new_database()
