"""Law 1 under web servers that have no tests of their own; ``make processes`` runs them all, for longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from servers import MariaDB
from tests.processes import Counts
from tests.servers_site.running import ASGI, SERVERS, count

REQUESTS = 24
#: See tests/test_law_1_gunicorn.py.
ELSEWHERE = ("gunicorn sync", "gunicorn gthread")
UVICORN = SERVERS["uvicorn"]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """Nobody else's connections end on it."""
    with MariaDB() as server:
        yield server


@pytest.mark.parametrize("name", [name for name in SERVERS if not name.startswith(ELSEWHERE)])
def test_law_1(server: MariaDB, tmp_path: Path, name: str) -> None:
    """Workers come and go, requests fork, and who queried before all of it ends in its first sessions."""
    server.create_database("law_1")
    counts = count(server, "law_1", tmp_path, SERVERS[name], REQUESTS)
    parents = 2 if SERVERS[name].parent else 0
    assert counts == Counts(
        requests=counts.requests,
        processes=counts.processes,
        parent_sessions=parents,
        alive=parents,
        inherited_sockets=0,
        wrong_answers=0,
        over_limit=0,
        aborted=0,
        tracebacks=0,
    )
    assert counts.requests > REQUESTS
    assert counts.processes > SERVERS[name].workers or not SERVERS[name].replaced_by


def test_law_1_without_the_hooks(server: MariaDB, tmp_path: Path) -> None:
    """The guard alone keeps all answers right; but each worker begins with its parent's sockets."""
    server.create_database("law_1")
    counts = count(server, "law_1", tmp_path, SERVERS["gunicorn asgi, preload"], REQUESTS, without="hooks")
    assert counts.inherited_sockets >= 2 * counts.processes
    assert (counts.alive, counts.wrong_answers) == (2, 0)


def test_law_1_without_the_guard(server: MariaDB, tmp_path: Path) -> None:
    """The first worker that ends is the end of a session of its parent's."""
    server.create_database("law_1")
    gunicorn = replace(SERVERS["gunicorn asgi, preload"], kinds=("echo",))
    assert count(server, "law_1", tmp_path, gunicorn, REQUESTS, without="guard").alive < 2


def test_uvicorn_without_a_goodbye(server: MariaDB, tmp_path: Path) -> None:
    """At its end it has the signal that ended it strike once more, so no exit handler runs."""
    server.create_database("law_1")
    without = replace(UVICORN, arguments=(*UVICORN.arguments[:-1], ASGI))
    assert count(server, "law_1", tmp_path, without, 8).aborted > 0
