"""Invariant 2 under each ASGI server, for Django and for other applications beside it.

Nothing wraps what borrows there. ``PoolMiddleware`` is in Django, ``PoolASGIMiddleware`` around everything.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.sync.client import connect

from servers import MariaDB
from tests.support.threads_site.serving import CHANNELS, DJANGO, FASTAPI, SERVERS, STARLETTE, SiteServer
from tests.support.web_server import PATIENCE, eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

CLIENTS = 8
REQUESTS = 16
LIMIT = 60
MESSAGES = 3
PAGES = [
    *(f"/stock/{way}" for way in DJANGO),
    *(f"/starlette/{way}" for way in STARLETTE),
    *(f"/fastapi/{way}" for way in FASTAPI),
]
SOCKETS = [f"/channels/{way}" for way in CHANNELS]


@pytest.mark.parametrize("name", SERVERS)
def test_after_all_requests_nothing_is_out(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path, name: str
) -> None:
    database = new_database()
    mariadb.execute(f"CREATE TABLE {database}.visits (id INT PRIMARY KEY)")
    pool = {"pool_size": LIMIT, "max_overflow": 0}
    entry = {**mariadb.database(database), "ENGINE": "poollife.backends.mysql", "POOL": pool}
    left: dict[str, int] = {}
    with SiteServer(name, tmp_path / "log", pooled=True, DATABASES={"default": entry}) as server:
        # It was told of by lifespan, and warmed up.
        assert len(server.stats()["pools"]) == (name != "daphne")
        for page in PAGES:
            get_all(server, page)
            left[page] = still_out(server)
        for path in SOCKETS:
            with ExitStack() as stack:
                talk(server, path, stack)
                left[f"{path}, open"] = still_out(server)
            left[path] = still_out(server)
        pool_after = server.pool()
        log = server.log
    assert {path: out for path, out in left.items() if out} == {}
    assert pool_after["opened"] - pool_after["closed"] == pool_after["idle"] <= LIMIT
    assert "Traceback" not in log, log


def get_all(server: SiteServer, page: str) -> None:
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda _: server.get(page), range(REQUESTS)))
    assert {answer.status for answer in answers} == {200}, (page, server.log)
    assert server.get("/settle").status == 200, server.log


def talk(server: SiteServer, path: str, stack: ExitStack) -> None:
    """Some talk with it, all at once, and stay. One of them is torn off later."""
    clients = [
        stack.enter_context(connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=PATIENCE))
        for _ in range(3)
    ]
    for number in map(str, range(MESSAGES)):
        for client in clients:
            client.send(number)
        answers = [str(client.recv(timeout=PATIENCE)).split() for client in clients]
        assert all(answer[0] == number and answer[1].isdigit() for answer in answers), (path, answers)
    stack.callback(clients[0].socket.shutdown, socket.SHUT_RDWR)


def still_out(server: SiteServer) -> int:
    """How many are out when what goes on after an answer (a background task) has had its time.

    Less of it than after which AnyIO ends an idle thread.
    """
    with suppress(AssertionError):
        eventually("nothing is out", lambda: server.pool()["out"] == 0, patience=5)
    out: int = server.pool()["out"]
    return out
