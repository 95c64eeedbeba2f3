"""Invariant 8 with each driver: tests never touch the real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from tests.kit.backends import ask, do
from tests.kit.conftest import Bed


def test_session_from_before_the_test_database_is_not_lent_in_it(
    bed: Bed, thread: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = connections[bed.alias]
    real, test = connection.settings_dict["NAME"], connection.settings_dict["TEST"]
    monkeypatch.setitem(settings.DATABASES, bed.alias, connections.settings[bed.alias])
    if bed.backend.server is None:
        monkeypatch.setitem(test, "NAME", str(tmp_path / "tests"))
    thread(do, bed.alias, "SELECT 1")
    do(bed.alias, "SELECT 1")
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        for run in thread, lambda work, *args: work(*args):
            run(do, bed.alias, "CREATE TABLE IF NOT EXISTS kit (id INT)")
            assert run(ask, bed.alias, "SELECT COUNT(*) FROM kit") == 0
        thread(connections.close_all)
    finally:
        connection.creation.destroy_test_db(real, verbosity=0)
    assert thread(ask, bed.alias, "SELECT COUNT(*) FROM kit") == 1
    assert ask(bed.alias, "SELECT COUNT(*) FROM kit") == 1
    connection.close()
