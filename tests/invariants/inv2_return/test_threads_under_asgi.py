"""Invariant 2 for each way of code under ASGI to a thread: nothing is out at the end, on a real server.

As people write it, with nothing but the middleware; and where they query with a cursor of the driver's own
connection, so that what they borrow stays theirs, with poollife's helpers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB
from tests.support.web_server import Answer, WebServer, eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

REQUESTS = 50
LIMIT = 60


class ThreadsServer(WebServer):
    """uvicorn with the other site."""

    def __init__(self, log: Path, **site: Any) -> None:
        super().__init__("uvicorn", log, **site)
        self._command = [
            part.replace("support.request_site.asgi", "support.threads_site.asgi") for part in self._command
        ]


@pytest.fixture
def serve(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., ThreadsServer]]:
    """A function that starts the server; its arguments are the pool's options."""
    started: list[ThreadsServer] = []

    def start(**POOL: Any) -> ThreadsServer:
        name = new_database()
        mariadb.execute(f"CREATE TABLE {name}.visits (id INT PRIMARY KEY)")
        entry = mariadb.database(name) | {"ENGINE": "poollife.backends.mysql", "POOL": POOL}
        server = ThreadsServer(tmp_path / f"server_{len(started)}.log", DATABASES={"default": entry})
        started.append(server)
        server.__enter__()
        return server

    yield start
    for server in started:
        server.__exit__()


def visit(server: ThreadsServer, path: str, count: int, clients: int) -> int:
    """How many requests were answered with something else than 200."""
    with ThreadPoolExecutor(clients) as executor:
        answers: list[Answer] = list(executor.map(lambda _: server.get(path), range(count)))
    assert server.get("/settle").status == 200, server.log
    return sum(answer.status != 200 for answer in answers)


#: And whether it leaves something out that was borrowed by hand, where the middleware alone sees to it. None:
#: that depends on the cycle collector, as the thread of a task that outlives its request ends with the task.
WAYS = {
    "sync_view": False,
    "sync_to_async": False,
    "async_orm": False,
    "thread_insensitive": True,
    "to_thread": True,
    "run_in_executor": True,
    "create_task": None,
    "thread": False,
    "executor": False,
}


@pytest.mark.parametrize("way", WAYS)
def test_after_50_requests_nothing_is_out(serve: Callable[..., ThreadsServer], way: str) -> None:
    """One by one, and by eight clients at once."""
    server = serve(pool_size=LIMIT, max_overflow=0)
    for clients in 1, 8:
        for written in "stock", "wrapped":
            failed = visit(server, f"/{written}/{way}", REQUESTS, clients)
            pool = server.pool()
            assert (failed, pool["out"], pool["opened"] - pool["closed"]) == (0, 0, pool["idle"]), written
    assert pool["checkouts"] >= 4 * REQUESTS

    def left_out_by_hand() -> bool:
        assert visit(server, f"/by_hand/{way}", REQUESTS, 8) == 0
        return bool(server.pool()["out"])

    # As a control: without the helpers something is out.
    if WAYS[way]:
        eventually("something is out", left_out_by_hand)
    elif WAYS[way] is False:
        assert not left_out_by_hand()


@pytest.mark.parametrize("written", ["stock", "wrapped"])
def test_eight_threads_at_once_on_a_pool_of_three(serve: Callable[..., ThreadsServer], written: str) -> None:
    server = serve(pool_size=3, max_overflow=0)
    assert visit(server, f"/{written}/eight_at_once", 8, 8) == 0
    assert server.pool()["out"] == 0
    assert visit(server, "/plain", 100, 4) == 0
    assert (server.pool()["out"], server.pool()["checkouts"]) == (0, 8 * 8 + 100)
    assert server.stats()["most_sockets"] <= 3


def test_what_the_loops_threads_keep_is_there_for_later_requests(serve: Callable[..., ThreadsServer]) -> None:
    """Borrowed by hand it stays with them, and they live on."""
    server = serve(pool_size=3, max_overflow=0, timeout=2)

    def all_are_out() -> bool:
        visit(server, "/by_hand/eight_at_once", 1, 1)
        return bool(server.pool()["out"] == 3)

    # The first time, unless a thread is done before the next one is needed.
    eventually("threads hold all of it", all_are_out)
    assert visit(server, "/plain", 5, 1) == 0
    assert server.pool()["out"] == 0


def test_clients_that_leave_a_stream_of_a_decorated_generator_cost_no_slot(
    serve: Callable[..., ThreadsServer],
) -> None:
    server = serve(pool_size=1, max_overflow=0)
    for _ in range(5):
        with server.open("/stream") as events:
            assert events.read(6) == b"data: "
            assert server.pool()["out"] == 1
        eventually("nothing is out", lambda: server.pool()["out"] == 0)
    assert visit(server, "/plain", 5, 1) == 0
    assert server.pool()["opened"] == 1
