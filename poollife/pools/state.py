"""The state of a pool, and what its parts ask of it."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from poollife import clock
from poollife.board import layout
from poollife.board.page import page
from poollife.conf import PoolOptions
from poollife.drivers.contract import Driver
from poollife.pools.base import PoolKey, Slots
from poollife.pools.meters import Meters

Fact = TypeVar("Fact")


class PoolState(ABC):
    """A pool, as its leases, its gate, its housekeeping and its reports use it.

    The lock guards the counters and the end of a lease. Nothing is called while it is held, so no signal
    handler and no finalizer ever runs in a thread that has it (see fair_queue.py). A child never touches it:
    there the whole pool is abandoned.
    """

    #: Whether returned sessions are kept for the next checkout.
    keeps_sessions: bool
    #: The background work: it retires the surplus, and opens sessions ahead of their use.
    housekeeping: Any
    _slots: Slots

    def __init__(self, key: PoolKey, options: PoolOptions, driver: Driver) -> None:
        self.key = key
        self.options = options
        self.driver = driver
        self.leases: set[Any] = set()
        #: Leases whose borrower is gone. Finalizers put them there, and SimpleQueue is made for that.
        self.lost: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: Whether ``lost`` may have leases in it: this costs a checkout no call.
        self.has_lost = False
        self.releases_early = options.release == "statement"
        #: The reason why no session is kept any more, for people; None: the pool is not closed.
        self.closed_because: str | None = None
        #: Whether borrowed sessions must not be used any more either.
        self.disposed = False
        #: Times on the monotonic clock: the pool was made, and a session was last borrowed or returned.
        self.made = self.last_used = clock.monotonic()
        #: The error of the last session that could not be opened; None: a session was opened since.
        self.connect_error: Exception | None = None
        self._lock = threading.RLock()
        #: The number of the pool in this process, and its numbers, which other processes can read.
        self.number, self.cells = page.enter_pool(self, key.alias, key.place, key.database)
        self.counters = self.cells.counters
        self.cells.set_limit(options.limit)
        self.meters = Meters(options.stats, self.cells)
        self._facts: dict[str, Any] = {}

    @property
    def out(self) -> int:
        """Number of borrowed sessions."""
        return len(self.leases)

    @property
    def checkouts(self) -> int:
        """Number of sessions that were lent."""
        return self.meters.checkouts

    @property
    def opened(self) -> int:
        """Number of sessions that were opened."""
        return int(self.counters[layout.OPENED])

    @property
    def closed(self) -> int:
        """Number of sessions that were closed."""
        return int(self.counters[layout.CLOSED])

    @property
    def resets(self) -> int:
        """Number of returns that needed a reset."""
        return int(self.counters[layout.RESETS])

    @property
    def idle(self) -> int:
        """Number of sessions that wait for a checkout."""
        return self._slots.idle

    @property
    def opening(self) -> int:
        """Number of sessions that are being opened or pinged."""
        return self._slots.preparing

    @property
    def waiting(self) -> int:
        """Number of checkouts that wait for a session."""
        return self._slots.waiting

    @property
    def exhausted(self) -> bool:
        """True if no session is idle and no slot is empty."""
        return self._slots.exhausted

    @property
    def suspended(self) -> bool:
        """True while no checkout is served."""
        return self._slots.suspended

    @property
    def in_use(self) -> bool:
        """True if a session is borrowed, or a checkout is under way."""
        return bool(self.leases or self.opening or self.waiting)

    def quiet_for(self, now: float) -> float:
        """Return the seconds since a session was last borrowed or returned.

        :param now: on the monotonic clock.
        """
        return max(0.0, now - self.last_used)

    @property
    def counting(self) -> threading.RLock:
        """Lock to hold while several counters are read as of one moment. No call may be made under it."""
        return self._lock

    def leases_of_this_thread(self) -> list[Any]:
        """Return the calling thread's leases in this pool."""
        me = threading.current_thread()
        return [lease for lease in self.leases.copy() if lease.thread is me]

    def fact(self, name: str, ask: Callable[[], Fact]) -> Fact:
        """Return an answer of the server, for which it is asked once for the whole pool.

        :param name: of the fact.
        :param ask: asks the server.
        """
        if name not in self._facts:
            self._facts[name] = ask()
        fact: Fact = self._facts[name]
        return fact

    def known(self, name: str) -> Any:
        """Return the answer that ``fact()`` has got before; None: the server was not asked yet.

        :param name: of the fact.
        """
        return self._facts.get(name)

    def claim_report(self, lease: Any) -> bool:
        """Return whether the caller is the first to report this lease, and so has to do it."""
        with self._lock:
            first, lease.reported = not lease.reported, True
        return first

    @abstractmethod
    def initialised(self, lease: Any, with_what: Any) -> None:
        """Note that a session has the state that each borrower expects."""

    @abstractmethod
    def drain(self, reason: str) -> None:
        """Close the idle sessions now, and each borrowed session when it is returned."""

    @abstractmethod
    def abandon(self) -> None:
        """Give up the whole pool, in a child: it is the parent's."""

    @abstractmethod
    def checkin(self, lease: Any, reason: str | None = None) -> None:
        """End a lease: clean its session and keep it, or close it."""

    @abstractmethod
    def cancel_claim(self, lease: Any) -> None:
        """Leave a claimed lease to its thread, which has woken up."""

    @abstractmethod
    def reclaim(self, *, thoroughly: bool = True, needed: bool = False) -> None:
        """End the leases whose borrower is gone."""

    @abstractmethod
    def close_idle(self) -> None:
        """Close the idle sessions."""

    @abstractmethod
    def watch(self) -> None:
        """Keep the borrowers' stacks from now on, or no longer, as settings and ``tracing()`` ask."""
