"""Django's own tests pass with our ENGINE as they pass with Django's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, needs
from tools import conformance
from tools.conformance import Difference, Outcomes, Suite


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.conformance", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2400,
    )


@pytest.fixture(scope="module")
def _tests_of_django() -> None:
    """Download them once, from the index that pip asks."""
    needs.client_programs()
    needs.tests_of_django()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("_tests_of_django")
@pytest.mark.parametrize("database", ["mysql", "sqlite"])
def test_the_life_cycle_is_that_of_django(database: str) -> None:
    """With test workers that fork, and on MySQL serial as well."""
    runs = ("1", "2") if database == "mysql" else ("2",)
    done = run("--database", database, *(f"--parallel={number}" for number in runs))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("new failures: 0") == len(runs)
    assert done.stdout.count("ran with stock only: 0") == len(runs)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("_tests_of_django")
def test_database_in_memory_is_that_of_django() -> None:
    """It is not pooled. Django's tests act on shallow copies of its wrapper, which share its only handle."""
    done = run("--database", "sqlite-in-memory", "--parallel", "1", "--labels", "backends.sqlite")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("new failures: 0") == 1


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("_tests_of_django")
def test_a_backend_that_does_not_work_is_told() -> None:
    done = run(
        *("--database", "mysql", "--labels", "db_utils", "--parallel", "2"),
        *("--engine", "django.db.backends.dummy"),
    )
    assert done.returncode == 1, done.stdout
    assert "db_utils.tests.ConnectionHandlerTests" in done.stdout.partition("ran with stock only")[2]


def outcomes(passed: str = "", failed: str = "", finished: bool = True) -> Outcomes:
    return Outcomes(1.0, finished, frozenset(failed.split()), frozenset([*passed.split(), *failed.split()]))


@pytest.mark.parametrize(
    ("stock", "pooled", "fine"),
    [
        (outcomes("a b"), outcomes("a b"), True),
        (outcomes("a", "b"), outcomes("a", "b"), True),
        (outcomes("a", "b"), outcomes("a b"), True),
        (outcomes("a b"), outcomes("a", "b"), False),
        (outcomes("a b"), outcomes("a"), False),
        (outcomes("a"), outcomes("a b"), True),
        (outcomes("a"), outcomes("a", finished=False), False),
        (outcomes("a", finished=False), outcomes("a"), False),
        (outcomes(), outcomes(), False),
    ],
)
def test_verdict(stock: Outcomes, pooled: Outcomes, fine: bool) -> None:
    assert Difference("mysql", 1, stock, pooled).fine is fine


def test_a_known_difference_is_told_and_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(conformance.KNOWN, "b", "by design")
    difference = Difference("mysql", 1, outcomes("a b"), outcomes("a", "b"))
    assert difference.fine
    conformance.report(difference)
    assert "known differences: 1\n  b (by design)\n" in capsys.readouterr().out


def test_outcomes_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "stock" / "mysql.json"
    outcomes("a b").keep(file)
    assert Outcomes.load(file) == outcomes("a b")
    assert list(file.parent.iterdir()) == [file]


class NoDatabases:
    """No server is there: a run would fail."""

    stock = pooled = "django.db.backends.dummy"
    skipped: dict[str, str] = {}

    def settings(self, name: str) -> dict[str, Any]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        (outcomes("a b"), True),
        (outcomes("a", "b"), False),
        (outcomes("a", finished=False), False),
        (outcomes(), False),
    ],
)
def test_run_with_djangos_backend_is_kept_if_nothing_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Outcomes, kept: bool
) -> None:
    runs: list[Outcomes] = [first, outcomes("c")]
    monkeypatch.setattr(conformance, "CACHE", tmp_path)
    monkeypatch.setattr(Suite, "run", lambda *_: runs.pop(0))
    suite = Suite(tmp_path, ["label"], 1.0)
    assert suite.run_stock(NoDatabases(), 2, "stock_mysql_2") == first
    assert suite.run_stock(NoDatabases(), 2, "stock_mysql_2") == (first if kept else outcomes("c"))
    # Another selection of tests, and a run that takes nothing from an earlier one.
    runs[:] = [outcomes("d"), outcomes("e")]
    other, anew = Suite(tmp_path, ["other"], 1.0), Suite(tmp_path, ["label"], 1.0, anew=True)
    assert other.run_stock(NoDatabases(), 2, "stock_mysql_2") == outcomes("d")
    assert anew.run_stock(NoDatabases(), 2, "stock_mysql_2") == outcomes("e")


def test_a_test_that_fails_in_one_of_its_subtests_has_failed(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    lines = [("passed", "a", ""), ("failed", "b", ""), ("passed", "b", ""), ("skipped", "c", "no time")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = Outcomes.read(file, 1.0, True)
    assert (set(read.failed), set(read.ran), dict(read.skipped)) == ({"b"}, {"a", "b"}, {"c": "no time"})
