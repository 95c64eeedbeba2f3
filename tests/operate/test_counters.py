"""Counters of the board never fall, not even during a checkout: Prometheus would see a restart."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from poollife.board import layout
from poollife.board.reader import read_board
from poollife.board.views import Totals
from tests.conftest import MakeAlias
from tests.support.counting import pool_of


def test_no_bucket_falls_between_a_duration_and_its_checkout() -> None:
    """A reader may come after any store: durations are stored ahead of the checkouts that they belong to."""
    cells = layout.Cells()
    cells.counters[layout.LENT], cells.counters[layout.PINGED] = 5, 2
    before = Totals.of(cells).histograms["wait_time"][0]
    cells.counters[layout.WAIT_TIME + 4] += 1
    between = Totals.of(cells).histograms["wait_time"][0]
    cells.counters[layout.TICKETED] += 1
    after = Totals.of(cells)
    assert before == [7, *[0] * 9]
    assert between == after.histograms["wait_time"][0] == [7, 0, 0, 0, 1, *[0] * 5]
    assert after.counters["checkouts"] == 8


def test_checkout_that_pings_is_counted_when_it_is_over(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it was counted ahead of the ping as well, and not any more during the ping: a counter fell."""
    alias = make_alias(POOL={"pre_ping": True})
    connections[alias].ensure_connection()
    connections[alias].close()
    pool = pool_of(alias)
    slots: Any = pool._slots
    seen: list[int] = []
    hand_to_ticket = slots.hand_to_ticket

    def note(*arguments: Any) -> None:
        seen.append(pool.checkouts)
        hand_to_ticket(*arguments)
        seen.append(pool.checkouts)

    monkeypatch.setattr(slots, "hand_to_ticket", note)
    connections[alias].ensure_connection()
    assert (seen, pool.checkouts) == ([1, 1], 2)
    totals = read_board().totals[alias]
    # One has opened a session. The other one has only pinged it, and has no duration.
    assert sum(totals.histograms["wait_time"][0]) == totals.counters["checkouts"] == 2
    assert pool.counters[layout.PINGED] == 1
