"""The pools of this process that may have leases out, closed pools too, and a thread's leases in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.asyncio import async_unsafe

from poollife.process.atfork import at_fork
from poollife.process.guard import WeakRegistry

if TYPE_CHECKING:
    from poollife.pools.lease import Lease
    from poollife.pools.state import PoolState

#: All pools that may still have leases out, drained pools too.
live_pools: WeakRegistry[PoolState] = WeakRegistry()
#: Pools that no checkout finds any more, until none of their sessions is out. They are kept because a lease
#: whose borrower is gone is found only by way of its pool.
closed_pools: set[PoolState] = set()


def leases_of_this_thread() -> list[Lease]:
    """Return the calling thread's leases, in all pools."""
    at_fork.ensure_process()
    return [lease for pool in live_pools.strong_references() for lease in pool.leases_of_this_thread()]


def release(alias: str | None) -> None:
    """End the calling thread's leases, except leases in an atomic block.

    :param alias: a key of ``DATABASES``; None: all of them.
    :raises SynchronousOnlyOperation: in a coroutine whose thread has borrowed something.
    """
    if leases := [each for each in leases_of_this_thread() if alias in (None, each.pool.key.alias)]:
        _release(leases)


@async_unsafe
def _release(leases: list[Lease]) -> None:
    for lease in leases:
        lease.release()


def end_thread() -> None:
    """End all leases of the calling thread, in atomic blocks too: no code is left that could end these."""
    for lease in leases_of_this_thread():
        lease.reset_atomic_state()
        lease.release()
