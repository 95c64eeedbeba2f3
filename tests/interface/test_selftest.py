"""``python -m poollife.selftest ALIAS``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers import PrivateServer
from tests.support import ROOT

pytestmark = pytest.mark.slow

#: The ENGINEs that are tried, and the fixtures of their servers; None: a file.
ENGINES = {
    "poollife.backends.mysql": "mariadb",
    "poollife.backends.mysql_pymysql": "mariadb",
    "poollife.backends.postgresql": "postgresql",
    "poollife.backends.oracle": "oracle",
    "poollife.backends.sqlite3": None,
}
#: A line: the number of the guarantee, what is tried, and the result.
LINE = re.compile(r"(\d)  (.+?)  +(holds|FAILED|not tried)")


@pytest.fixture
def entry(
    request: pytest.FixtureRequest, new_database: Callable[[PrivateServer], str], tmp_path: Path
) -> Callable[[str], dict[str, Any]]:
    """A function that returns an entry of DATABASES for an ENGINE."""

    def make(engine: str) -> dict[str, Any]:
        if (fixture := ENGINES[engine]) is None:
            return {"ENGINE": engine, "NAME": str(tmp_path / "database")}
        server = request.getfixturevalue(fixture)
        return {**server.database(new_database(server)), "ENGINE": engine}

    return make


def selftest(
    tmp_path: Path, entry: dict[str, Any], *arguments: str, answer: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command with one alias, ``default``."""
    (tmp_path / "settings_of_selftest.py").write_text(
        f"DATABASES = {{'default': {entry!r}}}\nUSE_TZ = True\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "poollife.selftest", "default", *arguments],
        env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "settings_of_selftest"},
        input=answer,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_every_guarantee_holds(engine: str, entry: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    settings = entry(engine)
    done = selftest(tmp_path, settings, answer="y\n")
    results = [(int(number), result) for number, _, result in LINE.findall(done.stdout)]
    expected = [*[(number, "holds") for number in (1, 1, 2, 3, 3, 4, 5, 6, 7, 7)], (8, "not tried")]
    if ENGINES[engine] is None:
        expected = [(number, "not tried" if number == 7 else result) for number, result in expected]
    assert (results, done.returncode) == (expected, 0), done.stdout + done.stderr
    if ENGINES[engine]:
        assert "10 checkouts, one session, no packet" in done.stdout


def test_guarantee_that_does_not_hold_is_named(
    entry: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """With this option, settings of a borrower stay in its session."""
    settings = {**entry("poollife.backends.oracle"), "POOL": {"reset": "rollback"}}
    done = selftest(tmp_path, settings, "--yes")
    failed = [(number, text) for number, text, result in LINE.findall(done.stdout) if result == "FAILED"]
    assert failed == [("3", "a setting of one borrower does not reach the next")]
    assert done.returncode == 1


def test_nothing_is_done_without_a_yes(
    entry: Callable[[str], dict[str, Any]], oracle: Any, tmp_path: Path
) -> None:
    before = len(oracle.calls())
    done = selftest(tmp_path, entry("poollife.backends.oracle"), answer="\n")
    assert (done.returncode, len(oracle.calls())) == (2, before)
    assert re.search(r"This makes the table poollife_selftest_\d+ in database 'test_\d+' at 127", done.stdout)


@pytest.mark.parametrize(
    ("engine", "pool"), [("django.db.backends.sqlite3", {}), ("poollife.backends.sqlite3", False)]
)
def test_database_without_a_pool_is_refused(engine: str, pool: object, tmp_path: Path) -> None:
    done = selftest(tmp_path, {"ENGINE": engine, "NAME": str(tmp_path / "database"), "POOL": pool}, "--yes")
    assert done.returncode == 2
    assert "is not one of poollife's, or its POOL keeps no sessions" in done.stderr
