"""Invariant 1 on SQLite: no child harms the database that its parent is writing to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.programs.running import WARNINGS

pytestmark = pytest.mark.slow

FORKS = 12


def fork_storm(database: Path, journal_mode: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the program; return its report and what it wrote to stderr."""
    done = subprocess.run(
        [
            sys.executable,
            *WARNINGS,
            ROOT / "tests/support/programs/sqlite_forks.py",
            database,
            journal_mode,
            str(FORKS),
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("journal_mode", ["DELETE", "WAL"])
def test_forks_during_write_transactions(tmp_path: Path, journal_mode: str) -> None:
    """Children exit normally, collect garbage, close and query while another thread writes."""
    report, errors = fork_storm(tmp_path / "forks.db", journal_mode)
    assert errors == ""
    # Forked in the parent's own transaction, one must be refused; others may find the file locked.
    assert report.pop("children_refused") == 1
    assert report.pop("children_queried") == report.pop("children_rows")
    assert report == {"integrity": "ok", "writes_lost": 0, "errors": [], "children_failed": 0}


def test_without_the_law(tmp_path: Path) -> None:
    """Django's own backend does not survive the same."""
    report, _ = fork_storm(tmp_path / "forks.db", "DELETE", "unguarded")
    assert (
        report["integrity"] != "ok" or report["writes_lost"] or report["errors"] or report["children_failed"]
    )
