"""What the parts of a pool know of the whole: ``poollife.pools.pool`` has the pool itself."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from poollife.conf import Bounds, PoolOptions
from poollife.pools.meters import Meters
from poollife.pools.tickets import Holder, Ticket


class PoolKey(NamedTuple):
    """Two wrappers share a pool only where all of this is equal."""

    alias: str
    server: tuple[Any, ...]
    database: Any
    user: Any
    options: Any

    def same_database(self, other: PoolKey) -> bool:
        """Return whether both lead to one database, be it with other options."""
        return (self.server, self.database) == (other.server, other.database)


class PoolClosed(Exception):
    """A pool was closed while a checkout waited for its sessions."""

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        #: Until when that was to wait, on the monotonic clock.
        self.deadline = deadline


class Borrower(Protocol):
    """Django's side of a lease: a DatabaseWrapper."""

    lease: Any
    #: The thread that may use it.
    owner: threading.Thread

    @property
    def allow_thread_sharing(self) -> bool:
        """Whether other threads may, too."""

    @property
    def is_shared(self) -> bool:
        """Whether other threads may, or shallow copies of it."""

    #: What its user works with; None: nothing.
    connection: Any
    #: The transaction.atomic() that it is in.
    atomic_blocks: list[Any]
    in_atomic_block: bool
    closed_in_transaction: bool
    needs_rollback: bool
    #: The driver's module.
    Database: Any

    def get_connection_params(self) -> Any:
        """What a connection is opened with. Who is to be asked for a password is asked here."""

    def open_connection(self, params: Any) -> Any:
        """Open and guard a physical connection."""

    def opener(self) -> Borrower:
        """Another one of its kind, to open connections in another thread."""

    def leads_to(self, key: PoolKey) -> bool:
        """Whether what it would open here and now belongs into that pool."""

    def release(self, *, if_idle: bool = False) -> None:
        """End the lease, unless an atomic block is open.

        :param if_idle: nor with autocommit off, or where other threads may use it.
        """

    def reset_atomic_state(self) -> None:
        """Leave all atomic blocks."""

    def detach_lease(self) -> None:
        """Forget a connection that is no longer its own: in a child, the parent's."""


class BasePool(ABC):
    """One pool, as its leases, its gate, its housekeeping and its reports use it."""

    key: PoolKey
    options: PoolOptions
    driver: Any
    #: The leases that are out.
    leases: set[Any]
    #: Leases whose borrower is gone. Put there by finalizers, for which SimpleQueue is made.
    lost: queue.SimpleQueue[Any]
    has_lost: bool
    #: Whether a connection goes back as soon as nothing needs it, inside of a work, too: ``POOL["release"]``.
    releases_early: bool
    #: Why no session is kept any more, if so; for people.
    closed_because: str | None
    #: Whether the sessions that come back are kept for the next checkout.
    keeps_sessions: bool
    #: Whether what is out must not be used any more either: the database behind the alias has changed.
    disposed: bool
    #: Sessions opened, closed and reset, and checkouts, since the pool was made.
    opened: int
    closed: int
    checkouts: int
    resets: int
    #: The lock to hold for reading several counters as of one moment, without a call.
    counting: Any
    meters: Meters
    #: Why the last session could not be opened, unless one was opened since.
    connect_error: Exception | None
    #: What retires the surplus, and opens sessions ahead of their use.
    housekeeping: Any

    @property
    @abstractmethod
    def out(self) -> int:
        """Sessions that are lent."""

    @property
    @abstractmethod
    def idle(self) -> int:
        """Sessions that wait for a checkout."""

    @property
    @abstractmethod
    def opening(self) -> int:
        """Sessions that are being opened, or asked whether they are alive."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Checkouts that wait for a session."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether as many sessions as may be are open or being opened, and none is idle."""

    @property
    @abstractmethod
    def suspended(self) -> bool:
        """Whether no checkout is served."""

    @abstractmethod
    def initialised(self, lease: Any, with_what: Any) -> None:
        """Note that a session has the state that each borrower expects."""

    @abstractmethod
    def drain(self, reason: str) -> None:
        """End the idle sessions now, and each borrowed one when it comes back."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget everything, in a child: it is the parent's."""

    @abstractmethod
    def checkin(self, lease: Any, reason: str | None = None) -> None:
        """Take a lease back: clean, or not at all."""

    @abstractmethod
    def cancel_claim(self, lease: Any) -> None:
        """Leave a lease to its thread, which has woken up."""

    @abstractmethod
    def reclaim(self, *, thoroughly: bool = True, needed: bool = False) -> None:
        """Take back what borrowers that are gone still had."""

    @abstractmethod
    def close_idle(self) -> None:
        """End the idle sessions."""

    @abstractmethod
    def claim_report(self, lease: Any) -> bool:
        """Return whether the caller is the first to report this lease."""

    @abstractmethod
    def watch(self) -> None:
        """Look anew whether the borrowers' stacks are to be kept."""

    @abstractmethod
    def leases_of_this_thread(self) -> list[Any]:
        """Return the leases that the calling thread has."""


class Slots(ABC):
    """Where a pool keeps its sessions, and who waits for one.

    ``FairQueuePool`` is one, and ``poolclass.Counted`` makes one of any other pool class of SQLAlchemy's. A
    session in its slot is called a handle: what ``take()`` returned, for ``put()`` and ``free()``.
    """

    #: How many sessions there may be (``Bounds``); None: no limit.
    bounds: Any
    #: Whether no checkout is served.
    suspended: bool
    #: Called where there is a surplus, or too little is idle.
    unbalanced: Callable[[], object]
    #: Returns why a session is not to be handed out, None if it is.
    unfit: Callable[[Any], str | None]
    #: Returns the seconds until a session may be opened for a ticket that waits.
    opening_delay: Callable[[Ticket], float]
    #: Returns whether no session may be opened, for want of a server or of room there.
    out_of_reach: Callable[[], bool]

    @property
    @abstractmethod
    def idle(self) -> int:
        """Sessions that no checkout and no lease has."""

    @property
    @abstractmethod
    def opening(self) -> int:
        """Sessions that are being opened, or about to be."""

    @property
    @abstractmethod
    def preparing(self) -> int:
        """``opening``, and sessions that are asked whether they are alive."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Tickets that have no slot yet."""

    @property
    @abstractmethod
    def surplus(self) -> int:
        """Sessions beyond what is kept."""

    @property
    @abstractmethod
    def shortage(self) -> int:
        """Sessions that should be idle, and are not there yet."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether a checkout would have to wait."""

    @abstractmethod
    def take(self, ticket: Ticket) -> Any:
        """Return the handle of a session that is fit.

        :raises sqlalchemy.exc.TimeoutError: if none became free for a while; the ticket keeps its place.
        """

    def take_idle(self, lease: Holder) -> Any:
        """Give an idle session to a lease at once, and return its handle; None: ``take()`` has to do it."""
        return None

    def hand_to_ticket(self, entry: Any, ticket: Ticket) -> Ticket:
        """Have a ticket go on with what ``take_idle()`` returned."""
        raise NotImplementedError

    @abstractmethod
    def put(self, handle: Any) -> None:
        """Take back a handle whose session is clean."""

    @abstractmethod
    def free(self, handle: Any = None) -> None:
        """Free the slots that are lost, and close what is in them.

        :param handle: whose slot is among these, for pool classes that can't find out which.
        """

    @abstractmethod
    def hold(self, ticket: Ticket, lease: Holder) -> None:
        """Note that the lease has the ticket's slot from now on."""

    @abstractmethod
    def withdraw(self, ticket: Ticket) -> bool:
        """Have a ticket wait no longer; return False where a slot was found in the last moment."""

    @abstractmethod
    def change(self, bounds: Bounds | None = None, *, suspended: bool | None = None) -> None:
        """Have other bounds from now on, or begin or end to serve nothing.

        :raises NotSupportedError: with a pool class that can't do that.
        """

    @abstractmethod
    def retire(self, most: int, is_old: Callable[[Any], bool]) -> None:
        """Close surplus sessions.

        :param most: how many at most.
        :param is_old: whether a connection was idle for long enough.
        """

    @abstractmethod
    def prepare(self, ticket: Ticket, *, spare: bool = False) -> bool:
        """Open a session for the next checkout; return whether there was need of one.

        :param spare: open one if there is room, however many are idle.
        """

    @abstractmethod
    def serve(self) -> None:
        """Give what there is to the tickets that wait."""

    @abstractmethod
    def wake(self) -> None:
        """Have all waiting threads look up."""

    @abstractmethod
    def abandon(self) -> None:
        """Replace the lock, in a child."""
