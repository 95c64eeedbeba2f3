"""Law 7: a session that is dead at checkout is replaced, and one that dies later costs one request."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import MySQLdb
from django.db import OperationalError, connections
from django.http import HttpRequest, HttpResponse

from servers import MariaDB
from tests.conftest import MakeAlias
from tests.counting import pool_of
from tests.handlers import site, wsgi
from tests.web_server import eventually

THREADS = 4
POOL = {"pool_size": THREADS, "max_overflow": 0, "timeout": 30}
#: The client's "gone away" and "lost connection", and the server's own "connection was killed".
LOST = {2006, 2013, 1927}


class Request(NamedTuple):
    """What became of one."""

    #: None: it got none.
    session: int | None
    #: When it began, on the monotonic clock.
    began: float
    error: Exception | None


class Visitors:
    """Requests with one query each, from threads of their own, and what became of them."""

    def __init__(self, alias: str, sql: str = "SELECT 1") -> None:
        self.alias = alias
        self._sql = sql
        self.requests: list[Request] = []

    def view(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        connection = connections[self.alias]
        session = error = None
        try:
            connection.ensure_connection()
            session = connection.connection.thread_id()  # sends nothing
            with connection.cursor() as cursor:
                cursor.execute(self._sql)
                cursor.fetchall()
        except Exception as caught:
            error = caught
        self.requests.append(Request(session, began, error))
        return HttpResponse(status=500 if error else 200)

    def fill(self) -> None:
        """Have the pool open all that it may have."""
        barrier = threading.Barrier(THREADS)

        def borrow() -> None:
            connections[self.alias].ensure_connection()
            barrier.wait(30)
            connections[self.alias].close()

        self._in_threads(borrow)

    def come(self, number: int) -> None:
        """So many requests."""

        def visit() -> None:
            for _ in range(number // THREADS):
                response = wsgi()
                b"".join(response)
                response.close()

        with site(view=self.view):
            self._in_threads(visit)

    @staticmethod
    def _in_threads(work: Callable[[], object]) -> None:
        with ThreadPoolExecutor(THREADS) as executor:
            for done in [executor.submit(work) for _ in range(THREADS)]:
                done.result()

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.error]


def sessions(server: MariaDB, alias: str) -> set[int]:
    name = connections[alias].settings_dict["NAME"]
    return {session.id for session in server.sessions() if session.db == name}


def kill(server: MariaDB, alias: str) -> None:
    for session in sessions(server, alias):
        server.execute(f"KILL {session}")


def are_gone(server: MariaDB, alias: str) -> None:
    """Wait until the server has ended all of them."""
    eventually("the server has ended them", lambda: not sessions(server, alias))


# --- between requests ---------------------------------------------------------------------------------------


def disturb(visitors: Visitors, server: MariaDB, times: int, strike: Callable[[], object]) -> set[int]:
    """A hundred requests, the strike, a hundred more; returns the sessions."""
    seen: set[int] = set()
    for _ in range(times):
        visitors.come(100)
        visitors.fill()
        now = sessions(server, visitors.alias)
        assert len(now) == THREADS
        assert not now & seen  # or nothing had ended them
        seen |= now
        strike()
        are_gone(server, visitors.alias)
    visitors.come(100)
    assert len(visitors.requests) == (times + 1) * 100
    assert [request.error for request in visitors.failed] == []
    return seen


def test_killed_between_requests_none_fails(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL=POOL)
    disturb(Visitors(alias), mariadb, 3, lambda: kill(mariadb, alias))
    pool = pool_of(alias)
    assert (pool.out, pool.opened, pool.closed) == (0, 4 * THREADS, 3 * THREADS)


def test_idle_for_too_long_between_requests_none_fails(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """``recycle`` would replace them before; without it, it is seen all the same."""
    alias = make_alias(POOL={**POOL, "recycle": -1}, OPTIONS={"init_command": "SET SESSION wait_timeout = 2"})
    disturb(Visitors(alias), mariadb, 2, lambda: None)


def test_restarted_between_requests_none_fails(make_alias: MakeAlias) -> None:
    with MariaDB() as server:
        server.create_database("shop")
        alias = make_alias(server=server, NAME="shop", POOL=POOL)
        visitors = Visitors(alias)
        for _ in range(2):
            visitors.come(100)
            visitors.fill()
            assert len(sessions(server, alias)) == THREADS
            server.restart()
        visitors.come(100)
        assert len(visitors.requests) == 300
        assert [request.error for request in visitors.failed] == []
        connections[alias].close()


# --- in the middle of them ----------------------------------------------------------------------------------


class Killer:
    """Kills sessions at random, and notes when each was gone."""

    def __init__(self, server: MariaDB, alias: str) -> None:
        self._server = server
        self._alias = alias
        self._random = random.Random(7)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: When each was gone for certain, on the monotonic clock.
        self.killed: dict[int, float] = {}

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(0, 0.02)):
            if alive := sorted(sessions(self._server, self._alias)):
                self._kill(self._random.choice(alive))

    def _kill(self, session: int) -> None:
        with suppress(MySQLdb.OperationalError):  # its pool was quicker
            self._server.execute(f"KILL {session}")
        eventually("it is gone", lambda: session not in sessions(self._server, self._alias))
        self.killed[session] = time.monotonic()


def test_killed_at_random_only_what_was_on_its_way_fails(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL=POOL)
    visitors = Visitors(alias, "SELECT SLEEP(0.01)")
    visitors.fill()
    with Killer(mariadb, alias) as killer:
        visitors.come(1000)
    assert len(visitors.requests) == 1000
    assert len(killer.killed) > 10
    # Or it would have proved nothing.
    assert visitors.failed
    for session, began, error in visitors.failed:
        assert isinstance(error, OperationalError)
        assert error.args[0] in LOST
        # It was alive when it was handed out, or killed while it was being set up.
        assert session is None or began < killer.killed[session]
    assert len(visitors.failed) <= len(killer.killed)
    # None was handed out again.
    struck = Counter(request.session for request in visitors.failed if request.session)
    assert set(struck.values()) == {1}

    pool, before = pool_of(alias), len(visitors.failed)
    assert pool.out == 0
    visitors.fill()
    visitors.come(100)
    assert len(visitors.failed) == before
    assert (pool.out, pool.idle, len(sessions(mariadb, alias))) == (0, THREADS, THREADS)
