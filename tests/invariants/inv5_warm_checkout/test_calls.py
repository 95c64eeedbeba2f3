"""Invariant 5: a warm checkout sends nothing, and does little.

Both are counted: function calls by the interpreter, round trips by a proxy. No stopwatch.
"""

from __future__ import annotations

import cProfile
import gc
import itertools
import pstats
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections, models, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from benchmarks.wiretap import CONNECT, Wiretap
from poollife.backends import mixin
from poollife.pools import registry
from servers import MariaDB, PostgreSQL
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.handlers import site, wsgi

STOCK, POOLED = "django.db.backends.mysql", "poollife.backends.mysql"
PERSISTENT: dict[str, Any] = {"CONN_MAX_AGE": None}
#: What a warm checkout and return may take. Whoever adds work to each request raises it here, or finds
#: another place for that work. (Of Django's own and SQLAlchemy's calls a version may have one more or less.)
POOLLIFES_CALLS = 25
ALL_CALLS = 43
#: The same for one more statement of a borrower: a cursor, one execute(), one row.
STATEMENTS_CALLS = 24
#: The same with psycopg 3.
PSYCOPGS_POOLLIFES_CALLS, PSYCOPGS_STATEMENTS_CALLS = 36, 32


class Calls:
    """``with Calls() as calls: ...`` and then ``calls.made``: this thread's calls of Python functions."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is not Calls.__exit__.__code__:
            self.made.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}")

    @property
    def poollifes(self) -> list[str]:
        return [name for name in self.made if name.startswith("poollife.")]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the collector's work is counted, nor the look for what other tests have left out."""
    for module in (registry, mixin):
        monkeypatch.setattr(module, "closed_pools", set())
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cycle(alias: str) -> None:
    connections[alias].ensure_connection()
    connections[alias].close()


def calls_of(work: Callable[[], object]) -> Calls:
    """Once everything is warm."""
    for _ in range(3):
        work()
    with Calls() as calls:
        work()
    return calls


def test_calls_are_counted() -> None:
    def callee() -> None:
        len("")

    name = f"{__name__}.test_calls_are_counted.<locals>."

    def caller() -> None:
        callee()
        callee()

    assert calls_of(caller).made == [f"{name}caller", f"{name}callee", f"{name}callee"]


def test_a_warm_checkout_and_return_take_few_calls(make_alias: MakeAlias) -> None:
    alias = make_alias()
    calls = calls_of(lambda: cycle(alias))
    assert len(calls.poollifes) <= POOLLIFES_CALLS, calls.poollifes
    assert len(calls.made) <= ALL_CALLS, calls.made
    assert (pool_of(alias).opened, pool_of(alias).checkouts) == (1, 4)


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("SELECT n FROM log WHERE n = %s", 0),
        ("INSERT INTO log VALUES (%s)", 0),
        # Nothing of it is read again, though the comment is another one each time.
        ("SELECT n FROM log WHERE n = %s /*traceparent='{}'*/", 4),
        ("/*{}*/ SELECT n FROM log WHERE n = %s /*a*/ /*b%%3A{}*/", 7),
    ],
)
def test_a_warm_statement_takes_few_calls(
    make_alias: MakeAlias, mariadb: MariaDB, statement: str, more: int
) -> None:
    alias = make_alias()
    mariadb.execute(f"CREATE TABLE {connections[alias].settings_dict['NAME']}.log (n INT)")
    numbers = itertools.count()

    def work() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(statement.replace("{}", str(next(numbers))), [1])
            cursor.fetchone()

    calls = calls_of(work)
    assert len(calls.poollifes) <= STATEMENTS_CALLS + more, calls.poollifes


def test_warm_calls_with_psycopg(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias("poollife.backends.postgresql", server=postgresql)
    calls = calls_of(lambda: cycle(alias))
    assert len(calls.poollifes) <= PSYCOPGS_POOLLIFES_CALLS, calls.poollifes

    def work() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT %s", [1])
            cursor.fetchone()

    calls = calls_of(work)
    assert len(calls.poollifes) <= PSYCOPGS_STATEMENTS_CALLS, calls.poollifes


@pytest.mark.parametrize("others", [0, 50])
def test_they_take_as_many_among_many(make_alias: MakeAlias, others: int) -> None:
    """Neither other sessions nor other pools make a checkout slower."""
    alias = make_alias(POOL={"pool_size": 60})
    alone = calls_of(lambda: cycle(alias))
    pool, borrowers = pool_of(alias), [connections.create_connection(alias) for _ in range(others)]
    for borrower in borrowers:
        borrower.ensure_connection()
    neighbours = [make_alias() for _ in range(3 if others else 0)]
    for neighbour in neighbours:
        cycle(neighbour)
    assert pool.out == others
    among = calls_of(lambda: cycle(alias))
    for borrower in borrowers:
        borrower.close()
    assert Counter(among.made) == Counter(alone.made)


def test_the_objects_of_a_checkout_have_few_attributes(make_alias: MakeAlias) -> None:
    """With up to 29 attributes, which are in the object itself, CPython finds methods without a search."""
    alias = make_alias()
    cycle(alias)
    pool = pool_of(alias)
    for each in (pool, pool._slots, pool.liveness, pool.meters):
        assert len(vars(each)) <= 29, each


@pytest.mark.parametrize("name", ["lease", "failure", "dirty", "ran", "awaits_result", "messages"])
def test_the_attributes_of_a_session_are_found_at_once(make_alias: MakeAlias, name: str) -> None:
    """CPython searches each time if the class has a value for the attribute, or attribute functions."""
    alias = make_alias()
    connections[alias].ensure_connection()
    kind: Any = type(connections[alias].connection)
    assert name in vars(connections[alias].connection)
    assert not hasattr(kind, name)
    assert kind.__getattribute__ is object.__getattribute__
    assert kind.__setattr__ is object.__setattr__


def test_they_leave_nothing_for_the_collector(make_alias: MakeAlias) -> None:
    alias = make_alias()
    cycle(alias)
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            cycle(alias)
        assert gc.collect() == 0
    finally:
        gc.enable()


# --- beside stock Django ------------------------------------------------------------------------------------


#: Calls of Python's and of C's functions that a warm request may make beyond one of stock Django's on a
#: persistent connection; measured 57 for the first statement (55 for a ``get()``, 62 for a transaction), 5 of
#: them for the board, and 2 for a further one, on Python 3.13 with Django 6.1 and on Python 3.11 with Django
#: 5.2.
REQUESTS_CALLS = 64
FURTHER_CALLS = 3


class Thing(models.Model):
    number = models.IntegerField()
    objects: models.Manager[Thing] = models.Manager()

    class Meta:
        app_label = "calls"
        db_table = "things"


def raw(alias: str, statements: int = 1) -> None:
    for _ in range(statements):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()


def get(alias: str) -> None:
    Thing.objects.using(alias).get(pk=1)


def get_and_update(alias: str) -> None:
    with transaction.atomic(using=alias):
        thing = Thing.objects.using(alias).get(pk=1)
        Thing.objects.using(alias).filter(pk=1).update(number=thing.number + 1)


def calls_of_request(alias: str, work: Callable[[], None], *, pooled: bool) -> int:
    """The calls of a warm request that does this work, by the interpreter's own profiler."""

    def view(request: HttpRequest) -> HttpResponse:
        work()
        return HttpResponse("done")

    with site(view=view, pooled=pooled):
        handler, environ = WSGIHandler(), RequestFactory().get("/view").environ

        def request() -> None:
            response = handler(dict(environ), lambda status, headers, exc_info=None: lambda data: None)
            assert b"".join(response) == b"done"
            response.close()

        for _ in range(5):
            request()
        with cProfile.Profile() as profile:
            request()
        number: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
        return number


@pytest.fixture
def sites(make_alias: MakeAlias) -> Callable[[Callable[[str], None]], int]:
    """How many calls more a request makes with the pool than with a persistent connection."""
    aliases = {"stock": make_alias(STOCK, **PERSISTENT), "pooled": make_alias(POOLED)}
    for alias in aliases.values():
        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE things (id BIGINT PRIMARY KEY, number INT) ENGINE=InnoDB")
            cursor.execute("INSERT INTO things VALUES (1, 1)")

    def more(work: Callable[[str], None]) -> int:
        numbers = []
        for name, alias in aliases.items():
            numbers.append(calls_of_request(alias, partial(work, alias), pooled=name == "pooled"))
            # What is open when a request ends costs the next one calls.
            connections[alias].close()
        return numbers[1] - numbers[0]

    return more


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
@pytest.mark.parametrize("work", [raw, get, get_and_update])
def test_a_request_makes_few_calls_beyond_stock_django(
    sites: Callable[[Callable[[str], None]], int], work: Callable[[str], None]
) -> None:
    assert sites(work) <= REQUESTS_CALLS


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
def test_a_further_statement_makes_few_calls_beyond_stock_django(
    sites: Callable[[Callable[[str], None]], int],
) -> None:
    assert sites(partial(raw, statements=11)) - sites(raw) <= 10 * FURTHER_CALLS


# --- round trips --------------------------------------------------------------------------------------------


@pytest.fixture
def tap(mariadb: MariaDB) -> Iterator[Wiretap]:
    with Wiretap(mariadb.host, mariadb.port) as tap:
        yield tap


class Site:
    """Two views on one table, behind a proxy that counts."""

    def __init__(self, make_alias: MakeAlias, tap: Wiretap, engine: str, **entry: Any) -> None:
        self.tap = tap
        self.alias = make_alias(engine, PORT=str(tap.port), **entry)
        with connections[self.alias].cursor() as cursor:
            cursor.execute("CREATE TABLE things (id INT PRIMARY KEY, number INT) ENGINE=InnoDB")
            cursor.execute("INSERT INTO things VALUES (1, 1)")

    def read(self, request: HttpRequest | None = None) -> HttpResponse:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT number FROM things WHERE id = 1")
            return HttpResponse(str(cursor.fetchone()[0]))

    def write(self, request: HttpRequest | None = None) -> HttpResponse:
        response = self.read()
        with connections[self.alias].cursor() as cursor:
            cursor.execute("UPDATE things SET number = number + 1 WHERE id = 1")
        return response

    def hear(self, view: Callable[..., HttpResponse], times: int = 1) -> list[str]:
        """What such requests ask of the server, once everything is warm."""
        with site(view=view):
            self._get()
            with self.tap.listening() as heard:
                for _ in range(times):
                    self._get()
        return heard

    @staticmethod
    def _get() -> None:
        response = wsgi()
        assert response.status_code == 200
        b"".join(response)
        response.close()


SELECT = "SELECT number FROM things WHERE id = 1"
UPDATE = "UPDATE things SET number = number + 1 WHERE id = 1"


def test_round_trips_are_counted(make_alias: MakeAlias, tap: Wiretap) -> None:
    """A connection for each request: it opens one, sets it up, asks, and leaves."""
    stock = Site(make_alias, tap, STOCK, CONN_MAX_AGE=0)
    heard = stock.hear(stock.read, times=2)
    assert heard.count(CONNECT) == heard.count(SELECT) == 2
    assert heard[-1] == SELECT
    assert len(heard) > 4


def test_a_warm_request_with_one_query_costs_one_round_trip(make_alias: MakeAlias, tap: Wiretap) -> None:
    pooled = Site(make_alias, tap, POOLED)
    assert pooled.hear(pooled.read, times=20) == [SELECT] * 20


def test_a_ping_is_a_round_trip(make_alias: MakeAlias, tap: Wiretap) -> None:
    """What costs one is heard: whoever wants it at each checkout gets it."""
    pooled = Site(make_alias, tap, POOLED, POOL={"pre_ping": True})
    assert pooled.hear(pooled.read, times=2) == ["DO 1", SELECT] * 2


def test_new_session_is_not_told_what_it_has(make_alias: MakeAlias, tap: Wiretap) -> None:
    """Stock Django switches autocommit off and on again, and each wrapper asks for the server's version."""
    pooled = Site(make_alias, tap, POOLED)
    pool_of(pooled.alias).drain("another session")
    with tap.listening() as heard, site(view=pooled.read):
        pooled._get()
    assert heard == [
        CONNECT,
        "SET NAMES utf8mb4",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        SELECT,
    ]


@pytest.mark.parametrize(("engine", "entry"), [(STOCK, PERSISTENT), (POOLED, {})], ids=["stock", "pooled"])
def test_an_atomic_request_costs_three_round_trips_more(
    make_alias: MakeAlias, tap: Wiretap, engine: str, entry: dict[str, Any]
) -> None:
    """As on a connection that Django keeps: autocommit off, COMMIT, autocommit on."""
    views = Site(make_alias, tap, engine, ATOMIC_REQUESTS=True, **entry)
    heard = views.hear(views.write)
    assert [each for each in heard if each in (SELECT, UPDATE)] == [SELECT, UPDATE]
    assert len(heard) <= 2 + 3, heard
