"""The content of the status page, as numbers and short texts that JSON can carry."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board.folder import NoBoard
from poollife.board.reader import TIMEOUTS_SHOWN, Board, read_board
from poollife.board.views import Holder, Pool, Process, Totals
from poollife.status_page.causes import likeliest_cause
from poollife.status_page.recent import Looks, Recent

looks = Looks()


def summary() -> dict[str, Any]:
    """Return what the page shows. No process is asked, and no database."""
    found: dict[str, Any] = {
        "at": clock.wall(),
        "host": socket.gethostname(),
        "folder": None,
        "site": None,
        "no_board": None,
        "aliases": [],
        "processes": [],
        "holders": [],
        "timeouts": [],
        "deaths": [],
        "unreadable": [],
    }
    try:
        board = read_board()
    except NoBoard as error:
        return {**found, "no_board": str(error)}
    counters = {alias: totals.counters for alias, totals in board.totals.items()}
    recent = looks.compare(counters, clock.monotonic())
    return {
        **found,
        "folder": board.folder,
        "site": Path(board.folder).name,
        "aliases": [_alias(alias, board, recent.get(alias)) for alias in _aliases(board.processes)],
        "processes": [
            _row(process, pool, found["at"]) for process in board.processes for pool in process.pools
        ],
        "holders": [_holder(holder) for holder in board.holders],
        "timeouts": [
            {**asdict(timeout), "ago": max(0.0, found["at"] - timeout.at)}
            for timeout in board.timeouts[:TIMEOUTS_SHOWN]
        ],
        "deaths": [
            {**_holder(holder), "command": death.command}
            for death in reversed(board.deaths)
            for holder in death.holders
        ],
        "unreadable": board.unreadable,
    }


def bar(out: int, idle: int, limit: int | None, waiting: int) -> dict[str, Any]:
    """Return the places of a bar's parts, in percent: the start and the width of each.

    The checkouts that wait stand beyond the limit: that is where they would like to be.
    """
    full = max(limit or 0, out + idle)
    percent = 100 / max(1, full + waiting)
    return {
        "out": [0.0, round(out * percent, 2)],
        "idle": [round(out * percent, 2), round(idle * percent, 2)],
        "room": [0.0, round(full * percent, 2)],
        "waiting": [round(full * percent, 2), round(waiting * percent, 2)],
    }


def _aliases(processes: Iterable[Process]) -> list[str]:
    return sorted({pool.alias for process in processes for pool in process.pools})


def _alias(alias: str, board: Board, recent: Recent | None) -> dict[str, Any]:
    pools = [pool for process in board.processes for pool in process.pools if pool.alias == alias]
    holders = [holder for holder in board.holders if holder.alias == alias]
    out, idle = sum(pool.out for pool in pools), sum(pool.idle for pool in pools)
    limits = [pool.limit for pool in pools if pool.limit is not None]
    limit = sum(limits) if len(limits) == len(pools) else None
    waiting = sum(pool.waiting for pool in pools)
    cause = likeliest_cause(pools, holders, recent)
    counters = board.totals.get(alias, Totals.none()).counters
    return {
        "alias": alias,
        "places": sorted({" · ".join(filter(None, (pool.server, pool.database))) for pool in pools}),
        "level": cause.level,
        "word": cause.word,
        "cause": cause.text,
        "out": out,
        "idle": idle,
        "limit": limit,
        "waiting": waiting,
        "max_waiting": max(pool.max_waiting for pool in pools),
        "bar": bar(out, idle, limit, waiting),
        **counters,
        # The growth in the last minute; None: this process was not asked in that time.
        "recent": asdict(recent) if recent else None,
    }


def _row(process: Process, pool: Pool, now: float) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "command": process.command,
        "age": max(0.0, now - process.started),
        "alias": pool.alias,
        "place": " · ".join(filter(None, (pool.server, pool.database))),
        "out": pool.out,
        "idle": pool.idle,
        "limit": pool.limit,
        "waiting": pool.waiting,
        "max_waiting": pool.max_waiting,
        "timeouts": pool.totals.counters["timeouts"],
        "connect_errors": pool.totals.counters["connect_errors"],
        "suspended": pool.suspended,
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "held": holder.held,
        "alias": holder.alias,
        "work": holder.work or None,
        "session": holder.session,
        "thread": holder.thread,
        "pid": holder.pid,
    }
