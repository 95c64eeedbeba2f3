"""Numbers of this process's pools."""

from __future__ import annotations

import os
from typing import TypedDict


class PoolStats(TypedDict):
    """One pool."""

    pid: int
    #: The limit: pool_size + max_overflow; None where sessions are not pooled.
    limit: int | None
    out: int
    idle: int
    #: Physical connections, since the pool was made.
    opened: int
    closed: int
    checkouts: int


def pool_stats() -> dict[str, PoolStats]:
    """The pools of this process, by alias; where an alias has several (its database changed), the newest."""
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.registry import registry

    return {
        pool.key.alias: PoolStats(
            pid=os.getpid(),
            limit=pool.options.limit,
            out=pool.out,
            idle=pool.idle,
            opened=pool.opened,
            closed=pool.closed,
            checkouts=pool.checkouts,
        )
        for pool in registry.pools()
    }
