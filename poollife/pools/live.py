"""The pools of this process that may have leases out, the closed ones too, and a thread's leases in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poollife.pools.base import BasePool
from poollife.process.atfork import at_fork
from poollife.process.guard import WeakRegistry

if TYPE_CHECKING:
    from poollife.pools.lease import Lease

#: Every pool that may still have leases out, the drained ones too.
live_pools: WeakRegistry[BasePool] = WeakRegistry()
#: Those that no checkout finds any more, until nothing is out. Only by way of its pool is a lease found again
#: whose borrower is gone.
closed_pools: set[BasePool] = set()


def leases_of_this_thread() -> list[Lease]:
    """Return what the calling thread has borrowed, from all pools."""
    at_fork.ensure_process()
    return [lease for pool in live_pools.hold() for lease in pool.leases_of_this_thread()]


def release(alias: str | None) -> None:
    """End the calling thread's leases, but for those in an atomic block.

    :param alias: only of this key of ``DATABASES``; None: of all.
    """
    for lease in leases_of_this_thread():
        if alias in (None, lease.pool.key.alias):
            lease.release()


def end_thread() -> None:
    """End all that the calling thread has: nothing goes on in it that could end an atomic block."""
    for lease in leases_of_this_thread():
        lease.reset_atomic_state()
        lease.release()
