"""The part of the board that this process writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board import layout, past
from poollife.board.folder import NoBoard, SwitchedOff, prepared
from poollife.board.layout import Cells, encoded
from poollife.board.orders import number_in
from poollife.process.atfork import at_fork
from poollife.process.guard import alive, process

#: The most files of one process: beyond them, its pools are counted but not shown.
MOST_FILES = 128
#: Seconds after which a process tries again to make a file, where that was not possible.
RETRY_INTERVAL = 60.0


class Row:
    """The row of one session: which lease has it. Only the driver connection refers to it.

    Synchronization: the thread that has the lease writes, and no lock is taken. An exception that comes from
    outside in the middle of a method may cost the row, which then stays empty.
    """

    __slots__ = ("_free", "_pid", "_view", "held", "show")

    # The destructor needs these on the class: at interpreter exit module globals are gone.
    _alive, _process, _zeros = alive, process, bytes(16)

    def __init__(self, free: list[memoryview], pool: int, session_id: int | None, born: float) -> None:
        """Take a row.

        :param free: the rows without a session.
        :param pool: the number of the session's pool.
        :param session_id: the session's number at the server; None: it has none.
        :param born: when it was opened, in seconds on the monotonic clock.
        :raises IndexError: there is no row left.
        """
        self._pid = process.pid
        self._view = view = free.pop()
        self._use(view)
        self._free: list[memoryview] | None = free
        layout.ROW.pack_into(view, 0, pool, session_id or 0, born, 0, 0.0, b"", b"")

    def _use(self, view: memoryview) -> None:
        #: Write the borrower of the session: its checkout (in seconds on the monotonic clock), the name of
        #: the request, task or block (empty: the thread itself borrowed), and that of the thread. A reader
        #: may see a part of it. Each checkout calls this, so it is the function of ``struct`` itself.
        self.show: Callable[[float, bytes, bytes], None] = partial(
            layout.HOLDER.pack_into, view, layout.HOLDER_AT, 1
        )
        #: One number: whether a borrower has the session. A return sets it to 0.
        self.held: Any = view[layout.HOLDER_AT : layout.HOLDER_AT + 8].cast("Q")

    def free(self) -> None:
        """Empty the row: its session is closed. Does nothing on a second call, and in a child."""
        free, self._free = self._free, None
        if free is None or not self._alive[0] or self._pid != self._process.pid:
            return
        # A return that was interrupted may still write, when another session has the row.
        self._use(memoryview(bytearray(layout.ROW_SIZE)))
        self._view[:16] = self._zeros
        free.append(self._view)

    def __del__(self) -> None:
        free: list[memoryview] | None = getattr(self, "_free", None)  # __init__() may not have been completed
        # In a child, the memory is the parent's.
        if free is not None and self._alive[0] and self._pid == self._process.pid:
            self._view[:16] = self._zeros
            free.append(self._view)


class File:
    """A file of this process, in memory, with its lock.

    The lock is a POSIX record lock: it ends with the process, and children don't inherit it. It would also
    end if this process closed any other descriptor of the same file: so nothing here opens it again.
    """

    def __init__(self, folder: Path, name: str, token: int) -> None:
        """Make the file.

        :param name: of the file, in this folder.
        :param token: of the process.
        :raises OSError: it can't be made, or there is no memory for it.
        """
        made = folder / f"{name}{past.UNFINISHED}"
        self._descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            # A store into a file with a hole would kill the process where the memory has run out.
            if os.write(self._descriptor, bytes(layout.SIZE)) != layout.SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.memory = mmap.mmap(self._descriptor, layout.SIZE)
            layout.HEADER.pack_into(
                *(self.memory, 0, layout.MAGIC, os.getpid(), clock.wall(), token, 0),
                encoded(command()),
            )
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            made.rename(folder / name)
        except BaseException:
            os.close(self._descriptor)
            made.unlink(missing_ok=True)
            raise
        self._identity = _identity(os.fstat(self._descriptor))
        view = memoryview(self.memory)
        self._changes: Any = view[layout.CHANGES_AT : layout.CHANGES_AT + 8].cast("Q")
        self.places = [
            view[at : at + layout.PLACE_SIZE]
            for at in range(layout.PLACES_AT, layout.ROWS_AT, layout.PLACE_SIZE)
        ]
        #: The rows without a session. Taking one and putting one back are single operations.
        self.rows = [
            view[at : at + layout.ROW_SIZE]
            for at in range(layout.ROWS_AT, layout.TIMEOUTS_AT, layout.ROW_SIZE)
        ]
        self._timeout_numbers = itertools.count(1)
        #: The pools with a place, referred to weakly, their aliases and their places.
        self.pools: list[tuple[weakref.ref[Any], str, memoryview]] = []
        #: The places of pools that have ended, by alias: their counters go on to count.
        self.ended: dict[str, memoryview] = {}

    @property
    def lost(self) -> str | None:
        """The reason why no reader takes this file for one of a living process; None: readers do."""
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            status = None
        if status is None or _identity(status) != self._identity:
            return "it has closed a descriptor that is not its own, and with it the lock of its file"
        if status.st_nlink == 0:
            return (
                "its file was deleted. systemd does that (RemoveIPC=yes) when the last login of the site's "
                "user ends: set POOLLIFE_RUN_DIR to another folder"
            )
        return None

    def note_timeout(self, alias: str, waited: float, work: str, cause: str) -> None:
        """Keep a time-out in the place of the oldest one.

        :param waited: seconds.
        :param work: the work that waited.
        :param cause: the likeliest.
        """
        number = next(self._timeout_numbers)
        at = layout.TIMEOUTS_AT + number % layout.TIMEOUTS_KEPT * layout.TIMEOUT_SIZE
        texts = encoded(alias), encoded(work), encoded(cause)
        layout.TIMEOUT.pack_into(self.memory, at, number, clock.wall(), waited, *texts)

    def move(self, place: memoryview, to: memoryview) -> memoryview:
        """Add the counters in one place to those in another one; return the first, which is empty then."""
        self._changes[0] += 1  # readers look again
        try:
            Cells(to).add(Cells(place))
            place[:8] = bytes(8)
        finally:
            self._changes[0] += 1
        return place

    def give_up_alias(self) -> memoryview | None:
        """Return the place of an alias whose pools have all ended: ``OTHERS`` has its counters then."""
        for alias in self.ended.copy():
            if alias != layout.OTHERS and (view := self.ended.pop(alias, None)) is not None:
                others = self.ended.setdefault(layout.OTHERS, view)
                if others is not view:
                    return self.move(view, others)
                view[8:72] = encoded(layout.OTHERS).ljust(64, b"\0")
        return None

    def leave(self) -> None:
        """Close the descriptor in a child: it is the parent's, and the child has none of its locks."""
        # A program that became a daemon may have closed all its descriptors, and have used the number again.
        with contextlib.suppress(OSError):
            if _identity(os.fstat(self._descriptor)) == self._identity:
                os.close(self._descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def command() -> str:
    """Return the name of the program, and that of Django's command: other arguments may be secrets."""
    arguments = sys.argv or [""]
    program = Path(arguments[0])
    if program.name == "__main__.py":  # python -m
        program = program.parent
    name, first = program.name or "python", "".join(arguments[1:2])
    has_command = name in ("manage.py", "django-admin", "django") and re.fullmatch(r"[a-z_]{1,40}", first)
    return f"{name} {first}" if has_command else name


class Page:
    """The files of this process. A child makes new ones.

    Nothing here fails: what can't be written is not shown, and ``missing`` says why.

    Synchronization: each collection is changed by single operations. The lock is for the making of a file. It
    is reentrant, as a signal handler may query meanwhile: that makes a second file.
    """

    def __init__(self) -> None:
        self._files: list[File] = []
        #: The names of these files, and of one that is being made.
        self.names: set[str] = set()
        self._pool_numbers = itertools.count(1)
        #: Tells this process from an earlier one with the same pid, and from one in another container.
        self.token = int.from_bytes(os.urandom(8), sys.byteorder)
        self._file_numbers = itertools.count()
        self._making = threading.RLock()
        #: Have the folder to itself: one thread, see ``past.exclusively()``.
        self.turn = threading.Lock()
        #: The folder of the files; None: there are none yet.
        self.folder: Path | None = None
        #: The reason why something is not shown; None: there is none.
        self.missing: str | None = None
        self._told: str | None = None
        #: The time of the next attempt, on the monotonic clock.
        self._retry_at = 0.0
        #: The number of the orders for all processes (``orders.py``): its first item.
        self.orders: Any = (0,)

    def enter_pool(self, pool: object, alias: str, server: str, database: str) -> tuple[int, Cells]:
        """Return the number of a new pool in this process, and its cells.

        :param pool: is referred to weakly: its place is used again when it is gone.
        """
        number = next(self._pool_numbers)
        if (place := self._free_place()) is None:
            return number, Cells()
        file, view = place
        view[layout.COUNTERS_AT :] = bytes(layout.PLACE_SIZE - layout.COUNTERS_AT)
        layout.PLACE.pack_into(view, 0, number, encoded(alias), encoded(server), encoded(database))
        cells = Cells(view)
        file.pools.append((weakref.ref(pool, _end_of(view, number)), alias, view))
        return number, cells

    def leave_pool(self, pool: object) -> None:
        """Empty the place of a pool that was never used."""
        for file in self._files.copy():
            for entry in file.pools.copy():
                if entry[0]() is pool:
                    file.pools.remove(entry)
                    entry[2][:8] = bytes(8)
                    file.places.append(entry[2])

    def enter_session(self, pool: int, session_id: int | None, born: float) -> Row | None:
        """Return the row of a new session; None: there is no room, or no board.

        :param pool: the number of its pool.
        :param session_id: its number at the server.
        :param born: when it was opened, in seconds on the monotonic clock.
        """
        for file in self._files_and_new():
            if reason := file.lost:
                self.missing = reason
                return None
            with contextlib.suppress(IndexError):
                return Row(file.rows, pool, session_id, born)
        return None

    def note_timeout(self, alias: str, waited: float, work: str, cause: str) -> None:
        """Keep a time-out, for as long as it is one of the last. Arguments as for ``File.note_timeout()``."""
        for file in self._files[:1]:
            file.note_timeout(alias, waited, work, cause)

    def complaint(self) -> str | None:
        """Return the reason why something is not shown, once; None: nothing is missing, or that was told."""
        if self.missing == self._told:
            return None
        self._told = self.missing
        return self.missing

    def memories(self) -> list[mmap.mmap]:
        """Return the files in memory: a process must not open its own files (see ``File``)."""
        return [file.memory for file in self._files]

    def settle(self) -> None:
        """Do nothing: a fork interrupts nothing here."""

    def strong_references(self) -> None:
        """Return None: nothing here must be kept alive for a child."""

    def abandon(self, held: None) -> None:
        """Leave the files to the parent, in a child, which makes its own."""
        files = self._files
        Page.__init__(self)
        for file in files:
            file.leave()

    def _free_place(self) -> tuple[File, memoryview] | None:
        for file in self._files_and_new():
            with contextlib.suppress(IndexError):
                return file, file.places.pop()
            if (place := self._end_pool(file)) is not None:
                return file, place
        return None

    def _end_pool(self, file: File) -> memoryview | None:
        """Return a place of a pool that is gone, None if there is none."""
        for entry in file.pools.copy():
            pool, alias, view = entry
            if pool() is not None:
                continue
            with contextlib.suppress(ValueError):  # another thread was faster
                file.pools.remove(entry)
                sum_of_alias = file.ended.setdefault(alias, view)
                if sum_of_alias is not view:
                    return file.move(view, sum_of_alias)
                Cells(view).counters[layout.ENDED] = 1  # what is called at its end may come later
        return file.give_up_alias() if len(self._files) >= MOST_FILES else None

    def _files_and_new(self) -> Iterator[File]:
        """Yield the files, and then new ones, for as long as the caller asks."""
        seen = 0
        while True:
            for file in self._files[seen:]:
                seen += 1
                yield file
            with self._making:
                # Another thread may have made one meanwhile.
                if len(self._files) == seen and not self._make_file():
                    return

    def _make_file(self) -> bool:
        """Make a file; return False if there is none, and ``missing`` says why."""
        if len(self._files) >= MOST_FILES:
            self.missing = f"one process has more pools or sessions than {MOST_FILES} files have room for"
            return False
        if self.missing and clock.monotonic() < self._retry_at:
            return False
        name = f"{os.getpid()}-{self.token:016x}-{next(self._file_numbers)}{past.SUFFIX}"
        # Ahead of the file: another thread of this process, which reads the folder, must not open it.
        self.names.add(name)
        made = None
        try:
            with past.tolerated(self._miss):
                folder = prepared()
                if not self._files:
                    self.orders = number_in(folder)
                    with past.tolerated(self._miss):
                        self._fold(folder)
                made = File(folder, name, self.token)
                self.missing, self.folder = None, folder
        except NoBoard as error:
            self._miss(error)
        if made is None:
            return False
        self._files.append(made)
        return True

    def _fold(self, folder: Path) -> None:
        with past.exclusively(folder, self.turn, wait=0) as alone:
            if alone:
                past.fold(folder, self.names)

    def _miss(self, error: Exception) -> None:
        self._retry_at = clock.monotonic() + RETRY_INTERVAL
        self.missing = str(error)
        if isinstance(error, SwitchedOff):
            self._told = self.missing


def _end_of(place: memoryview, number: int) -> Callable[[object], None]:
    """Return what is called when a pool is gone: it marks its place, unless another pool has that by now."""
    numbers: Any = place[:8].cast("Q")
    counters, pid, ended = Cells(place).counters, process.pid, layout.ENDED

    # At any point of any thread: so it is one store. At interpreter exit module globals are gone.
    def end(_: object, alive: Any = alive, process: Any = process) -> None:
        if alive[0] and process.pid == pid and numbers[0] == number:
            counters[ended] = 1

    return end


page = Page()
at_fork.join(page)
