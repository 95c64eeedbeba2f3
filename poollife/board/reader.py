"""The board as a whole: all processes of this site on this host."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board import past
from poollife.board.folder import NoBoard, folder, is_own
from poollife.board.layout import HEADER
from poollife.board.page import page
from poollife.board.views import (
    Damaged,
    Holder,
    Process,
    Totals,
    changes_of,
    parse,
    totals_by_alias,
)

#: Seconds for which a read waits for another process that adds up the past: without it, what moves meanwhile
#: might count twice.
WAIT = 1.0
#: How often a file is read again that changes meanwhile, and the seconds between two times.
TRIES, PAUSE = 5, 0.001


@dataclass(frozen=True, slots=True)
class Board:
    """The processes of a site on this host, and what is known of those that have ended."""

    folder: str
    processes: list[Process]
    #: The counters by alias, with those of processes that have ended.
    totals: dict[str, Totals]
    #: Processes that ended with borrowed sessions, the latest last.
    deaths: list[dict[str, Any]]
    #: Files that could not be read, with the reason.
    unreadable: list[str]

    @property
    def holders(self) -> list[Holder]:
        """The borrowed sessions of all processes, the longest hold first."""
        holders = [holder for process in self.processes for holder in process.holders]
        return sorted(holders, key=lambda holder: -holder.held)


def read_board(where: Path | None = None) -> Board:
    """Return what the board says now. No process is asked, and no database.

    :param where: its folder; None: that of this site, for this user.
    :raises NoBoard: there is none: its text says why.
    """
    where = where or folder()
    if not where.exists():
        raise NoBoard(f"No process of this site and user has had a pool on this host: there is no {where}")
    if not is_own(where):
        return _read(where)
    with past.exclusively(where, WAIT) as alone:
        if alone:
            past.fold(where)
        return _read(where)


def _read(where: Path) -> Board:
    found, unreadable = _files(where)
    ended = past.read(where)
    totals = dict(ended.totals)
    by_process: dict[tuple[int, int], list[bytes]] = {}
    for memory in found:
        _, _, pid, _, token, _, _ = HEADER.unpack_from(memory)
        by_process.setdefault((pid, token), []).append(memory)
        for alias, numbers in totals_by_alias(memory):
            totals[alias] = totals.get(alias, Totals.none()).plus(numbers)
    now = clock.monotonic()
    processes = [parse(files, now) for files in by_process.values()]
    processes.sort(key=lambda process: (process.started, process.pid))
    return Board(str(where), processes, totals, ended.deaths, unreadable)


def _files(where: Path) -> tuple[list[bytes], list[str]]:
    found, unreadable = [bytes(memory) for memory in page.memories() if page.folder == where], []
    for file in past.files_of_others(where):
        try:
            found.append(_settled(file))
        except FileNotFoundError:
            pass  # folded meanwhile
        except (OSError, Damaged) as error:
            unreadable.append(f"{file.name}: {error}")
    return found, unreadable


def _settled(file: Path) -> bytes:
    """Return the content of a file at a moment when no numbers are being moved in it."""
    for _ in range(TRIES):
        memory = past.content(file)
        if changes_of(memory) % 2 == 0:
            break
        time.sleep(PAUSE)
    return memory
