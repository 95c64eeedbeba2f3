"""Invariant 5 with each driver: a warm checkout sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from poollife import auto_close_db
from tests.kit.backends import SERVED, do
from tests.kit.conftest import Bed, Counted


def test_same_session_serves_the_next_borrower(bed: Bed) -> None:
    sessions = set()
    with auto_close_db():
        do(bed.alias, "SELECT 1")
    opened = bed.pool.opened
    for _ in range(10):
        with auto_close_db():
            do(bed.alias, "SELECT 1")
            sessions.add(bed.session())
    assert len(sessions) == 1
    assert bed.pool.opened == opened


@pytest.mark.parametrize("backend", SERVED, ids=str)
def test_warm_checkout_sends_nothing(counted: Counted) -> None:
    alias, count = counted

    def work() -> None:
        for _ in range(10):
            do(alias, "SELECT name FROM kit WHERE id = 1")
            connections[alias].close()

    assert count(work) == 10


@pytest.mark.parametrize("backend", SERVED, ids=str)
def test_warm_checkout_in_another_thread_sends_nothing(counted: Counted, thread: Callable[..., Any]) -> None:
    """The thread lives on: it returns the session after each statement."""
    alias, count = counted
    assert count(lambda: [thread(do, alias, "SELECT 1") for _ in range(3)]) == 3
