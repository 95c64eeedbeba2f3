"""Fixtures for the tests of servers and task queues."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import needs

#: The keys of ``DATABASES`` for JDBC on MariaDB, beside those of the server.
JDBC: dict[str, Any] = {
    "ENGINE": "poollife.backends.jdbc",
    "JDBC_DRIVER": "org.mariadb.jdbc.Driver",
    "JDBC_URL": "jdbc:mariadb://{HOST}:{PORT}/{NAME}",
    "POOL": {"pool_size": 2, "max_overflow": 0},
}


@pytest.fixture
def java_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts find Java and its drivers."""
    for name, value in needs.java().items():
        monkeypatch.setenv(name, value)
