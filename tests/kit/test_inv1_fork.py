"""Invariant 1 with each driver: a session belongs to the process that opened it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from django.db import connections

from tests.kit.conftest import Bed
from tests.support import ROOT

pytestmark = pytest.mark.slow


def test_no_child_harms_its_parent_whatever_either_is_doing(bed: Bed) -> None:
    """Each state of the parent with each deed of the child, which then ends normally."""
    settings = connections.settings[bed.alias]
    keys = "ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "POOL", *bed.backend.entry
    entry: dict[str, Any] = {key: settings[key] for key in keys if key in settings}
    entries = {
        via: {**entry, **(bed.server.database(settings["NAME"], via=via) if bed.server else {})}
        for via in bed.backend.vias
    }
    # What this process was told to do without, it does without, too.
    modules: dict[str, Any] = dict(sys.modules)
    missing = [name for name, module in modules.items() if module is None and "." not in name]
    arguments = map(json.dumps, (entries, str(bed.backend), missing))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kit.forks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["harmed"] == [], done.stderr
    assert answer["cases"] >= 20 * len(entries)
