"""The demo holds every invariant, on each database, and says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.servers]


@pytest.mark.parametrize("database", ["mysql", "postgresql", "sqlite"])
def test_the_demo_keeps_every_promise(database: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--once", "--requests", "150"],
        cwd=ROOT,
        env={**os.environ, "DB": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "Every guarantee held" in done.stdout
    assert "Traceback" not in done.stdout
