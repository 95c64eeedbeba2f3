"""The likeliest cause, as the status page names it, and what is remembered for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poollife.board.layout import CONNECT_ERRORS, Cells
from poollife.board.views import Holder, Pool, Totals
from poollife.status_page.causes import duration, likeliest_cause
from poollife.status_page.recent import KEPT, Looks, Recent
from poollife.status_page.summary import bar

POOL = Pool("default", "db:3306", "shop", 4, 4, 4, 0, 0, 0, False, 0, Totals.none(), [])
HOLDER = Holder("default", "db:3306", "shop", 7, "GET /orders/4711/", "worker", 0.1, 0.0, 1)
IDLE = replace(POOL, out=0)
FULL = replace(POOL, waiting=3, max_waiting=3)


def failed(number: int) -> Totals:
    cells = Cells()
    cells.counters[CONNECT_ERRORS] = number
    return Totals.of(cells)


def held(*seconds: float, work: str = HOLDER.work) -> list[Holder]:
    return [replace(HOLDER, held=each, work=work) for each in sorted(seconds, reverse=True)]


DOWN = replace(IDLE, sessions=0)
FAILED = replace(DOWN, totals=failed(2))


@pytest.mark.parametrize(
    ("pools", "holders", "recent", "level", "word", "text"),
    [
        ([IDLE], [], None, "good", "quiet", "No checkout waits."),
        ([replace(POOL, out=1)], held(1), Recent(9, 0, 0), "good", "in use", "No checkout waits."),
        ([POOL, IDLE], held(1), None, "busy", "all out", "All connections are out in 1 of 2 processes."),
        ([replace(POOL, out=1)], held(31), None, "busy", "held long", "GET /orders/*/ has held a connection"),
        ([IDLE], [], Recent(50, 2, 0), "busy", "timed out", "2 checkouts waited in vain in the last 50 s."),
        ([FULL], held(5, 5, 5, 0.1), None, "bad", "dry", "GET /orders/*/ has 3 of 4, for up to 5.0 s"),
        ([FULL], held(5, 0.1, 0.1, 0.1), None, "bad", "dry", "GET /orders/*/ has one of 4"),
        ([FULL], held(0.1, 0.1, 0.1, 0.1), None, "bad", "dry", "More work at once than connections"),
        ([FULL, IDLE], held(0.1), None, "bad", "dry", "all connections are out in 1 of 2 processes"),
        ([FULL], held(5, work=""), None, "bad", "dry", "thread worker has one of 1"),
        ([replace(FULL, out=1)], held(5), None, "busy", "opening", "the database is slow to open them"),
        ([replace(FULL, limit=None)], held(5), None, "busy", "opening", "3 checkouts wait"),
        ([replace(FULL, suspended=True)], [], None, "bad", "suspended", "3 checkouts wait until"),
        ([replace(IDLE, suspended=True)], [], None, "busy", "suspended", "0 checkouts wait until"),
        ([DOWN], [], Recent(9, 0, 3), "bad", "no server", "Connecting failed 3 times"),
        ([FULL], held(5), Recent(9, 1, 1), "bad", "can't open", "Connecting failed once in the last 9.0 s"),
        ([FAILED], [], None, "busy", "none open", "failed before (2 times)"),
        ([FAILED], [], Recent(9, 0, 0), "good", "quiet", "No checkout waits."),
        ([replace(IDLE, totals=failed(2))], [], None, "good", "quiet", "No checkout waits."),
    ],
)  # fmt: skip
def test_likeliest_cause(pools, holders, recent, level, word, text) -> None:
    cause = likeliest_cause(pools, holders, recent)
    assert (cause.level, cause.word) == (level, word)
    assert text in cause.text


def counters(opened: int = 0, timeouts: int = 0, connect_errors: int = 0) -> dict[str, int]:
    return {"opened": opened, "timeouts": timeouts, "connect_errors": connect_errors}


def test_growth_is_since_the_oldest_look_of_the_last_minute() -> None:
    looks = Looks()
    assert looks.compare({"default": counters()}, 100.0) == {}
    assert looks.compare({"default": counters(timeouts=1)}, 110.0)["default"] == Recent(10.0, 1, 0)
    assert looks.compare({"default": counters(timeouts=3)}, 105.0 + KEPT)["default"] == Recent(55.0, 2, 0)
    assert looks.compare({"default": counters(timeouts=9)}, 500.0) == {}


def test_failures_are_those_since_a_connection_was_opened() -> None:
    looks = Looks()
    looks.compare({"default": counters(opened=1)}, 100.0)
    looks.compare({"default": counters(opened=3, connect_errors=4)}, 110.0)
    failing = looks.compare({"default": counters(opened=3, connect_errors=9)}, 120.0)
    assert failing["default"].failures == 5
    opened = looks.compare({"default": counters(opened=4, connect_errors=9)}, 130.0)
    assert opened["default"].failures == 0


def test_alias_that_is_new_or_gone_has_no_growth() -> None:
    looks = Looks()
    looks.compare({"gone": counters()}, 100.0)
    assert looks.compare({"new": counters()}, 110.0) == {}


def test_many_requests_leave_few_looks() -> None:
    looks = Looks()
    for step in range(1000):
        looks.compare({"default": counters()}, 100.0 + step / 1000)
    assert len(looks._seen) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.99, "9.9 s"), (119.9, "119 s"), (7199, "119 min"), (7200, "2 h"), (2e5, "2 d")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bar_shows_those_that_wait_beyond_the_limit() -> None:
    assert bar(3, 1, 6, 2) == {
        "out": [0, 37.5],
        "idle": [37.5, 12.5],
        "room": [0, 75.0],
        "waiting": [75.0, 25.0],
    }
    assert bar(3, 1, None, 0)["room"] == [0, 100.0]
    assert bar(0, 0, None, 0)["waiting"] == [0.0, 0.0]
