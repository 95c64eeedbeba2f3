"""Keeping a process's hands off what its parent opened."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Any, Generic, TypeVar

getpid = os.getpid
Thing = TypeVar("Thing")
#: Linux, from 4.14 on (madvise(2)); Python has no name for it.
MADV_WIPEONFORK = 18


class Process:
    """The present process, and whether this is still the one that said so, without a call to the system.

    ``alive[0]`` is 1 in the process that has entered, and 0 in each child that has not, however it was
    forked: the kernel wipes the page. So each statement asks by ``if not alive[0]``, which calls no function.
    """

    def __init__(self) -> None:
        self.pid = getpid()
        self.alive: Any = _wiped_page() or _AskSystem(self)
        self.enter()

    def enter(self) -> None:
        """Take this process for the present one: all that a parent owned is dealt with."""
        self.pid = getpid()
        self.alive[0] = 1


class _AskSystem:
    """In place of the page, on other systems than Linux."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __getitem__(self, index: int) -> int:
        return self._process.pid == getpid()

    def __setitem__(self, index: int, value: int) -> None:
        """There is nothing to note."""


def _wiped_page() -> memoryview | None:
    """Return a page that is all zeros in a child; None: this system has none."""
    flags = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=flags)
        page.madvise(MADV_WIPEONFORK)
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return memoryview(page)


process = Process()
#: For the hot path: one look-up less.
alive = process.alive


class Guard:
    """The process that owns a connection, and the connection's socket if it has one.

    The descriptor's number alone proves nothing: after a fork it may have been closed and reused, so
    (st_dev, st_ino) are kept with it. They are recorded when connecting, because mysqlclient's ``fileno()``
    raises in a child that was forked while another thread was in the middle of a query.
    """

    __slots__ = ("fd", "identity", "pid")

    # All that a destructor needs hangs on the class: at interpreter exit module globals are gone.
    _getpid = staticmethod(os.getpid)
    _fstat = staticmethod(os.fstat)
    _open = staticmethod(os.open)
    _close = staticmethod(os.close)
    _dup2 = staticmethod(os.dup2)
    _devnull, _flags = os.devnull, os.O_RDWR | os.O_CLOEXEC
    _incref, _py_object = staticmethod(ctypes.pythonapi.Py_IncRef), ctypes.py_object
    _alive, _process = alive, process

    def __init__(self, pid: int, fd: int | None = None) -> None:
        """:param pid: the process that began to open the connection; it may have forked since."""
        self.pid = pid
        self.fd = fd
        self.identity = self._identity()
        if fd is not None:
            # libmariadb leaves its sockets open across exec: they would leak into every program started with
            # close_fds=False, and a killed owner's transaction would live on until that program ends.
            os.set_inheritable(fd, False)

    @property
    def foreign(self) -> bool:
        """Whether this process is another one than that which opened the connection."""
        return not self._alive[0] or self.pid != self._process.pid

    @property
    def intact(self) -> bool:
        """Whether the descriptor still is the socket that was opened: drivers close theirs without a word."""
        return self._identity() == self.identity

    def cover(self) -> None:
        """Put /dev/null over an inherited socket. Only ever called in a foreign process.

        Closing it instead would free its number for the child's own next connection, which the inherited
        connection's destructor would then kill.
        """
        if self.fd is None or self.identity is None or not self.intact:
            return
        try:
            devnull = self._open(self._devnull, self._flags)
        except OSError:  # no descriptor left: this one makes room
            self._close(self.fd)
            devnull = self._open(self._devnull, self._flags)
        if devnull != self.fd:
            self._dup2(devnull, self.fd, inheritable=False)
            self._close(devnull)

    def abandon(self, inherited: object) -> None:
        """Make an inherited object immortal, so that no C destructor ever works on it in this process.

        A reference kept in a global would not do: interpreter shutdown clears globals and frees what they
        held.
        """
        self._incref(self._py_object(inherited))
        self.cover()

    def _identity(self) -> tuple[int, int] | None:
        if self.fd is None:
            return None
        try:
            status = self._fstat(self.fd)
        except OSError:
            return None
        return status.st_dev, status.st_ino


class WeakRegistry(Generic[Thing]):
    """Things of this process that a fork must find, held weakly.

    No lock: a fork may come at any moment, so this relies on single dictionary operations being atomic.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[Any]] = {}

    def add(self, thing: Thing) -> None:
        key = id(thing)
        references = self._references
        references[key] = weakref.ref(thing, lambda _: references.pop(key, None))

    def remove(self, thing: Thing) -> None:
        self._references.pop(id(thing), None)

    def hold(self) -> list[Thing]:
        """Strong references to all of them."""
        held = (reference() for reference in self._references.copy().values())
        return [thing for thing in held if thing is not None]

    def forget(self) -> None:
        self._references = {}
