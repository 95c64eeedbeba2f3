"""Invariant 6, outages in larger settings: a name that moves, two databases at once, an ASGI site."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse

from poollife import pool_available, pool_stats
from servers import MariaDB, PostgreSQL, PrivateServer, Proxy
from tests.conftest import MakeAlias, NewDatabase
from tests.support import needs
from tests.support.counting import pool_of
from tests.support.handlers import Exchange, site
from tests.support.programs.running import run
from tests.support.visitors import POOL, THREADS, Visitors
from tests.support.web_server import eventually

PLAIN: dict[str, dict[str, Any]] = {"poollife.backends.mysql_pymysql": {"ssl_disabled": True}}
WAITS: dict[str, Any] = {**POOL, "timeout": 60, "outage_wait": 50}


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    """A proxy that leads to MariaDB."""
    with Proxy(mariadb.host, mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def other_proxy(postgresql: PostgreSQL) -> Iterator[Proxy]:
    """A proxy that leads to PostgreSQL."""
    with Proxy(postgresql.host, postgresql.port) as proxy:
        yield proxy


# --- a name that moves ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("engine", ["mysql", "mysql_pymysql", "postgresql"])
def test_checkouts_wait_until_the_name_leads_to_another_address(
    engine: str, request: pytest.FixtureRequest, new_database: NewDatabase
) -> None:
    """Each new session has the name looked up, also in the middle of an outage."""
    within = needs.namespace("-m")
    server: PrivateServer = request.getfixturevalue("mariadb" if "mysql" in engine else "postgresql")
    entry = {**server.database(new_database(server)), "ENGINE": f"poollife.backends.{engine}"}
    assert run("moving_name", entry, within=within) == {"errors": [], "requests": 80, "moved": True}


# --- two databases ----------------------------------------------------------------------------------------


def is_away(alias: str) -> bool:
    """Return whether an attempt has failed."""
    return bool(pool_stats()[alias]["connect_errors"]) and not pool_available(alias)


def test_outage_of_one_database_delays_no_request_to_the_other(
    make_alias: MakeAlias, postgresql: PostgreSQL, proxy: Proxy, other_proxy: Proxy
) -> None:
    """Each server has an outage of its own, also while both are away."""
    plain = {"sslmode": "disable"}
    mysql = make_alias(PORT=str(proxy.port), POOL=WAITS)
    other = make_alias(
        "poollife.backends.postgresql",
        server=postgresql,
        PORT=str(other_proxy.port),
        OPTIONS=plain,
        POOL=WAITS,
    )
    first, second = Visitors(mysql), Visitors(other)
    with site(first=first.view, second=second.view), ThreadPoolExecutor(2) as executor:
        first.ask("/first", THREADS)
        second.ask("/second", THREADS)
        with proxy.dropped():
            waits = executor.submit(first.ask, "/first", 10 * THREADS)
            eventually("an attempt has failed", lambda: is_away(mysql))
            second.ask("/second", 10 * THREADS)
            with other_proxy.dropped():
                waits_too = executor.submit(second.ask, "/second", 10 * THREADS)
                eventually("an attempt has failed", lambda: is_away(other))
            waits_too.result()
            assert not waits.done()
            assert pool_available(other)
            assert not pool_available(mysql)
        waits.result()
    assert [len(visitors.requests) for visitors in (first, second)] == [11 * THREADS, 21 * THREADS]
    assert (first.failed, second.failed) == ([], [])
    for alias in (mysql, other):
        connections[alias].close()


# --- ASGI -------------------------------------------------------------------------------------------------


class Site:
    """Async views, one with a query and one without, and the answers of the former."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.errors: list[Exception] = []

    def query(self) -> None:
        """Query, as the ORM does it for an async view."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()

    async def view(self, request: HttpRequest) -> HttpResponse:
        """Query once."""
        try:
            await sync_to_async(self.query)()
        except DatabaseError as error:
            self.errors.append(error)
            return HttpResponse(status=500)
        return HttpResponse()

    async def idle(self, request: HttpRequest) -> HttpResponse:
        """Query nothing."""
        return HttpResponse()

    async def visit(self, url: str) -> int:
        """Send a request; return the status."""
        exchange = Exchange(url)
        status = await exchange.head()
        await exchange.body()
        return status

    async def crowd(self, number: int) -> list[int]:
        """Send so many requests at once; return the statuses."""
        return await asyncio.gather(*(self.visit("/view") for _ in range(number)))


async def happens(what: Any) -> None:
    """Wait until something has happened, without a thread."""
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


def test_asgi_requests_wait_in_an_outage_and_the_event_loop_does_not(
    make_alias: MakeAlias, proxy: Proxy
) -> None:
    """Each waiting request has a thread. A view without a query is answered meanwhile."""
    visited = Site(alias := make_alias(PORT=str(proxy.port), POOL=WAITS))

    async def main() -> None:
        assert await visited.crowd(2 * THREADS) == [200] * 2 * THREADS
        with proxy.dropped():
            waiting = asyncio.create_task(visited.crowd(5 * THREADS))
            await happens(lambda: pool_stats()[alias]["waiting"] == 5 * THREADS)
            assert await visited.visit("/idle") == 200
            assert not waiting.done()
        assert await waiting == [200] * 5 * THREADS

    with site(view=visited.view, idle=visited.idle):
        asyncio.run(main())
    assert visited.errors == []
    assert pool_of(alias).out == 0


def test_asgi_requests_fail_once_the_outage_is_long_and_succeed_after_it(
    make_alias: MakeAlias, proxy: Proxy
) -> None:
    """The outage has an end without a request: the probe finds it."""
    visited = Site(alias := make_alias(PORT=str(proxy.port), POOL={**WAITS, "outage_wait": 0.1}))

    async def main() -> None:
        await visited.crowd(2 * THREADS)
        with proxy.dropped():
            assert await visited.crowd(5 * THREADS) == [500] * 5 * THREADS
            attempts = pool_stats()[alias]["connect_errors"]
            assert await visited.crowd(5 * THREADS) == [500] * 5 * THREADS
            # The probe's, a few at most, and none of a request.
            assert pool_stats()[alias]["connect_errors"] - attempts < 5 * THREADS
        await happens(lambda: pool_available(alias))
        assert await visited.crowd(5 * THREADS) == [200] * 5 * THREADS

    with site(view=visited.view, idle=visited.idle):
        asyncio.run(main())
    assert len(visited.errors) == 10 * THREADS
    assert pool_of(alias).out == 0
