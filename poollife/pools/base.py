"""The interfaces of a pool and of its queue, for the modules that a pool consists of.

``poollife.pools.pool`` has the pool itself.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

from poollife.conf import Bounds
from poollife.pools.tickets import Holder, Ticket
from poollife.process.guard import alive


class PoolKey(NamedTuple):
    """The key of a pool. Two wrappers share a pool only if all of its fields are equal."""

    #: The key of ``DATABASES``.
    alias: str
    #: The place of the server, such as ``HOST`` and ``PORT``.
    server: tuple[Any, ...]
    #: ``NAME``.
    database: Any
    #: ``USER``.
    user: Any
    #: ``OPTIONS``, in a form that can be compared and hashed.
    options: Any
    #: The driver: entries of several drivers share Django's alias of no database.
    driver: Any = None

    @property
    def place(self) -> str:
        """The server, for people; empty for a file."""
        # An ENGINE with a key of its own may leave out the server.
        return ":".join(str(part) for part in self.server or () if part)

    def same_database(self, other: PoolKey) -> bool:
        """Return whether both keys lead to the same database, maybe with another user or other options."""
        return (self.server, self.database) == (other.server, other.database)


class PoolClosed(Exception):
    """The error of a checkout whose pool was closed while the checkout waited for a session."""

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        #: The end of the checkout's wait, on the monotonic clock.
        self.deadline = deadline


class Borrower(Protocol):
    """The wrapper that a lease serves, as far as the pool uses it: a DatabaseWrapper of Django's."""

    #: Its lease; None: it has no session.
    lease: Any
    #: The weak reference of the wrapper to itself, a ``BorrowerReference``.
    reference: Any
    #: The thread that may use the wrapper.
    owner: threading.Thread

    @property
    def allow_thread_sharing(self) -> bool:
        """True if other threads may use the wrapper, too."""

    @property
    def is_shared(self) -> bool:
        """True if other threads, or shallow copies of the wrapper, may use its session."""

    #: The driver connection that code works with; None: there is none.
    connection: Any
    #: The blocks of ``transaction.atomic()`` that are open.
    atomic_blocks: list[Any]
    in_atomic_block: bool
    closed_in_transaction: bool
    needs_rollback: bool
    #: The driver's module.
    Database: Any

    def get_connection_params(self) -> Any:
        """Return the parameters for a new driver connection. Calls the ``credentials`` function, if any."""

    def open_connection(self, params: Any) -> Any:
        """Open and guard a driver connection.

        :param params: the result of ``get_connection_params()``.
        """

    def opener(self) -> Borrower:
        """Return another wrapper of the same kind, to open sessions in another thread."""

    def matches_key(self, key: PoolKey) -> bool:
        """Return whether a session that the wrapper opened in this thread now would belong to that pool.

        :param key: of the pool.
        """

    def release(self, *, if_idle: bool = False) -> None:
        """End the lease, unless an atomic block is open.

        :param if_idle: keep the lease as well if autocommit is off, or if other threads may use the wrapper.
        """

    def reset_atomic_state(self) -> None:
        """Leave all atomic blocks."""

    def detach_lease(self) -> None:
        """Remove the lease and the driver connection from the wrapper, without I/O.

        Called in a child, where the session is the parent's, and for a lease whose borrower is gone.
        """


class BorrowerReference(weakref.ref[Any]):
    """A weak reference to a borrower. The borrower makes it once, for all its leases.

    Synchronization: the thread that changes ``borrower.lease``, at a checkout, and the thread that ends that
    lease.
    """

    __slots__ = ("lease",)

    #: The lease that is reported when the borrower dies; None: it has none.
    lease: Any

    def __new__(cls, borrower: object) -> Self:
        reference = super().__new__(cls, borrower, _borrower_died)
        reference.lease = None
        return reference

    def __init__(self, borrower: object) -> None:
        super().__init__(borrower, _borrower_died)  # type: ignore[call-arg]  # the stubs leave it out


def _borrower_died(reference: Any, _alive: Any = alive) -> None:
    # In a child this also runs for threads that exist in the parent only. The argument is there because
    # finalizers run when module globals may be gone.
    if _alive[0] and (lease := reference.lease) is not None:
        lease.report_lost()


class _Gone:
    """An object that dies at once."""


#: The reference of a lease that has ended.
NO_BORROWER = BorrowerReference(_Gone())


class Slots(ABC):
    """The slots of a pool: they have its sessions in them, and checkouts wait for them.

    ``FairQueuePool`` is one implementation. ``poolclass.Counted`` is another, for any other pool class of
    SQLAlchemy's. A handle stands for a session in its slot: ``take()`` returns it, ``put()`` and ``free()``
    take it.
    """

    #: The sizes (``Bounds``); None: no limit.
    bounds: Any
    #: Whether no checkout is served.
    suspended: bool
    #: Called when there is a surplus, or when fewer sessions than ``min_idle`` are idle.
    unbalanced: Callable[[], object]
    #: Returns the reason why a session can't be lent, None if it can.
    reason_to_replace: Callable[[Any], str | None]
    #: Returns the seconds until a session may be opened for a ticket that waits.
    opening_delay: Callable[[Ticket], float]
    #: Returns whether no session can be opened: the server does not answer, or has no room.
    out_of_reach: Callable[[], bool]

    @property
    @abstractmethod
    def idle(self) -> int:
        """Number of sessions that neither a checkout nor a lease has."""

    @property
    @abstractmethod
    def opening(self) -> int:
        """Number of sessions that are being opened, or are about to be."""

    @property
    @abstractmethod
    def preparing(self) -> int:
        """Number of sessions that are being opened or pinged, or are about to be."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Number of tickets that have no slot yet."""

    @property
    @abstractmethod
    def surplus(self) -> int:
        """Number of sessions beyond the core."""

    @property
    @abstractmethod
    def shortage(self) -> int:
        """Number of sessions that ``min_idle`` still asks for, and for which there is room."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """True if a checkout would have to wait."""

    @abstractmethod
    def take(self, ticket: Ticket) -> Any:
        """Return the handle of a session that is fit.

        :param ticket: the calling thread's current ticket.
        :raises sqlalchemy.exc.TimeoutError: if no slot became free for a while; the ticket keeps its place.
        """

    def take_idle(self, lease: Holder) -> Any:
        """Give an idle session to a lease at once, and return its handle; None: ``take()`` has to do it."""
        return None

    def hand_to_ticket(self, entry: Any, ticket: Ticket) -> None:
        """Have a ticket go on with what ``take_idle()`` returned."""
        raise NotImplementedError

    def step_back(self, ticket: Ticket) -> None:
        """Have a ticket give up the slot that it was given (``ticket.served``), and leave the queue."""
        raise NotImplementedError

    @abstractmethod
    def put(self, handle: Any) -> None:
        """Take back a session that is clean."""

    @abstractmethod
    def free(self, handle: Any = None) -> None:
        """Free the slots whose holder is gone, and close the sessions in them.

        :param handle: a session in such a slot, for pool classes that can't find these slots.
        """

    def hold(self, ticket: Ticket, lease: Holder) -> None:
        """Note that the lease has the ticket's slot from now on."""

    def withdraw(self, ticket: Ticket) -> bool:
        """End a ticket's wait; return False if it was given a slot in the last moment."""
        return True

    @abstractmethod
    def change(self, bounds: Bounds | None = None, *, suspended: bool | None = None) -> None:
        """Change the sizes, or suspend or resume the queue.

        :param bounds: the new sizes; None: as before.
        :param suspended: True: serve no ticket from now on. False: serve them again. None: as before.
        :raises NotSupportedError: with a pool class that can't do that.
        """

    def retire(self, most: int, is_old: Callable[[Any], bool]) -> None:
        """Close surplus sessions.

        :param most: the number of sessions to close, at most.
        :param is_old: returns whether a driver connection was idle for long enough.
        """

    @abstractmethod
    def prepare(self, ticket: Ticket, *, spare: bool = False) -> bool:
        """Open a session ahead of its use; return whether there was need of one.

        :param ticket: the calling thread's current ticket.
        :param spare: open a session if there is room for it, however many are idle.
        """

    def serve(self) -> None:
        """Give free slots to the tickets that wait."""

    def wake(self) -> None:
        """Wake all waiting threads, so that each looks at its pool."""

    def abandon(self, counters: Any) -> None:
        """Replace the lock and the counters, in a child."""
