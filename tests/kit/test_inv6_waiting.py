"""Invariant 6 with each driver: waiting ends, with an answer that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from poollife import auto_close_db
from poollife.errors import PoolTimeout
from tests.kit.backends import do
from tests.kit.conftest import Bed


def test_exhausted_pool_names_its_borrowers(bed: Bed, thread: Callable[..., Any]) -> None:
    alias = bed.make(pool_size=1, timeout=0.1)
    with auto_close_db():
        do(alias, "SELECT 1")
        with pytest.raises(PoolTimeout, match="all 1 are out"):
            thread(do, alias, "SELECT 1")
