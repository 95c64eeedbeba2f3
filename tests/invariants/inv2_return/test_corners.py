"""Invariant 2 in corners: forks that are struck, closed coroutines, handlers that query, what is kept."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from poollife import PooledThreadPoolExecutor, auto_close_db
from poollife.backends.mixin import PooledMixin
from poollife.middleware import PoolMiddleware
from poollife.pools.lease import Lease
from poollife.threads import _BlockWork
from poollife.work import Work
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, ask_id, connection_id, out, run
from tests.support.counting import pool_of
from tests.support.programs.running import run as run_program
from tests.support.web_server import eventually


def alive(kind: type) -> int:
    """How many the collector has left."""
    gc.collect()
    return count(kind)


def count(kind: type) -> int:
    # Not isinstance(): Django's lazy objects would be set up for that.
    return sum(issubclass(type(each), kind) for each in gc.get_objects())


# --- in a process of its own ----------------------------------------------------------------------------


@pytest.mark.slow
def test_struck_fork_keeps_nobody_from_connecting(entry: dict[str, Any]) -> None:
    """It may be struck before it can say that it is over."""
    assert run_program("corners", "struck_fork", entry) == {"ignored": ["Strike"], "another session": True}


def test_stats_of_a_child_that_no_hook_announced(entry: dict[str, Any]) -> None:
    """It has no pools yet; those of before are its parent's."""
    assert run_program("corners", "stats_of_bare_child", entry) == {
        "child": {"inherited": [], "stats": {}, "status": 0},
        "parent": 1,
    }


def test_signal_while_a_pool_is_made(entry: dict[str, Any]) -> None:
    """Its handler may query: there is one pool all the same, and the thread has one session."""
    assert run_program("corners", "query_in_handler", entry, limit=20) == {
        "handled": 1,
        "pools": 1,
        "out": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("leave", [False, True])
def test_child_goes_on_in_its_parents_checkout(entry: dict[str, Any], leave: bool) -> None:
    """Lost threads have the locks of its pool."""
    assert run_program("corners", "fork_in_connect", entry, leave) == {
        "left": leave,
        "own session": True,
        "status": 0,
        "same session": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize("where", ["checkout", "checkin", "look"])
def test_child_goes_on_where_its_parents_pool_called_somebodys_code(
    entry: dict[str, Any], where: str
) -> None:
    """What it was about to get is its parent's, so it gets that refused, and its next one is its own."""
    assert run_program("corners", "fork_in_pool", entry, where) == {
        "parent's inside": False,
        "own session afterwards": True,
        "status": 0,
        "same session": True,
        "opened": 1,
    }


# --- coroutines that are closed -------------------------------------------------------------------------


class Suspended:
    """Awaited, it goes back to whoever drives the coroutine."""

    def __await__(self) -> Generator[None]:
        yield


@auto_close_db
async def decorated() -> None:
    await Suspended()


async def view(request: HttpRequest) -> HttpResponse:
    await Suspended()
    return HttpResponse()


def behind_middleware() -> Coroutine[Any, Any, Any]:
    response: Any = PoolMiddleware(view)(RequestFactory().get("/"))
    return cast(Coroutine[Any, Any, Any], response)


@pytest.mark.parametrize("make", [decorated, behind_middleware])
def test_a_coroutine_can_be_closed(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """As those are that are under way when their loop is: nothing can be awaited any more."""
    coroutine = make()
    coroutine.send(None)
    coroutine.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


# --- what is kept ---------------------------------------------------------------------------------------


def test_a_generator_keeps_no_closed_blocks(alias: str) -> None:
    """One for each of its steps, over a million rows."""
    blocks: list[weakref.ref[Any]] = []

    @auto_close_db
    def steps() -> Iterator[int]:
        connection_id(alias)
        for number in range(10):
            block = transaction.atomic(using=alias)
            blocks.append(weakref.ref(block))
            with block:
                yield number
            del block

    kept = [sum(block() is not None for block in blocks) for _ in steps()]
    assert max(kept) <= 2
    assert out(alias) == 0


def test_works_are_no_chain() -> None:
    """Each task starts the next inside of its block, whose context that one gets."""
    tasks: list[asyncio.Task[None]] = []

    async def tick(left: int) -> None:
        async with auto_close_db():
            if left:
                tasks.append(asyncio.create_task(tick(left - 1)))
            else:
                await done.wait()

    async def works() -> int:
        tasks.append(asyncio.create_task(tick(20)))
        while len(tasks) < 21:
            await asyncio.sleep(0)
        del tasks[:-1]
        await asyncio.sleep(0)
        count = alive(_BlockWork)
        done.set()
        await tasks.pop()
        return count

    done = asyncio.Event()
    before = alive(_BlockWork)
    # The last, and that in whose context it was made.
    assert asyncio.run(works()) - before <= 2


def test_what_outlives_its_request_does_not_keep_it() -> None:
    """A task has the context of the request that started it."""
    requests: list[weakref.ref[HttpRequest]] = []
    tasks: list[asyncio.Task[None]] = []

    async def outlive() -> None:
        await done.wait()

    async def start(request: HttpRequest) -> HttpResponse:
        requests.append(weakref.ref(request))
        tasks.append(asyncio.create_task(outlive()))
        return HttpResponse()

    async def serve() -> None:
        await cast(Awaitable[Any], PoolMiddleware(start)(RequestFactory().get("/")))
        gc.collect()
        assert [request() for request in requests] == [None]
        assert not tasks[0].done()
        done.set()
        await tasks.pop()

    done = asyncio.Event()
    asyncio.run(serve())


def test_leases_need_no_collector(alias: str) -> None:
    """Each checkout makes one."""
    before = alive(Lease)
    gc.disable()
    try:
        for _ in range(10):
            connection_id(alias)
            connections[alias].close()
        assert count(Lease) <= before
    finally:
        gc.enable()


def test_handed_over_to_its_own_work(alias: str) -> None:
    """It is in the list once, and so out of it when it has ended."""
    work = Work("work")
    work.run(connection_id, alias)
    (lease,) = work.leases
    lease.hand_over(work)
    assert work.leases == [lease]
    work.run(work.release)
    assert (work.leases, out(alias)) == ([], 0)


def test_a_thread_ends_while_another_takes_back_what_it_had(
    make_alias: MakeAlias, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other has not got yet is reported all the same."""
    name = new_database()
    aliases = [make_alias(NAME=name) for _ in range(3)]
    pools = [pool_of(alias) for alias in aliases]
    reported: list[Lease] = []
    report_lost = Lease.report_lost

    begun, taken_back = threading.Event(), threading.Event()

    def take_back() -> None:
        assert begun.wait(PATIENCE)
        for pool in pools:
            pool.reclaim()
        taken_back.set()

    def interrupted(lease: Lease) -> None:
        # No thread is started in here: there is not much left of the one that ends.
        reported.append(lease)
        report_lost(lease)
        begun.set()
        taken_back.wait(PATIENCE)

    def borrow() -> None:
        for alias in aliases:
            connections[alias].ensure_connection()

    monkeypatch.setattr(Lease, "report_lost", interrupted)
    other = threading.Thread(target=take_back)
    other.start()
    run(threading.Thread(target=borrow))
    other.join(PATIENCE)
    eventually("all are reported", lambda: len(reported) >= len(aliases))
    assert [pool.out for pool in pools] == [0, 0, 0]


# --- who queries where nobody would expect it -----------------------------------------------------------


class Recording(logging.Handler):
    """Queries on the connection of who tells it something, the first time."""

    def __init__(self, alias: str) -> None:
        super().__init__()
        self._alias = alias
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "poollife" and not self.messages:
            self.messages.append(record.getMessage())
            ask_id(self._alias)


@pytest.fixture
def recording(alias: str, caplog: pytest.LogCaptureFixture) -> Iterator[Recording]:
    logger, handler = logging.getLogger("poollife"), Recording(alias)
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, "poollife"):
        yield handler
    logger.removeHandler(handler)


def test_log_handler_queries_in_a_checkout(alias: str, recording: Recording) -> None:
    connection_id(alias)
    wrapper = cast(PooledMixin, connections[alias])
    assert wrapper.lease
    wrapper.lease.driver.born -= 1e9
    wrapper.close()
    connection_id(alias)
    assert [message.split(":")[0] for message in recording.messages] == [f"Pool {alias!r} replaces a session"]
    assert out(alias) == 1
    wrapper.close()
    assert out(alias) == 0


def test_log_handler_queries_in_a_return(mariadb: MariaDB, alias: str, recording: Recording) -> None:
    mariadb.execute(f"KILL {connection_id(alias)}")
    with pytest.raises(OperationalError):
        connection_id(alias)
    wrapper = cast(PooledMixin, connections[alias])
    wrapper.close()
    assert [message.split(":")[0] for message in recording.messages] == [f"Pool {alias!r} closes a session"]
    # What the handler borrowed is out, but not lost.
    wrapper.release()
    assert out(alias) == 0


def test_a_job_may_run_a_coroutine_of_its_own() -> None:
    """Submitted by sync code in asgiref's one thread, which does not wait for it."""

    def sync() -> str:
        return "ran"

    def job() -> str:
        return asyncio.run(sync_to_async(sync)())

    async def submit() -> Any:
        return await sync_to_async(lambda: executor.submit(job))()

    with PooledThreadPoolExecutor(1) as executor:
        assert asyncio.run(submit()).result(PATIENCE) == "ran"
