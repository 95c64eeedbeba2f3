"""The at-fork core: settle before a fork, and give up the parent's pools and connections in the child.

The layers above take part by joining. This module knows no driver, no SQLAlchemy and no Django. It is
installed when a driver's module is imported, and only a backend imports that.
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
from typing import Any, NamedTuple, Protocol

from poollife import clock
from poollife.process import uwsgi
from poollife.process.guard import alive, getpid, process

#: The longest time, in seconds, that a fork waits for handshakes of other threads. Most handshakes take a
#: millisecond. A longer wait would hold up the fork for a server that does not answer.
HANDSHAKE_WAIT = 1.0
#: Seconds after which a fork counts as over, longer than any of its waits: an asynchronous exception may have
#: prevented ``open()``.
LIMIT = 15.0
#: Seconds between two tests of a thread that waits for a fork or for handshakes.
GATE_INTERVAL = 0.001


class Participant(Protocol):
    """An owner of objects that a child must not inherit. It takes part in each fork."""

    def settle(self) -> None:
        """Wait in the parent, before the fork, for work that a fork must not interrupt.

        The wait is bounded.
        """

    def strong_references(self) -> Any:
        """Return strong references to all that this process owns.

        They are taken before the fork. Without them CPython frees the thread-locals of the child's lost
        threads, and the objects that these refer to, before any after_in_child handler runs.
        """

    def abandon(self, held: Any) -> None:
        """Give up in the child the objects that are held, without I/O on them and without their locks.

        The operation is idempotent.

        :param held: the result of ``strong_references()``.
        """


class Handshake(NamedTuple):
    """A handshake that is under way."""

    #: The server's addresses; see ``is_connected_to()``.
    addresses: Set[Any]
    #: The longest time, in seconds, that a fork waits for its end.
    wait: float


class Gate:
    """The coordination of forks and handshakes, which wait for each other.

    A fork in the middle of another thread's handshake would give the child a socket that no guard knows yet.

    Synchronization: there is no lock, because a signal handler that queries could keep it taken for as long
    as the handler waits. Each side first announces its own operation, and then looks for the other side's. If
    both begin at once, at least one of them sees the other. A handshake gives way to a fork, and a fork waits
    for handshakes.
    """

    def __init__(self) -> None:
        #: The handshakes that are under way, by thread id.
        self._handshakes: dict[int, Handshake] = {}
        #: The time, on the monotonic clock, after which a fork counts as over, by thread id.
        self._forking: dict[int, float] = {}

    @contextmanager
    def handshake(self, addresses: Set[Any] = frozenset(), wait: float = HANDSHAKE_WAIT) -> Iterator[None]:
        """Announce a handshake, or other work that a fork must not interrupt, for the time of the block.

        The block does not begin while another thread forks.

        :param addresses: the server's addresses, if the block opens a session; see ``is_connected_to()``.
        :param wait: the longest time, in seconds, that a fork waits for the end of the block.
        """
        me, pid = threading.get_ident(), getpid()
        # A handshake may be inside another one: a password may be kept in a database.
        outer = self._handshakes.get(me)
        announced = Handshake(addresses, wait)
        if outer:
            announced = Handshake(addresses | outer.addresses, max(wait, outer.wait))
        try:
            self._handshakes[me] = announced
            while self._other_thread_forks():
                self._end(me, outer)
                time.sleep(GATE_INTERVAL)
                self._handshakes[me] = announced
            yield
        finally:
            if getpid() == pid:
                self._end(me, outer)

    @property
    def closed(self) -> bool:
        """True while a fork is under way."""
        return bool(self._forking) and any(clock.monotonic() < end for end in self._forking.copy().values())

    def wait(self) -> None:
        """Wait while another thread forks."""
        while self._other_thread_forks():
            time.sleep(GATE_INTERVAL)

    def close(self) -> set[Any]:
        """Let no handshake begin, and wait for the handshakes of other threads.

        :returns: the addresses of the handshakes that took longer than a fork waits for them.
        """
        me, began = threading.get_ident(), clock.monotonic()
        self._forking[me] = began + LIMIT
        while any(clock.monotonic() < began + other.wait for other in self._other_handshakes(me)):
            time.sleep(GATE_INTERVAL)
        return {peer for other in self._other_handshakes(me) for peer in other.addresses}

    def open(self) -> None:
        """Let handshakes begin again: the calling thread's fork is over."""
        self._forking.pop(threading.get_ident(), None)

    def _end(self, me: int, outer: Handshake | None) -> None:
        if outer is None:
            self._handshakes.pop(me, None)
        else:
            self._handshakes[me] = outer

    def _other_thread_forks(self) -> bool:
        me, now = threading.get_ident(), clock.monotonic()
        return any(thread != me and now < end for thread, end in self._forking.copy().items())

    def _other_handshakes(self, me: int) -> list[Handshake]:
        return [handshake for thread, handshake in self._handshakes.copy().items() if thread != me]


@dataclass(slots=True)
class Held:
    """Objects that one forking thread keeps alive across its fork."""

    references: list[tuple[Participant, Any]] = field(default_factory=list)
    #: The addresses of the handshakes that took longer than a fork waits for them.
    addresses: set[Any] = field(default_factory=set)


class AtFork:
    """The participants of this process, and the objects that are held while its threads fork."""

    def __init__(self) -> None:
        self.gate = Gate()
        self._participants: list[Participant] = []
        self._held: dict[int, Held] = {}
        self._resuming: list[Callable[[], object]] = []
        self._entering: dict[int, threading.RLock] = {}

    def join(self, participant: Participant) -> None:
        """Add a participant of every later fork. The child abandons in the order of joining."""
        self._participants.append(participant)

    def on_resume(self, resume: Callable[[], object]) -> None:
        """Have this called after each fork in the parent, and when uWSGI has made all workers."""
        self._resuming.append(resume)

    def before(self) -> None:
        addresses = self.gate.close()
        for participant in self._participants:
            participant.settle()
        self._held[threading.get_ident()] = Held(self._hold(), addresses)

    def after_in_parent(self) -> None:
        self._held.pop(threading.get_ident(), None)
        self.gate.open()
        self._resume()

    def after_in_child(self) -> None:
        self._enter_child(self._held.get(threading.get_ident(), Held()))

    def after_uwsgi_fork(self) -> None:
        """Enter a process that uWSGI has made; without a master, go on in the one that made the others."""
        if alive[0] and process.pid == getpid():
            self._resume()
        else:
            self.after_in_child()

    def ensure_process(self) -> None:
        """Notice a fork that no hook announced (a bare C ``fork()``, uWSGI), and act as its hook.

        Every entry point of a pool calls this.
        """
        if not alive[0]:
            self._enter_child(Held())

    def _hold(self) -> list[tuple[Participant, Any]]:
        return [(participant, participant.strong_references()) for participant in self._participants]

    def _resume(self) -> None:
        for resume in self._resuming:
            resume()

    def _enter_child(self, held: Held) -> None:
        # Without a hook, two threads may run this at once. The lock is one of this pid, because a lost thread
        # may hold a lock from before the fork.
        with self._entering.setdefault(getpid(), threading.RLock()):
            # Idempotent: uWSGI may run its own hook after this one.
            if not alive[0] or process.pid != getpid():
                self._abandon(held)
                process.enter()

    def _abandon(self, held: Held) -> None:
        self.gate = Gate()
        # Also the objects that exist now: fork hooks of other packages may have opened a session after
        # before().
        for participant, references in [*held.references, *self._hold()]:
            participant.abandon(references)
        if held.addresses:
            cover_sockets(held.addresses)
        self._held = {}


def cover_sockets(addresses: set[Any]) -> None:
    """Put /dev/null over every inherited socket that leads to one of these addresses.

    It is for sockets whose handshake was under way at the fork: the driver has not returned them yet, so no
    guard knows them.

    :param addresses: see ``is_connected_to()``.
    """
    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for fd in descriptors():
            if is_connected_to(fd, addresses):
                os.dup2(devnull, fd, inheritable=False)
    finally:
        os.close(devnull)


def descriptors() -> list[int]:
    """Return the descriptors that are open in this process."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        folder = Path("/dev/fd")
    return [int(entry.name) for entry in folder.iterdir()]


def is_connected_to(fd: int, addresses: set[Any]) -> bool:
    """Return whether a descriptor is a socket that is connected to one of these addresses, or may come to be.

    :param fd: the descriptor.
    :param addresses: paths of unix sockets, (address, port), or (None, port) for a host whose address is not
        known.
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
    if isinstance(peer, tuple):  # IPv6 adds flow and scope, which do not identify the server
        # Java's sockets are IPv6's, also to an address of IPv4.
        return (peer[0].removeprefix("::ffff:"), peer[1]) in addresses or (None, peer[1]) in addresses
    return peer in addresses


def _is_connecting(probe: socket.socket) -> bool:
    """Return whether a socket without a peer may become a session: a connect is under way or about to be."""
    return (
        probe.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and probe.type == socket.SOCK_STREAM
        and not probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def address(host: str, port: int) -> tuple[str | None, int]:
    """Return the address, as ``is_connected_to()`` takes it, of a TCP connection to this host."""
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
# uWSGI runs none of these hooks, unless an option of it says so.
uwsgi.after_fork(lambda: at_fork.after_uwsgi_fork())
