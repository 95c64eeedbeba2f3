"""Invariant 4 under stress; ``make stress`` does more of it."""

from __future__ import annotations

import pytest

from servers import MariaDB
from tools.stress import WAYS, mistakes, stress

pytestmark = pytest.mark.slow

SECONDS, THREADS, SEED = 4.0, 64, 1


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lost_lent_twice_or_too_much(mariadb: MariaDB, way: str) -> None:
    report = stress(mariadb, way, SEED, SECONDS, THREADS)
    assert mistakes(way, report) == {}
    assert min(report["done"][deed] for deed in ("query", "block", "end_with_it", "drop", "kill")) > 0
    assert report["opened"] > 16
