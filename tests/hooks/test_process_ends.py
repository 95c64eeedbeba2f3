"""The end of a process, and ``close_pool()``: only the process that opened a session ends it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from poollife.fork import close_pool
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.counting import pool_of
from tests.support.programs.databases import ask, session
from tests.support.web_server import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """Nobody else's connections end on it."""
    with MariaDB() as server:
        server.create_database("ends")
        yield server


# --- the end of a process --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("via", ["tcp", "socket"])
@pytest.mark.parametrize(
    ("ending", "status", "sessions"),
    [
        ("idle", 0, 3),
        ("kept_alive", 0, 1),
        ("attached", 0, 1),
        ("dead_threads", 0, 3),
        ("in_a_transaction", 3, 1),
        ("outside_atomic", 3, 1),
        ("fails", 1, 1),
        ("daemon_thread", 0, 1),
        ("forked_children", 0, 4),
        ("children_that_do_nothing", 0, 1),
        ("multiprocessing_children", 0, 4),
        ("process_pool", 0, 1),
        ("late_handler", 0, 2),
    ],
)
def test_sessions_of_a_process_that_ends_are_closed_in_order(
    server: MariaDB, ending: str, status: int, sessions: int, via: Any
) -> None:
    """However the process ends, the server gets each quit packet."""
    databases = {"default": {"ENGINE": "poollife.backends.mysql", **server.database("ends", via=via)}}
    aborted, before = server.status("Aborted_clients"), server.status("Connections")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.process_ends", json.dumps(databases), ending],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert ("Error" in done.stderr) is (ending == "fails")
    eventually("the server has noticed", lambda: not server.sessions())
    assert server.status("Aborted_clients") == aborted
    assert server.status("Connections") - before > sessions


# --- close_pool() ----------------------------------------------------------------------------------------


def ids(server: MariaDB) -> set[int]:
    return {session.id for session in server.sessions()}


class Other:
    """Another thread, which does what it is told."""

    def __init__(self) -> None:
        self._task: Callable[[], Any] | None = None
        self._told, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        self._task = None
        self._told.release()
        self._thread.join()

    def does(self, task: Callable[[], Any]) -> Any:
        self._task = task
        self._told.release()
        self._done.acquire()
        return self._result

    def _work(self) -> None:
        while self._told.acquire() and self._task:
            try:
                self._result = self._task()
            except BaseException as error:
                self._result = error
            self._done.release()


@pytest.mark.slow
@pytest.mark.parametrize("everything", [True, False])
def test_idle_sessions_end_at_once(server: MariaDB, make_alias: MakeAlias, everything: bool) -> None:
    alias = make_alias(server=server, NAME="ends")
    with Other() as other:
        numbers = {session(alias), other.does(lambda: session(alias))}
        other.does(lambda: connections[alias].close())
        connections[alias].close()
        assert ids(server) == numbers
        close_pool(None if everything else alias)
        eventually("the server has noticed", lambda: not ids(server))
        assert session(alias) not in numbers  # and it goes on


def test_what_the_calling_thread_has_goes_back_first(server: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias(server=server, NAME="ends")
    session(alias)
    pool = pool_of(alias)
    close_pool()
    eventually("the server has noticed", lambda: not ids(server))
    assert (pool.out, pool.idle) == (0, 0)
    close_pool()  # nothing left to do


def test_what_other_threads_have_ends_with_their_work(server: MariaDB, make_alias: MakeAlias) -> None:
    """In the middle of it, nothing changes for them: not even what hangs on the session."""
    alias = make_alias(server=server, NAME="ends")
    with Other() as other:
        number = other.does(lambda: session(alias))
        assert other.does(lambda: ask("SELECT GET_LOCK('mine', 0)", using=alias)) == 1
        close_pool()
        assert other.does(lambda: session(alias)) == number
        assert other.does(lambda: ask("SELECT IS_USED_LOCK('mine') = CONNECTION_ID()", using=alias)) == 1
        assert ids(server) == {number}
        other.does(lambda: connections[alias].close())
        eventually("the server has noticed", lambda: not ids(server))


def test_what_dead_threads_had_ends_at_once(server: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias(server=server, NAME="ends")
    wrappers: list[Any] = []

    def work() -> None:
        session(alias)
        wrappers.append(connections[alias])  # as a reference cycle that was not collected yet

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(ids(server)) == 1
    close_pool()
    eventually("the server has noticed", lambda: not ids(server))


def test_an_atomic_block_keeps_its_connection(server: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias(server=server, NAME="ends")
    with transaction.atomic(using=alias):
        number = session(alias)
        close_pool()
        assert session(alias) == number
    connections[alias].close()
    eventually("the server has noticed", lambda: not ids(server))


def test_one_alias_of_two(server: MariaDB, make_alias: MakeAlias) -> None:
    one, two = (make_alias(server=server, NAME="ends") for _ in range(2))
    numbers = [session(alias) for alias in (one, two)]
    close_pool(one)
    eventually("the server has noticed", lambda: ids(server) == {numbers[1]})
    assert session(two) == numbers[1]


def test_an_unknown_alias() -> None:
    with pytest.raises(ConnectionDoesNotExist, match="nosuch"):
        close_pool("nosuch")


def test_in_a_coroutine(server: MariaDB, make_alias: MakeAlias) -> None:
    """Of its thread's own there must be nothing to give back."""
    alias = make_alias(server=server, NAME="ends")

    async def close() -> None:
        close_pool(alias)

    session(alias)
    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(close())
    connections[alias].close()
    asyncio.run(close())
    eventually("the server has noticed", lambda: not ids(server))


def test_a_child_closes_only_its_own(server: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias(server=server, NAME="ends")
    number = session(alias)
    aborted = server.status("Aborted_clients")
    if (pid := os.fork()) == 0:
        close_pool()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert session(alias) == number
    connections[alias].close()
    assert server.status("Aborted_clients") == aborted
