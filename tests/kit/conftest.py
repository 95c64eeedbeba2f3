"""Fixtures of the kit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db import connections

from poollife.pools.pool import LeasePool
from tests.conftest import MakeAlias
from tests.kit.backends import BACKENDS, Backend, ask, do
from tests.support.counting import pool_of


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


@pytest.fixture
def bed(backend: Backend, request: pytest.FixtureRequest, make_alias: MakeAlias, tmp_path: Path) -> Bed:
    """A pool of two sessions for each driver."""
    server = request.getfixturevalue(backend.server) if backend.server else None
    numbers = iter(range(100))

    def make(**POOL: Any) -> str:
        entry: dict[str, Any] = {"POOL": {"pool_size": 2, "max_overflow": 0, "timeout": 5, **POOL}}
        if backend.server is None:
            entry["NAME"] = str(tmp_path / f"database_{next(numbers)}")
        alias = make_alias(backend.engine, server=server, **entry)
        do(alias, "CREATE TABLE kit (id INT PRIMARY KEY, name VARCHAR(20))")
        do(alias, "INSERT INTO kit VALUES (1, 'one')")
        connections[alias].close()
        return alias

    return Bed(backend, server, make(), make)
