"""Fixtures for the tests of invariant 7: servers that change places, and proxies in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.wiretap import Wiretap
from servers import MariaDB
from tests.conftest import NewDatabase
from tests.support.cluster import Cluster
from tests.support.failover import Failover


@pytest.fixture(scope="module")
def heir() -> Iterator[MariaDB]:
    """A second server."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def failover(mariadb: MariaDB, heir: MariaDB, new_database: NewDatabase) -> Iterator[Failover]:
    """Two servers with the same table."""
    with Failover(mariadb, heir, new_database()) as failover:
        yield failover


@pytest.fixture
def tap(mariadb: MariaDB) -> Iterator[Wiretap]:
    """A proxy that leads to the first server."""
    with Wiretap(mariadb.host, mariadb.port) as tap:
        yield tap


@pytest.fixture
def cluster(mariadb: MariaDB) -> Iterator[Cluster]:
    """A balancer."""
    with Cluster(mariadb.host, mariadb.port) as cluster:
        yield cluster
