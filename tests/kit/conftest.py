"""Fixtures of the kit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db import connections

from poollife.pools.pool import LeasePool
from tests.conftest import MakeAlias
from tests.kit.backends import BACKENDS, ask, do
from tests.kit.description import Backend, Count
from tests.kit.table import lines, outcomes
from tests.support.counting import pool_of

#: More options of each pool, as JSON in the environment.
POOL_OF_ALL: dict[str, Any] = json.loads(os.environ.get("POOLLIFE_KIT_POOL", "{}"))


class Bed(NamedTuple):
    """A driver, its server, and an alias on an empty database with the table ``kit``."""

    backend: Backend
    server: Any
    alias: str
    make: Callable[..., str]

    @property
    def pool(self) -> LeasePool:
        """The pool of the alias."""
        return pool_of(self.alias)

    @property
    def driver(self) -> Any:
        """The guarded connection that this thread has borrowed."""
        connections[self.alias].ensure_connection()
        return connections[self.alias].lease.driver  # type: ignore[attr-defined]

    def session(self) -> Any:
        """Return the session that this thread has, as the server numbers it."""
        if self.backend.session_id is None:
            return id(self.driver)
        return ask(self.alias, self.backend.session_id)


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each driver."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def database() -> Callable[[Any], str]:
    """A function that returns the name of the kit's database on a server: one for all tests."""
    made: dict[Any, str] = {}

    def name(server: Any) -> str:
        if server not in made:
            server.create_database(made.setdefault(server, "kit"))
        return made[server]

    return name


@pytest.fixture
def bed(
    backend: Backend,
    request: pytest.FixtureRequest,
    make_alias: MakeAlias,
    database: Callable[[Any], str],
    tmp_path: Path,
) -> Bed:
    """A pool of two sessions for each driver."""
    server = request.getfixturevalue(backend.server) if backend.server else None
    numbers = iter(range(100))

    def make(entry: Mapping[str, Any] | None = None, /, **POOL: Any) -> str:
        name = str(tmp_path / f"database_{next(numbers)}") if server is None else database(server)
        options = {"pool_size": 2, "max_overflow": 0, "timeout": 5, **POOL_OF_ALL, **POOL}
        known = {**backend.entry, **(entry or {})}
        alias = make_alias(backend.engine, server=server, NAME=name, POOL=options, **known)
        do(alias, "DROP TABLE IF EXISTS kit", "CREATE TABLE kit (id INT PRIMARY KEY, name VARCHAR(20))")
        do(alias, "INSERT INTO kit VALUES (1, 'one')")
        connections[alias].close()
        return alias

    return Bed(backend, server, make(), make)


class Counted(NamedTuple):
    """An alias, and a function that counts what the server is asked."""

    alias: str
    count: Count


@pytest.fixture
def counted(bed: Bed) -> Iterator[Counted]:
    """An alias whose questions are counted; not for a file."""
    assert bed.backend.counting
    with bed.backend.counting(bed.server) as (entry, count):
        alias = bed.make(entry)
        ask(alias, "SELECT 1")  # what made the table may have cost the first session
        connections[alias].close()
        yield Counted(alias, count)
        connections[alias].close()
        pool_of(alias).drain("the test is over")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how each test of the kit ended with each driver, and write it where another process has asked."""
    found = outcomes(terminalreporter)
    if path := os.environ.get("POOLLIFE_KIT_OUTCOMES"):
        Path(path).write_text(json.dumps(found))
    if found:
        terminalreporter.section("tests of the kit by driver")
        for line in lines(found):
            terminalreporter.write_line(line)
