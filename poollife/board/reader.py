"""The board as a whole: all processes of this site on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from poollife import clock
from poollife.board import layout, past
from poollife.board.folder import NoBoard, folder, is_own
from poollife.board.page import page
from poollife.board.views import Holder, Process, TimedOut, Totals, holds_sessions, parse
from poollife.process.atfork import at_fork

#: The time-outs that are shown to people, the latest ones.
TIMEOUTS_SHOWN = 20
#: Seconds for which a read waits for another process that adds up the past.
WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Board:
    """The processes of a site on this host, and what is known of those that have ended."""

    folder: str
    processes: list[Process]
    #: The counters by alias, with those of processes that have ended.
    totals: dict[str, Totals]
    #: Processes that ended with borrowed sessions, as they were then; the latest last.
    deaths: list[Process]
    #: Files that could not be read or written, with the reason.
    unreadable: list[str]

    @property
    def holders(self) -> list[Holder]:
        """The borrowed sessions of all processes, the longest hold first."""
        holders = [holder for process in self.processes for holder in process.holders]
        return sorted(holders, key=lambda holder: -holder.held)

    @property
    def timeouts(self) -> list[TimedOut]:
        """The last time-outs of the processes, and of those in ``deaths``, the latest first."""
        timeouts = [timeout for process in (*self.processes, *self.deaths) for timeout in process.timeouts]
        return sorted(timeouts, key=lambda timeout: -timeout.at)


def read_board(where: Path | None = None) -> Board:
    """Return what the board says now. No process is asked, and no database.

    :param where: its folder; None: that of this site, for this user.
    :raises NoBoard: there is none: its text says why.
    """
    at_fork.ensure_process()
    unreadable: list[str] = []
    if where is None:
        where = folder()
        _look(where, f"No process of this site and user has had a pool on this host: there is no {where}")
        # Not in a folder that was named by the caller: its files may be another program's.
        if is_own(where):
            with _noted(unreadable, where), past.exclusively(where, page.turn, WAIT) as alone:
                if alone:
                    past.fold(where, mine=page.names)
    else:
        _look(where, f"There is no {where}")
        is_own(where)
        if not any(past.files(where, suffix) for suffix in (past.SUFFIX, past.DEAD)):
            _look(where / past.NAME, f"{where} is not the folder of a site's board: it has no file of one")
    return _read(where, unreadable)


def _look(path: Path, error: str) -> None:
    """Refuse a path at which nothing is, or that this user may not look at."""
    try:
        path.lstat()
    except FileNotFoundError:
        raise NoBoard(error) from None
    except OSError as reason:
        raise NoBoard(str(reason)) from reason


def _read(where: Path, unreadable: list[str]) -> Board:
    """Read the folder, without a lock: others may add up the past meanwhile.

    The past is read last, and names the files that are in it.
    """
    living: dict[str, bytes] = {}
    if page.folder and page.folder.exists() and page.folder.samefile(where):
        living = {
            f"own {number}": past.settled(partial(bytes, memory))
            for number, memory in enumerate(page.memories())
        }
    ended: dict[str, bytes] = {}
    dead: dict[str, bytes] = {}
    for file in past.files(where, past.SUFFIX, page.names):
        with _noted(unreadable, file):
            found = living if past.is_alive(file) else ended
            found[file.name] = past.settled(partial(past.content, file))
    for file in past.files(where, past.DEAD):
        with _noted(unreadable, file):
            dead[file.name] = past.content(file)
    if (where / past.DAMAGED).exists():
        unreadable.append(f"{past.DAMAGED}: the counters of processes that have ended began anew")
    before = past.Past()
    with _noted(unreadable, where / past.NAME):
        before = past.read(where)
    totals = dict(before.totals)
    for name, memory in {**living, **ended}.items():
        if name not in before.folded:
            past.add_up(totals, memory)
    dead.update((name, memory) for name, memory in ended.items() if holds_sessions(memory))
    return Board(str(where), _processes(living.values()), totals, _processes(dead.values()), unreadable)


@contextlib.contextmanager
def _noted(unreadable: list[str], file: Path) -> Iterator[None]:
    """Have an error of the block noted as one of this file, unless others have removed it meanwhile."""

    def note(error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            unreadable.append(layout.text(layout.encoded(f"{file.name}: {error}")))

    with past.tolerated(note):
        yield


def _processes(files: Iterable[bytes]) -> list[Process]:
    by_process: dict[tuple[int, int], list[bytes]] = {}
    for memory in files:
        _, pid, _, token, _, _ = layout.HEADER.unpack_from(memory)
        by_process.setdefault((pid, token), []).append(memory)
    processes = [parse(found, clock.monotonic()) for found in by_process.values()]
    return sorted(processes, key=lambda process: (process.started, process.pid))
