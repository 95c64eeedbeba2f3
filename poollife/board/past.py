"""The counters of processes that have ended, in one file: sums never fall, and files never pile up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board import layout
from poollife.board.layout import Cells
from poollife.board.views import COUNTERS, HISTOGRAMS, Damaged, Totals, check, parse, totals_by_alias

#: The end of the name of a process's file.
SUFFIX = ".board"
NAME, LOCK = "past.json", "past.lock"
#: The number of processes that died with borrowed sessions, of which the board keeps the last words.
MOST_DEATHS = 10

#: The most bytes that are read of the past.
MOST_BYTES = 1 << 24
#: Seconds between two looks whether another process has left the folder.
INTERVAL = 0.005

_threads = threading.RLock()


@dataclass(frozen=True, slots=True)
class Past:
    """The counters and last words of processes that have ended."""

    totals: dict[str, Totals]
    #: Processes that ended with borrowed sessions, as they were then; the last is the latest.
    deaths: list[dict[str, Any]]


def add(to: Cells, ended: Cells) -> None:
    """Add the counters of a pool that has ended to those of another one of its alias, which has ended too."""
    for place in range(layout.OPENED, layout.WAITING):
        to.counters[place] += ended.counters[place]
    for place in range(layout.WAIT_TIME, layout.USE_TIME + layout.BUCKETS):
        to.counters[place] += ended.counters[place]
    for place in range(len(HISTOGRAMS)):
        to.sums[place] += ended.sums[place]


@contextlib.contextmanager
def exclusively(folder: Path, wait: float) -> Iterator[bool]:
    """Have the folder to oneself, for a block that moves counters or reads them all.

    :param wait: the longest wait in seconds for others.
    :returns: False if another one has it still; the block runs nevertheless.
    """
    deadline = clock.monotonic() + wait
    # A record lock is no lock to the other threads of its process.
    alone = _threads.acquire(timeout=wait)
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            yield alone and _lock(descriptor, deadline)
        finally:
            os.close(descriptor)
    finally:
        if alone:
            _threads.release()


def _lock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            if clock.monotonic() >= deadline:
                return False
            time.sleep(INTERVAL)
        else:
            return True


def fold(folder: Path) -> None:
    """Add the counters of processes that have ended to the past, and remove their files.

    The caller has the folder to itself (``exclusively()``).
    """
    past, folded = _read(folder)
    # Their counters are in the past already: whoever wrote that ended before the files were gone.
    for name in folded:
        (folder / name).unlink(missing_ok=True)
    dead: dict[tuple[int, int], list[tuple[Path, bytes]]] = {}
    for file in files_of_others(folder):
        with contextlib.suppress(OSError, Damaged):
            if not is_alive(file):
                memory = content(file)
                _, _, pid, _, token, _, _ = layout.HEADER.unpack_from(memory)
                dead.setdefault((pid, token), []).append((file, memory))
    if not dead:
        return
    totals, deaths = dict(past.totals), list(past.deaths)
    for files in dead.values():
        memories = [memory for _, memory in files]
        process = parse(memories, clock.monotonic())
        if process.holders:
            deaths.append(asdict(process))
        for alias, numbers in (each for memory in memories for each in totals_by_alias(memory)):
            totals[alias] = totals.get(alias, Totals.none()).plus(numbers)
    names = [file.name for files in dead.values() for file, _ in files]
    _write(folder, Past(totals, deaths[-MOST_DEATHS:]), names)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def read(folder: Path) -> Past:
    """Return the past. A file that is damaged counts as empty."""
    return _read(folder)[0]


def files_of_others(folder: Path) -> list[Path]:
    """Return the files of other processes.

    To a process its own locks are no locks, and to close a file again gives them up. (A file that an earlier
    process with this pid has left is found by the next process.)
    """
    mine = f"{os.getpid()}-"
    return [file for file in sorted(folder.glob(f"*{SUFFIX}")) if not file.name.startswith(mine)]


def content(file: Path) -> bytes:
    """Return the content of a file of the board, which must not be one of this process.

    :raises Damaged: it is none of the board's.
    :raises OSError: it can't be read.
    """
    memory = _content(file, layout.SIZE + 1)
    check(memory)
    return memory


def _content(file: Path, most: int) -> bytes:
    # Root may read the folder of a user who has put a link or a pipe there.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def is_alive(file: Path) -> bool:
    """Return whether the process of a file lives: it has a lock. Never for a file of this process."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(folder: Path) -> tuple[Past, list[str]]:
    try:
        kept = json.loads(_content(folder / NAME, MOST_BYTES))
        totals = {
            str(alias): Totals(
                {name: int(each["counters"][name]) for name in COUNTERS},
                {
                    name: ([int(count) for count in each["histograms"][name][0]], each["histograms"][name][1])
                    for name in HISTOGRAMS
                },
            )
            for alias, each in kept["totals"].items()
        }
        folded = [name for name in kept["folded"] if name == Path(name).name and name.endswith(SUFFIX)]
        return Past(totals, [dict(death) for death in kept["deaths"]]), folded
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Past({}, []), []


def _write(folder: Path, past: Past, folded: list[str]) -> None:
    new = folder / f"{NAME}.new"
    new.unlink(missing_ok=True)
    with new.open("x") as file:
        file.write(json.dumps({**asdict(past), "folded": folded}))
    new.rename(folder / NAME)
