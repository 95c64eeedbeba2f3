"""python-oracledb in processes of their own: under gevent, and beside other ways to keep sessions."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from servers import Missing, OracleStandIn, Via
from tests.support.programs.running import run

pytestmark = pytest.mark.slow

POOLLIFE = "poollife.backends.oracle"
STOCK = "django.db.backends.oracle"
PEER = "dj_db_conn_pool.backends.oracle"


@pytest.fixture
def database(oracle: OracleStandIn) -> dict[str, Any]:
    """An entry without an ENGINE."""
    oracle.create_database("processes")
    return oracle.database("processes")


def test_other_greenlets_go_on_while_one_waits(database: dict[str, Any]) -> None:
    """A greenlet that is killed in a query leaves an answer that no other borrower reads."""
    assert run("oracle_greenlets", {**database, "ENGINE": POOLLIFE, "POOL": {"pool_size": 2}}) == {
        "answer": 42,
        "sleeps": True,
        "closed": 1,
        "out": 0,
        "answers": [42, 42, 42],
    }


@pytest.mark.parametrize("via", ["tcp", "tls"])
def test_child_of_a_fork_without_hooks_leaves_its_parent_alone(oracle: OracleStandIn, via: Via) -> None:
    """The parent has a transaction, a half-read cursor and a LOB."""
    oracle.create_database("bare")
    entry = {**oracle.database("bare", via=via), "ENGINE": POOLLIFE, "POOL": {"pool_size": 3}}
    well = [0, 999, "text", 2, True]
    assert run("oracle_bare_forks", entry) == dict.fromkeys(
        ("ends", "closes", "frees", "queries", "uses"), well
    )


#: The entry of each way to keep sessions, and what was found. docs/oracle.md has this table.
BESIDE: dict[str, tuple[dict[str, Any], tuple[int, bool, bool, bool, bool]]] = {
    "poollife": ({"ENGINE": POOLLIFE, "POOL": {"pool_size": 1}}, (1, False, True, True, True)),
    "django-db-connection-pool": ({"ENGINE": PEER}, (5, True, False, False, False)),
    "Django's own pool": (
        {"ENGINE": STOCK, "OPTIONS": {"pool": {"min": 1, "max": 1, "increment": 0}}},
        (3, True, True, False, True),
    ),
    "CONN_MAX_AGE": ({"ENGINE": STOCK, "CONN_MAX_AGE": None}, (1, True, False, False, False)),
    "neither": ({"ENGINE": STOCK}, (3, False, False, False, False)),
}


@pytest.mark.parametrize(("entry", "expected"), BESIDE.values(), ids=BESIDE)
def test_beside_other_ways_to_keep_sessions(
    oracle: OracleStandIn, database: dict[str, Any], entry: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    if entry["ENGINE"] == PEER and importlib.util.find_spec("dj_db_conn_pool") is None:
        raise Missing("missing: django-db-connection-pool; pip install django-db-connection-pool")
    found = run("oracle_beside", {**database, **entry}, str(oracle.socket))
    names = ("calls", "next sees it", "lives after a child", "own session", "lives after its query")
    assert found == dict(zip(names, expected, strict=True))
