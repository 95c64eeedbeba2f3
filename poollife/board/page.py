"""The part of the board that this process writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import mmap
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board import layout, past
from poollife.board.folder import NoBoard, prepared
from poollife.board.layout import Cells, encoded
from poollife.process.atfork import at_fork
from poollife.process.guard import alive, process

logger = logging.getLogger("poollife")
#: The most files of one process: beyond them, its pools are counted but not shown.
MOST_FILES = 128
#: Seconds after which a process tries again to make a file, where that was not possible.
RETRY_INTERVAL = 60.0


#: The list of a row that is free already.
NOWHERE: list[memoryview] = []


class Row:
    """The row of one session: which lease has it. Only the driver connection refers to it.

    Synchronization: the thread that has the lease writes, and no lock is taken.
    """

    __slots__ = ("_free", "_pid", "_view", "held")

    # The destructor needs these on the class: at interpreter exit module globals are gone.
    _alive, _process, _nowhere, _zeros = alive, process, NOWHERE, bytes(16)

    def __init__(self, free: list[memoryview], view: memoryview) -> None:
        """
        :param free: the rows without a session.
        :param view: the memory of this one.
        """
        self._free = free
        self._view = view
        self._pid = process.pid
        #: One number: whether a borrower has the session. A return sets it to 0.
        self.held: Any = view[:8].cast("Q")

    def show(self, since: float, work: object, thread: bytes) -> None:
        """Write who has the session.

        :param since: the checkout, in seconds on the monotonic clock.
        :param work: the request, task or block; None: the thread itself borrowed.
        :param thread: its name.
        """
        layout.HOLDER.pack_into(
            self._view,
            layout.HOLDER_AT,
            since,
            str(work).encode(errors="replace") if work is not None else b"",
            thread,
        )
        self.held[0] = 1  # last: until then the row does not count

    def free(self) -> None:
        """Empty the row: its session is closed. Does nothing on a second call."""
        view, self._view = self._view, memoryview(bytearray(layout.ROW_SIZE))
        # A return that was interrupted may still write, when another session has the row.
        self.held = self._view[:8].cast("Q")
        if self._free is not NOWHERE:
            free, self._free = self._free, NOWHERE
            view[:16] = self._zeros
            free.append(view)

    def __del__(self) -> None:
        # In a child, the memory is the parent's.
        if self._free is not self._nowhere and self._alive[0] and self._pid == self._process.pid:
            self._view[:16] = self._zeros
            self._free.append(self._view)


class File:
    """A file of this process, in memory, with its lock.

    The lock is a POSIX record lock: it ends with the process, and children don't inherit it. It would also
    end if this process closed any other descriptor of the same file: so nothing here opens it again.
    """

    def __init__(self, folder: Path, number: int, token: int) -> None:
        """Make the file.

        :raises OSError: it can't be made, or there is no memory for it.
        """
        name = f"{os.getpid()}-{token:016x}-{number}"
        made = folder / f"{name}.new"
        self._descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            # A store into a file with a hole would kill the process where the memory has run out.
            if os.write(self._descriptor, bytes(layout.SIZE)) != layout.SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.memory = mmap.mmap(self._descriptor, layout.SIZE)
            layout.HEADER.pack_into(
                *(self.memory, 0, layout.MAGIC, number, os.getpid(), clock.wall(), token, 0),
                encoded(command()),
            )
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            made.rename(folder / f"{name}{past.SUFFIX}")
        except BaseException:
            os.close(self._descriptor)
            made.unlink(missing_ok=True)
            raise
        view = memoryview(self.memory)
        self._changes: Any = view[layout.CHANGES_AT : layout.CHANGES_AT + 8].cast("Q")
        self.places = [
            view[at : at + layout.PLACE_SIZE]
            for at in range(layout.PLACES_AT, layout.ROWS_AT, layout.PLACE_SIZE)
        ]
        #: The rows without a session. Taking one and putting one back are single operations.
        self.rows = [
            view[at : at + layout.ROW_SIZE] for at in range(layout.ROWS_AT, layout.SIZE, layout.ROW_SIZE)
        ]
        #: The pools with a place, referred to weakly, their aliases and their places.
        self.pools: list[tuple[weakref.ref[Any], str, memoryview]] = []

    @contextlib.contextmanager
    def changing(self) -> Any:
        """Have readers wait for the end of the block: it moves numbers from one place to another."""
        self._changes[0] += 1
        try:
            yield
        finally:
            self._changes[0] += 1


def command() -> str:
    """Return the name of the program, and of its command if it has one: other arguments may be secrets."""
    name, first = Path(sys.argv[0] or "python").name, "".join(sys.argv[1:2])
    return f"{name} {first}" if re.fullmatch(r"[a-z_]{1,40}", first) else name


class Page:
    """The files of this process. A child makes new ones.

    Synchronization: each collection is changed by single operations. The lock is for the making of a file. It
    is reentrant, as a signal handler may query meanwhile: that makes a second file.
    """

    def __init__(self) -> None:
        self._files: list[File] = []
        self._pool_numbers = itertools.count(1)
        #: Tells this process from an earlier one with the same pid.
        self.token = int.from_bytes(os.urandom(8), sys.byteorder)
        self._file_numbers = itertools.count()
        self._making = threading.RLock()
        #: The folder of the files; None: there are none yet.
        self.folder: Path | None = None
        #: The reason why nothing is shown; None: there is none.
        self.missing: str | None = None
        #: The time of the next attempt, on the monotonic clock.
        self._retry_at = 0.0
        #: The places of pools that have ended, by alias: their counters go on to count.
        self._ended: dict[str, memoryview] = {}

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
        file.pools.append((weakref.ref(pool), alias, view))
        return number, Cells(view)

    def leave_pool(self, pool: object) -> None:
        """Empty the place of a pool that was never used."""
        for file in self._files.copy():
            for entry in file.pools.copy():
                if entry[0]() is pool:
                    file.pools.remove(entry)
                    entry[2][:8] = bytes(8)
                    file.places.append(entry[2])

    def enter_session(self, pool: int, session_id: int | None) -> Row | None:
        """Return the row of a new session; None: there is no room, or no board.

        :param pool: the number of its pool.
        :param session_id: its number at the server.
        """
        for file in self._files_and_new():
            with contextlib.suppress(IndexError):
                row = file.rows.pop()
                layout.ROW.pack_into(row, 0, 0, pool, session_id or 0, 0.0, b"", b"")
                return Row(file.rows, row)
        return None

    def memories(self) -> list[mmap.mmap]:
        """Return the files in memory: a process must not open its own files (see ``File``)."""
        return [file.memory for file in self._files]

    def settle(self) -> None:
        """Do nothing: a fork interrupts nothing here."""

    def strong_references(self) -> None:
        """Return None: nothing here must be kept alive for a child."""

    def abandon(self, held: None) -> None:
        """Leave the files to the parent, in a child, which makes its own."""
        Page.__init__(self)

    def _free_place(self) -> tuple[File, memoryview] | None:
        for file in self._files_and_new():
            with contextlib.suppress(IndexError):
                return file, file.places.pop()
            if (place := self._end_pool(file)) is not None:
                return file, place
        return None

    def _end_pool(self, file: File) -> memoryview | None:
        """Return the place of a pool that is gone, None if all are there."""
        for entry in file.pools.copy():
            pool, alias, view = entry
            if pool() is not None:
                continue
            with contextlib.suppress(ValueError):  # another thread was faster
                file.pools.remove(entry)
                sum_of_alias = self._ended.setdefault(alias, view)
                if sum_of_alias is view:
                    continue
                with file.changing():
                    past.add(Cells(sum_of_alias), Cells(view))
                    view[:8] = bytes(8)
                return view
        return None

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
        if len(self._files) >= MOST_FILES or (self.missing and clock.monotonic() < self._retry_at):
            return False
        try:
            folder = prepared()
            if not self._files:
                with past.exclusively(folder, wait=0) as alone:
                    if alone:
                        past.fold(folder)
            file = File(folder, next(self._file_numbers), self.token)
        except (NoBoard, OSError) as error:
            self.missing = str(error)
            self._retry_at = clock.monotonic() + RETRY_INTERVAL
            return False
        self.missing, self.folder = None, folder
        self._files.append(file)
        return True


page = Page()
at_fork.join(page)
