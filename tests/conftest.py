"""Fixtures for all tests."""

from __future__ import annotations

import atexit
import itertools
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import django
import pytest
from django.conf import settings
from django.db import connections

from poollife import clock
from servers import Certificates, MariaDB, Missing, OracleStandIn, PgBouncer, PostgreSQL, PrivateServer, Via
from tests.support import needs


def _remove_board(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # forked children end like any process
        shutil.rmtree(folder, ignore_errors=True)


def pytest_configure() -> None:
    """Set up Django. Tests get aliases of their own from ``make_alias``; the default one is never used."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        # Tests that start a pytest of their own start one that is nobody's worker.
        del os.environ[name]
    if offset := os.environ.get("POOLLIFE_CLOCK_OFFSET"):
        set_clock_forward(float(offset))
    # Programs that tests start have their board there, too.
    os.environ["POOLLIFE_RUN_DIR"] = tempfile.mkdtemp(prefix="poollife-board-")
    atexit.register(_remove_board, os.environ["POOLLIFE_RUN_DIR"], os.getpid())
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.dummy"}},
        INSTALLED_APPS=["poollife"],
        SECRET_KEY="tests",
        USE_TZ=True,
    )
    django.setup()


def set_clock_forward(seconds: float) -> None:
    """Have poollife's clock show what it would on a machine that has been up for so much longer.

    A time that is the sum of others is as exact as its size allows: what a test compares must not depend on
    that. So ``POOLLIFE_CLOCK_OFFSET=86400.1 pytest ...`` has to pass as well. (Not
    tests/invariants/inv5_warm_checkout/test_calls.py, where this is one more call, and programs have a clock
    of their own.)
    """
    real = clock.monotonic
    clock.monotonic = lambda: real() + seconds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skip a test whose fixtures miss something of this machine."""
    with _skipping_what_is_missing():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip a test that misses something of this machine."""
    with _skipping_what_is_missing():
        yield


@contextmanager
def _skipping_what_is_missing() -> Iterator[None]:
    """Skip where something is missing, and name it. In CI, where ``CI`` is set, that is a failure."""
    try:
        yield
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest: a worker that gets one of them last is alone at the end.

    With ``POOLLIFE_SHUFFLE=7`` in the environment the rest is in an order that is drawn from that number.
    """
    if seed := os.environ.get("POOLLIFE_SHUFFLE"):
        random.Random(int(seed)).shuffle(items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name != "test_conformance.py", not slow[item.path]))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority and the certificate of the server."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def mariadb(certificates: Certificates) -> Iterator[MariaDB]:
    """One server for all tests, started for the first that asks for it."""
    with MariaDB(certificates=certificates) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(certificates: Certificates) -> Iterator[PostgreSQL]:
    """One server for all tests, started for the first that asks for it."""
    with PostgreSQL(certificates=certificates) as server:
        yield server


@pytest.fixture(scope="session")
def oracle(certificates: Certificates) -> Iterator[OracleStandIn]:
    """One stand-in for an Oracle server for all tests, started for the first that asks for it."""
    needs.python_oracledb()
    with OracleStandIn(certificates=certificates) as server:
        yield server


@pytest.fixture(scope="session")
def session_pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A PgBouncer in front of the server, with ``pool_mode = session``."""
    with PgBouncer(postgresql) as pgbouncer:
        yield pgbouncer


@pytest.fixture(scope="session")
def transaction_pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A PgBouncer in front of the server, with ``pool_mode = transaction``."""
    with PgBouncer(postgresql, "transaction") as pgbouncer:
        yield pgbouncer


@pytest.fixture
def _default_server(request: pytest.FixtureRequest) -> Callable[[], PrivateServer]:
    """A function that returns the server of tests that name none: MariaDB.

    It starts before the test, which may count processes or threads. A test that asks for PostgreSQL, or for
    the stand-in for Oracle, starts it only if it also uses it.
    """
    if not {"postgresql", "oracle"}.intersection(request.fixturenames):
        request.getfixturevalue("mariadb")
    return lambda: request.getfixturevalue("mariadb")


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


#: A server that tests name, or a proxy in front of one.
Server = PrivateServer | PgBouncer


class NewDatabase(Protocol):
    """What the fixture ``new_database`` is."""

    def __call__(self, server: Server | None = ...) -> str: ...


@pytest.fixture
def new_database(
    _default_server: Callable[[], PrivateServer], _numbers: Iterator[int]
) -> Iterator[NewDatabase]:
    """A function that makes an empty database and returns its name; the test's end drops them all.

    The database is on the server that is named, or on MariaDB.
    """
    made: list[tuple[Server, str]] = []

    def make(server: Server | None = None) -> str:
        server = server or _default_server()
        name = f"test_{next(_numbers)}"
        server.create_database(name)
        made.append((server, name))
        return name

    yield make
    for server, name in made:
        if server.pid:  # the test may have stopped a server of its own
            server.drop_database(name)


@pytest.fixture
def entry(mariadb: MariaDB, new_database: Callable[[], str]) -> dict[str, Any]:
    """The settings of an empty database, for a program."""
    return {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}


class MakeAlias(Protocol):
    """What the fixture ``make_alias`` is."""

    def __call__(
        self,
        engine: str = ...,
        *,
        server: Server | None = ...,
        via: Via = ...,
        **entry: Any,
    ) -> str: ...


@pytest.fixture
def make_alias(
    _default_server: Callable[[], PrivateServer], new_database: NewDatabase, _numbers: Iterator[int]
) -> Iterator[MakeAlias]:
    """A function that adds a database to Django's settings and returns its alias.

    Further arguments are keys of the entry: ``make_alias(POOL={"pool_size": 1})``. It leads to a new, empty
    database unless ``NAME`` says otherwise: on ``server``, or on MariaDB. The test's end closes the
    connections of its thread and the pools.
    """
    from poollife.pools.outage import forget_outages
    from poollife.pools.registry import registry

    aliases: list[str] = []

    def make(
        engine: str = "poollife.backends.mysql",
        *,
        server: Server | None = None,
        via: Via = "tcp",
        **entry: Any,
    ) -> str:
        alias = f"alias_{next(_numbers)}"
        server = server or _default_server()
        name = entry.pop("NAME", None) or new_database(server)
        known = {**connections.settings, alias: {**server.database(name, via=via), **entry}}
        known[alias]["ENGINE"] = engine
        connections.settings = connections.configure_settings(known)
        aliases.append(alias)
        return alias

    yield make
    for alias in aliases:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]
        registry.dispose(alias, "the test is over")
    # A session that one test has lost would have new sessions pinged in the next.
    forget_outages()


@pytest.fixture
def make_pool(make_alias: MakeAlias) -> Callable[..., str]:
    """A function that makes another alias, and its pool: of two connections, unless told otherwise."""
    from tests.support.counting import pool_of

    def make(size: int = 2) -> str:
        alias = make_alias(POOL={"pool_size": size, "max_overflow": 0, "timeout": 10})
        assert pool_of(alias).out == 0
        return alias

    return make


@pytest.fixture
def alias(make_pool: Callable[[], str]) -> str:
    """What most tests of borrowing borrow from; modules that need another have one of their own."""
    return make_pool()


@pytest.fixture
def thread() -> Iterator[Callable[..., Any]]:
    """A function that has a thread which lives on call something, and waits for the result."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda function, *args: executor.submit(function, *args).result(60)


@pytest.fixture
def _nothing_stays_current() -> Iterator[None]:
    """What is borrowed after a work has ended must not be taken for its own."""
    from poollife.work import current_work

    yield
    assert current_work.get() is None
