"""Numbers of this process's pools."""

from __future__ import annotations

import os
from typing import TypedDict


class PoolStats(TypedDict):
    """An alias."""

    pid: int
    #: Of one pool: pool_size + max_overflow; None where sessions are not pooled.
    limit: int | None
    out: int
    idle: int
    #: Physical connections.
    opened: int
    closed: int
    checkouts: int
    #: Sessions in which something may have been left: reset, or closed where that can't be done.
    resets: int


def pool_stats() -> dict[str, PoolStats]:
    """The numbers of this process, by alias.

    An alias whose database, user or options have changed has several pools, and one that was closed while
    something was out has a second until that is back: their numbers are added up. ``opened``, ``closed`` and
    ``checkouts`` begin anew with each pool.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.drivers.atfork import at_fork
    from poollife.pools.pool import live_pools

    at_fork.ensure_process()
    stats: dict[str, PoolStats] = {}
    for pool in live_pools.hold():
        # What dead threads had is not out.
        pool.reclaim(thoroughly=False)
        sum_ = stats.setdefault(
            pool.key.alias,
            PoolStats(
                pid=os.getpid(),
                limit=pool.options.limit,
                out=0,
                idle=0,
                opened=0,
                closed=0,
                checkouts=0,
                resets=0,
            ),
        )
        sum_["out"] += pool.out
        sum_["idle"] += pool.idle
        sum_["opened"] += pool.opened
        sum_["closed"] += pool.closed
        sum_["checkouts"] += pool.checkouts
        sum_["resets"] += pool.resets
    return stats
