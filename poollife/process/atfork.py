"""The at-fork core: what happens to pools and connections when this process forks.

The floors take part by registering themselves; nothing in here knows a driver, SQLAlchemy or Django.
Installed when a driver is imported, which only a backend does.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from poollife import clock
from poollife.process import uwsgi
from poollife.process.guard import alive, getpid, process

#: Seconds that a fork waits for handshakes of other threads. Most take a millisecond; a longer wait would
#: hold up the fork for a server that does not answer.
PATIENCE = 1.0
#: Seconds after which a fork is taken for over: something from outside may have struck before it was said.
LIMIT = 5.0
#: Seconds between two looks, where forks and handshakes wait for each other.
INTERVAL = 0.001


class Participant(Protocol):
    """Something that owns what a child must not inherit."""

    def settle(self) -> None:
        """In the parent, before the fork: wait, bounded, for what must not be forked in the middle."""

    def hold(self) -> Any:
        """Strong references to all that this process owns.

        Taken before the fork: without them CPython frees the thread-locals of the child's lost threads, and
        what hangs on them, before any after_in_child handler runs.
        """

    def abandon(self, held: Any) -> None:
        """In the child: give up what is held, without any I/O on it and without its locks. Idempotent."""


class Gate:
    """Lets forks and handshakes wait for each other.

    A fork in the middle of another thread's handshake hands the child a socket that nobody knows yet.
    No lock, which a signal's handler that queries might leave taken for as long as it waits. Each side first
    says what it is about to do, and then looks at the other: of two at once at least one sees the other. A
    handshake gives way to a fork, and a fork waits for handshakes.
    """

    def __init__(self) -> None:
        #: Where they may lead, by thread; see ``leads_to``.
        self._handshakes: dict[int, Set[Any]] = {}
        #: When it must be over, by thread.
        self._forking: dict[int, float] = {}

    @contextmanager
    def handshake(self, peers: Set[Any]) -> Iterator[None]:
        """Open a connection inside this.

        :param peers: the server's addresses; see ``leads_to``.
        """
        me, pid = threading.get_ident(), getpid()
        # One may be inside another: a password that is kept in a database.
        outer = self._handshakes.get(me)
        try:
            self._handshakes[me] = peers | (outer or set())
            while self._others_fork():
                self._end(me, outer)
                time.sleep(INTERVAL)
                self._handshakes[me] = peers | (outer or set())
            yield
        finally:
            if getpid() == pid:
                self._end(me, outer)

    @property
    def closed(self) -> bool:
        """Whether a fork is under way."""
        return bool(self._forking) and any(clock.monotonic() < end for end in self._forking.copy().values())

    def wait(self) -> None:
        """Hold on while another thread forks."""
        while self._others_fork():
            time.sleep(INTERVAL)

    def close(self) -> set[Any]:
        """Let no handshake begin, and wait for those in flight: the forking thread's own excepted.

        :returns: where those lead that took longer than ``PATIENCE``.
        """
        me, deadline = threading.get_ident(), clock.monotonic() + PATIENCE
        self._forking[me] = clock.monotonic() + LIMIT
        while self._others(me) and clock.monotonic() < deadline:
            time.sleep(INTERVAL)
        return {peer for peers in self._others(me) for peer in peers}

    def open(self) -> None:
        self._forking.pop(threading.get_ident(), None)

    def _end(self, me: int, outer: Set[Any] | None) -> None:
        if outer is None:
            self._handshakes.pop(me, None)
        else:
            self._handshakes[me] = outer

    def _others_fork(self) -> bool:
        me, now = threading.get_ident(), clock.monotonic()
        return any(thread != me and now < end for thread, end in self._forking.copy().items())

    def _others(self, me: int) -> list[Set[Any]]:
        return [peers for thread, peers in self._handshakes.copy().items() if thread != me]


@dataclass(slots=True)
class Held:
    """What one forking thread keeps alive across its fork."""

    references: list[tuple[Participant, Any]] = field(default_factory=list)
    #: The servers of handshakes that outlasted our patience.
    peers: set[Any] = field(default_factory=set)


class AtFork:
    """This process's participants, and what is held while threads of it fork."""

    def __init__(self) -> None:
        self.gate = Gate()
        self._participants: list[Participant] = []
        self._held: dict[int, Held] = {}
        self._resuming: list[Callable[[], object]] = []
        self._entering: dict[int, threading.RLock] = {}

    def join(self, participant: Participant) -> None:
        """Take part in every fork from now on; the child abandons in the order of joining."""
        self._participants.append(participant)

    def on_resume(self, resume: Callable[[], object]) -> None:
        """Have this called after each fork in the parent, and when uWSGI has made all workers."""
        self._resuming.append(resume)

    def before(self) -> None:
        peers = self.gate.close()
        for participant in self._participants:
            participant.settle()
        self._held[threading.get_ident()] = Held(self._hold(), peers)

    def after_in_parent(self) -> None:
        self._held.pop(threading.get_ident(), None)
        self.gate.open()
        self._resume()

    def after_in_child(self) -> None:
        self._enter_child(self._held.get(threading.get_ident(), Held()))

    def after_uwsgi_fork(self) -> None:
        """Enter a process that uWSGI has made; without a master, go on in the one that made the others."""
        if alive[0]:
            self._resume()
        else:
            self.after_in_child()

    def ensure_process(self) -> None:
        """Notice a fork that no hook announced (a bare C ``fork()``, uWSGI): every way into a pool asks."""
        if not alive[0]:
            self._enter_child(Held())

    def _hold(self) -> list[tuple[Participant, Any]]:
        return [(participant, participant.hold()) for participant in self._participants]

    def _resume(self) -> None:
        for resume in self._resuming:
            resume()

    def _enter_child(self, held: Held) -> None:
        # Where no hook ran, two threads may come here at once. Locks of before may be held by lost threads.
        with self._entering.setdefault(getpid(), threading.RLock()):
            # Idempotent: uWSGI may run a hook of its own after this one.
            if not alive[0]:
                self._abandon(held)
                process.enter()

    def _abandon(self, held: Held) -> None:
        self.gate = Gate()
        # And what there is now: other people's hooks may have opened something after ours had looked.
        for participant, references in [*held.references, *self._hold()]:
            participant.abandon(references)
        if held.peers:
            cover_sockets(held.peers)
        self._held = {}


def cover_sockets(peers: set[Any]) -> None:
    """Put /dev/null over every inherited socket that leads to one of these addresses.

    For connections whose handshake was under way at fork: their driver has not told anyone of them yet.
    """
    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for fd in _descriptors():
            if leads_to(fd, peers):
                os.dup2(devnull, fd, inheritable=False)
    finally:
        os.close(devnull)


def _descriptors() -> list[int]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        folder = Path("/dev/fd")
    return [int(entry.name) for entry in folder.iterdir()]


def leads_to(fd: int, peers: set[Any]) -> bool:
    """Whether this is a socket connected, or being connected, to one of these addresses.

    :param peers: paths of unix sockets, (address, port), or (None, port) for a host whose address is unknown.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        probe = socket.socket(fileno=fd)
    except OSError:  # the descriptor of the listing itself, or a kind of socket that Python does not know
        return False
    try:
        peer = probe.getpeername()
    except OSError:
        return _is_connecting(probe)
    finally:
        probe.detach()
    if isinstance(peer, tuple):  # IPv6 adds flow and scope, which say nothing about the server
        return peer[:2] in peers or (None, peer[1]) in peers
    return peer in peers


def _is_connecting(probe: socket.socket) -> bool:
    """Whether a connect is under way or about to be: it has no peer yet, but may come to be a session."""
    return (
        probe.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and probe.type == socket.SOCK_STREAM
        and not probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def address(host: str, port: int) -> tuple[str | None, int]:
    """The peer of a TCP connection to this host."""
    # No name is looked up: DNS may be what a handshake waits for.
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        return None, port


at_fork = AtFork()
os.register_at_fork(
    before=lambda: at_fork.before(),
    after_in_parent=lambda: at_fork.after_in_parent(),
    after_in_child=lambda: at_fork.after_in_child(),
)
# uWSGI runs none of these, unless it is told to.
uwsgi.after_fork(lambda: at_fork.after_uwsgi_fork())
