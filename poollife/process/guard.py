"""Guards that keep a process from using the connections that its parent opened."""

from __future__ import annotations

import _socket
import ctypes
import mmap
import os
import weakref
from typing import Any, Generic, TypeVar

getpid = os.getpid
Thing = TypeVar("Thing")
#: A constant of madvise(2), in Linux from 4.14 on. Python has no name for it.
MADV_WIPEONFORK = 18


class Process:
    """The present process, and a test for a fork that makes no system call.

    ``alive[0]`` is 1 in a process that has entered. It is 0 in each child that has not, whatever kind of fork
    made the child: the kernel wipes the page. So each statement tests ``if not alive[0]``, which calls no
    function.
    """

    pid: int

    def __init__(self) -> None:
        self.alive: Any = _wiped_page() or _AskSystem(self)
        self.enter()

    def enter(self) -> None:
        """Make this the present process. The caller has abandoned all that a parent owned."""
        self.pid = getpid()
        self.alive[0] = 1


class _AskSystem:
    """The substitute for the page on other systems than Linux: it asks for the pid."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __getitem__(self, index: int) -> int:
        return self._process.pid == getpid()

    def __setitem__(self, index: int, value: int) -> None:
        """Ignore the value: the pid is enough."""


def _wiped_page() -> memoryview | None:
    """Return a page that is all zeros in a child, or None where the system has no such page."""
    flags = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=flags)
        page.madvise(MADV_WIPEONFORK)
        if _takes_any_advice(page):
            return None
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return memoryview(page)


def _takes_any_advice(page: mmap.mmap) -> bool:
    """Return whether the system accepts advice that no kernel knows, as an emulator does that ignores all."""
    try:
        page.madvise(-1)
    except OSError:
        return False
    return True


process = Process()
#: The page itself, for the hot path: one look-up less.
alive = process.alive


class Guard:
    """The pid of the process that owns a connection, and the identity of its socket if it has one.

    The descriptor's number alone proves nothing: after a fork it may have been closed and used again. So
    (st_dev, st_ino) are kept with it. They are recorded when the connection is opened, because mysqlclient's
    ``fileno()`` raises in a child that was forked while another thread was in the middle of a query.
    """

    __slots__ = ("fd", "identity", "pid")

    # A destructor finds all that it needs in the class: at interpreter exit module globals are gone.
    _fstat = staticmethod(os.fstat)
    _open = staticmethod(os.open)
    _close = staticmethod(os.close)
    _dup2 = staticmethod(os.dup2)
    _devnull, _flags = os.devnull, os.O_RDWR | os.O_CLOEXEC
    _incref, _py_object = staticmethod(ctypes.pythonapi.Py_IncRef), ctypes.py_object
    _alive, _process = alive, process

    def __init__(self, pid: int, fd: int | None = None) -> None:
        """Record the owner, and the identity of the socket.

        :param pid: the process that began to open the connection; it may have forked since.
        :param fd: the descriptor of the connection's socket; None: it has no socket.
        """
        self.pid = pid
        self.fd = fd
        self.identity = self._identity()
        if fd is not None:
            # libmariadb leaves its sockets open across exec. Every program that is started with
            # close_fds=False would inherit them, and the transaction of an owner that was killed would last
            # until that program ends.
            os.set_inheritable(fd, False)

    @property
    def foreign(self) -> bool:
        """True in another process than the one that opened the connection."""
        return not self._alive[0] or self.pid != self._process.pid

    @property
    def intact(self) -> bool:
        """True while the descriptor is the socket that was opened. Drivers close theirs without notice."""
        return self._identity() == self.identity

    def cover(self) -> None:
        """Put /dev/null over an inherited socket. Only a foreign process calls this.

        To close the socket would free its number for the child's own next connection. The destructor of the
        inherited connection would then end that one.
        """
        if self.fd is None or self.identity is None or not self.intact:
            return
        try:
            devnull = self._open(self._devnull, self._flags)
        except OSError:  # no descriptor is free: closing this one frees its number
            self._close(self.fd)
            devnull = self._open(self._devnull, self._flags)
        if devnull != self.fd:
            self._dup2(devnull, self.fd, inheritable=False)
            self._close(devnull)

    def shut_down(self) -> None:
        """End a connection that another thread is using, at its socket, which stays open."""
        if self.fd is not None and self.intact:
            # Detached below: a socket object that is freed closes its descriptor, which is the driver's.
            line = _socket.socket(-1, -1, -1, self.fd)
            try:
                line.shutdown(_socket.SHUT_RDWR)
            except OSError:  # its other end was faster
                pass
            finally:
                line.detach()

    def abandon(self, inherited: object) -> None:
        """Make an inherited object immortal, so that no C destructor ever works on it in this process.

        A reference in a global is not enough: the shutdown of the interpreter clears globals, and frees the
        objects that they held.
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
    """Weak references to the objects of this process that a fork must find.

    Synchronization: there is no lock, because a fork may come at any moment. The class relies on the fact
    that a single operation of a dictionary is atomic.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[Any]] = {}

    def add(self, thing: Thing) -> None:
        key = id(thing)
        references = self._references
        references[key] = weakref.ref(thing, lambda _: references.pop(key, None))

    def remove(self, thing: Thing) -> None:
        self._references.pop(id(thing), None)

    def strong_references(self) -> list[Thing]:
        """Return strong references to all objects that are alive."""
        held = (reference() for reference in self._references.copy().values())
        return [thing for thing in held if thing is not None]

    def forget(self) -> None:
        """Drop all references: a child has abandoned the objects."""
        self._references = {}
