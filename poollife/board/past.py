"""The counters of processes that have ended, in one file: sums never fall, and files never pile up.

A process that ended with borrowed sessions leaves its files as they were (``DEAD``), for people.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board import layout
from poollife.board.views import (
    COUNTERS,
    HISTOGRAMS,
    Damaged,
    Totals,
    changes_of,
    check,
    holds_sessions,
    totals_by_alias,
)

#: The ends of the names of a process's files: while it lives, when it has died, and while one is made.
SUFFIX, DEAD, UNFINISHED = ".board", ".dead", ".new"
NAME, LOCK = "past.json", "past.lock"
#: The version of what is in the file.
VERSION = 1
#: A past that could not be read, and was begun anew.
DAMAGED = "past.damaged"
#: The number of processes that died with borrowed sessions, whose files are kept.
MOST_DEATHS = 10
#: The most names of files that are remembered as added up, and the most aliases with sums of their own.
MOST_FOLDED, MOST_ALIASES = 100, 5_000
#: The most bytes that are read of the past.
MOST_BYTES = 1 << 24
#: Seconds after which a file that was not finished is one of a process that was killed.
UNFINISHED_FOR = 60.0
#: Seconds between two looks whether another process has left the folder.
INTERVAL = 0.005
#: How often a file is read again that changes meanwhile, and the seconds between two times: longer together
#: than a thread waits for Python's lock.
TRIES, PAUSE = 50, 0.002

_NAMES = re.compile(r"\d+-[0-9a-f]{16}-\d+(\.board|\.dead|\.board\.new)")


@dataclass(frozen=True, slots=True)
class Past:
    """The counters of processes that have ended, by alias."""

    totals: dict[str, Totals] = field(default_factory=dict)
    #: The names of files that are in them, maybe there still: the latest last.
    folded: list[str] = field(default_factory=list)


@contextlib.contextmanager
def tolerated(note: Callable[[Exception], object]) -> Iterator[None]:
    """Note an error of a file: of its content, or of the system.

    All other exceptions pass. An exception that comes from outside, such as a time limit's, has to reach the
    code that has set the limit: also ``TimeoutError``, which is an ``OSError``, but has no number then.

    :param note: takes the error.
    """
    try:
        yield
    except Damaged as error:
        note(error)
    except OSError as error:
        if error.errno is None:
            raise
        note(error)


@contextlib.contextmanager
def exclusively(folder: Path, turn: threading.Lock, wait: float) -> Iterator[bool]:
    """Have the folder to oneself, for a block that moves counters.

    :param turn: the lock for the threads of this process. A record lock is none for them, and the first of
        them that closes the file gives it up for all.
    :param wait: the longest wait in seconds for others.
    :returns: False if another one has it still; the block runs nevertheless.
    """
    deadline = clock.monotonic() + wait
    if not turn.acquire(timeout=wait):
        yield False
        return
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            yield _lock(descriptor, deadline)
        finally:
            os.close(descriptor)
    finally:
        turn.release()


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


def fold(folder: Path, mine: Collection[str]) -> None:
    """Add the counters of processes that have ended to the past, and remove their files.

    The caller has the folder to itself (``exclusively()``).

    :param mine: the names of the files of this process.
    :raises OSError: that can't be written; nothing is lost.
    """
    try:
        past = read(folder)
    except Damaged:
        (folder / NAME).rename(folder / DAMAGED)  # readers say so
        past = Past()
    # The process that has added these up ended before it had removed the files.
    _remove(folder, past.folded)
    totals, names = dict(past.totals), []
    for file in files(folder, SUFFIX, mine):
        with tolerated(lambda _: None):  # readers say so
            if is_alive(file):
                continue
            try:
                add_up(totals, content(file), MOST_ALIASES)
                names.append(file.name)
            except Damaged:
                file.unlink()
    if names:
        _write(folder, Past(totals, [*past.folded, *names][-max(MOST_FOLDED, len(names)) :]))
        _remove(folder, names)
    _tidy(folder)


def add_up(totals: dict[str, Totals], memory: bytes, most: float = math.inf) -> None:
    """Add the counters of a file to sums.

    :param totals: the sums by alias.
    :param memory: the content of the file.
    :param most: the most aliases that have sums of their own.
    """
    for alias, numbers in totals_by_alias(memory):
        name = alias if alias in totals or len(totals) < most else layout.OTHERS
        totals[name] = totals.get(name, Totals.none()).plus(numbers)


def read(folder: Path) -> Past:
    """Return the past.

    :raises Damaged: the file has something else in it.
    :raises OSError: it can't be read.
    """
    try:
        kept = json.loads(content_of(folder / NAME, MOST_BYTES))
        if kept["version"] != VERSION:
            raise ValueError(f"version {kept['version']!r}")
        totals = {layout.text(layout.encoded(alias)): _totals(each) for alias, each in kept["totals"].items()}
        names = [str(name) for name in kept["folded"]]
    except FileNotFoundError:
        return Past()
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError, OverflowError) as error:
        raise Damaged(f"it is none of the board's, or of another version: {error!r}") from error
    return Past(totals, [name for name in names if _NAMES.fullmatch(name) and name.endswith(SUFFIX)])


def files(folder: Path, suffix: str, mine: Collection[str] = ()) -> list[Path]:
    """Return the files of other processes.

    To a process its own locks are no locks, and to close a file again gives them up.

    :param suffix: the end of their names.
    :param mine: the names of the files of this process.
    """
    found = sorted(folder.glob(f"*{suffix}"))
    return [file for file in found if file.name not in mine and _NAMES.fullmatch(file.name)]


def content(file: Path) -> bytes:
    """Return the content of a file of the board, which must not be one of this process.

    :raises Damaged: it is none of the board's.
    :raises OSError: it can't be read.
    """
    memory = content_of(file, layout.SIZE + 1)
    check(memory)
    return memory


def settled(read: Callable[[], bytes]) -> bytes:
    """Return the content of a file at a moment when no numbers are being moved in it.

    :param read: returns its content.
    """
    for _ in range(TRIES):
        memory = read()
        changes = changes_of(memory)
        if changes % 2 == 0 and changes == changes_of(read()):
            break
        time.sleep(PAUSE)
    return memory


def is_alive(file: Path) -> bool:
    """Return whether the process of a file lives: it has a lock. Never for a file of this process."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
    except (BlockingIOError, PermissionError):  # either is how a system says that it is locked
        return True
    finally:
        os.close(descriptor)
    return False


def content_of(file: Path, most: int) -> bytes:
    """Return so many bytes of a file, at most.

    :raises OSError: it can't be read.
    """
    # Root may read the folder of a user who has put a link or a pipe there.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _totals(kept: Any) -> Totals:
    histograms = {}
    for name in HISTOGRAMS:
        counts, seconds = kept["histograms"][name]
        if len(counts) != layout.BUCKETS or not math.isfinite(seconds):
            raise ValueError(name)
        histograms[name] = ([_number(count) for count in counts], float(seconds))
    return Totals({name: _number(kept["counters"][name]) for name in COUNTERS}, histograms)


def _number(kept: Any) -> int:
    if type(kept) is not int or not 0 <= kept <= layout.MOST:
        raise ValueError(f"{kept!r} is not a number of events")
    return kept


def _write(folder: Path, past: Past) -> None:
    new = folder / f"{NAME}{UNFINISHED}"
    new.unlink(missing_ok=True)
    with new.open("x") as file:
        file.write(json.dumps({"version": VERSION, **asdict(past)}))
    new.rename(folder / NAME)


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of processes that have ended; keep them if they ended with borrowed sessions."""
    by_process: dict[str, list[Path]] = {}
    there = {file.name: file for file in files(folder, SUFFIX)}
    for name in there.keys() & set(names):
        by_process.setdefault(name.rpartition("-")[0], []).append(there[name])
    for files_of_process in by_process.values():
        died = any(_held(file) for file in files_of_process)
        for file in files_of_process:
            if died:
                file.rename(file.with_suffix(DEAD))
            else:
                file.unlink()


def _held(file: Path) -> bool:
    try:
        return holds_sessions(content(file))
    except Damaged:
        return False


def _tidy(folder: Path) -> None:
    """Remove the oldest files of processes that died, and what a process that was killed left unfinished."""
    for file in files(folder, UNFINISHED):
        with tolerated(lambda _: None):  # it was finished meanwhile
            if clock.wall() - file.lstat().st_mtime > UNFINISHED_FOR:
                file.unlink()
    dead: dict[str, list[Path]] = {}
    for file in sorted(files(folder, DEAD), key=lambda file: file.lstat().st_ctime):
        dead.setdefault(file.name.rpartition("-")[0], []).append(file)
    for files_of_process in list(dead.values())[:-MOST_DEATHS]:
        for file in files_of_process:
            file.unlink()
