"""gevent with JDBC: all greenlets get right answers, but one that waits for the server stops the others."""

from __future__ import annotations

import pytest

from servers import MariaDB
from tests.conftest import NewDatabase
from tests.hooks.conftest import JDBC
from tests.support import needs
from tests.support.programs import running

pytestmark = pytest.mark.slow


def test_greenlets_keep_their_sessions_and_are_warned_that_java_stops_them_all(
    mariadb: MariaDB, new_database: NewDatabase
) -> None:
    database = mariadb.database(new_database(mariadb))
    entry = {**database, **JDBC, "POOL": {"pool_size": 3, "max_overflow": 0}}
    variables = [f"{name}={value}" for name, value in needs.java().items()]
    report = running.run("jdbc_greenlets", entry, within=["env", *variables])
    (warning,) = report.pop("warnings")
    assert warning.startswith("gevent has patched this process, but Java does not know it")
    assert report == {
        "right": [True] * 20,
        "sessions": 3,
        # While a query waits for its answer, no other greenlet runs.
        "ticks": 0,
        # Of the greenlet that was killed in its transaction, none.
        "rows": 20,
        "out": 0,
    }
