"""Invariant 1 at random moments; ``make fuzz`` does more of it."""

from __future__ import annotations

import pytest

from servers import MariaDB
from tests.support.programs.running import run
from tools.fork_fuzz import fuzz, harm

pytestmark = pytest.mark.slow

FORKS, THREADS, SEED = 100, 6, 1


@pytest.mark.parametrize("via", ["tcp", "tls"])
@pytest.mark.parametrize("name", ["mariadb", "postgresql"])
def test_forks_at_random_moments_harm_nothing(request: pytest.FixtureRequest, name: str, via: str) -> None:
    report = fuzz(request.getfixturevalue(name), via, SEED, FORKS, THREADS)
    assert harm(report) == {}
    assert report["forks"] == FORKS
    assert min(report["children"].values()) > 3
    assert min(report["steps"].values()) > 5


def test_forks_at_random_moments_harm_a_process_without_the_guard(mariadb: MariaDB) -> None:
    """The same seed, with a part of the invariant's code taken out. The program ends at the first harm."""
    mariadb.create_database("fuzz_bare")
    database = {**mariadb.database("fuzz_bare"), "ENGINE": "poollife.backends.mysql"}
    with pytest.raises(AssertionError):
        assert harm(run("fork_fuzz", database, SEED, FORKS, THREADS, "guard", limit=30)) == {}
