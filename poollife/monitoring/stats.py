"""Numbers of this process's pools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict

from poollife.pools.meters import HistogramStats, added

if TYPE_CHECKING:
    from poollife.pools.state import PoolState


class PoolStats(TypedDict):
    """An alias."""

    pid: int
    #: Of one pool: pool_size + max_overflow; None where sessions are not pooled.
    limit: int | None
    out: int
    idle: int
    #: Sessions that are being opened, or asked whether they are alive.
    opening: int
    #: Checkouts that have to wait.
    waiting: int
    #: Physical connections.
    opened: int
    closed: int
    checkouts: int
    #: Checkouts that ended in a ``PoolTimeout``.
    timeouts: int
    #: Sessions that could not be opened.
    connect_errors: int
    #: Sessions in which something may have been left: reset, or closed where that can't be done.
    resets: int
    #: Sessions that were closed because they could not be kept, by reason.
    replaced: dict[str, int]
    #: Seconds from asking to having a connection, opening it included. It counts all checkouts; those that
    #: neither queued nor opened a session count as instant, and add nothing to the sum.
    wait_time: HistogramStats
    #: Seconds for opening a session.
    create_time: HistogramStats
    #: Seconds from checkout to checkin; None without ``POOL["stats"]``.
    use_time: HistogramStats | None


def pool_stats() -> dict[str, PoolStats]:
    """The numbers of this process, by alias.

    An alias whose database, user or options have changed has several pools, and one that was closed while
    something was out has a second until that is back: their numbers are added up. What counts from the
    beginning does so anew with each pool. A pool that is closed, with nothing out, is not counted any more.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.live import live_pools
    from poollife.process.atfork import at_fork

    at_fork.ensure_process()
    stats: dict[str, PoolStats] = {}
    for pool in live_pools.hold():
        # What dead threads had is not out.
        pool.reclaim(thoroughly=False)
        if pool.closed_because and not (pool.out or pool.opening):
            continue
        alias, numbers = pool.key.alias, stats_of(pool)
        stats[alias] = _sum(stats[alias], numbers) if alias in stats else numbers
    return stats


def stats_of(pool: PoolState) -> PoolStats:
    """One pool's."""
    out, idle, opening, waiting = pool.out, pool.idle, pool.opening, pool.waiting
    meters = pool.meters
    # No call while the lock is held; see FairQueuePool.
    with pool.counting:
        opened, closed = pool.opened, pool.closed
        checkouts, resets = pool.checkouts, pool.resets
        timeouts, connect_errors = meters.timeouts, meters.connect_errors
    return PoolStats(
        pid=os.getpid(),
        limit=pool.options.limit,
        out=out,
        idle=idle,
        opening=opening,
        waiting=waiting,
        opened=opened,
        closed=closed,
        checkouts=checkouts,
        timeouts=timeouts,
        connect_errors=connect_errors,
        resets=resets,
        replaced=dict(meters.replaced),
        wait_time=meters.wait_time.stats(checkouts),
        create_time=meters.create_time.stats(),
        use_time=meters.use_time.stats() if meters.use_time else None,
    )


def _sum(one: PoolStats, other: PoolStats) -> PoolStats:
    """Two pools of one alias, the older one first: new sessions are the younger one's."""
    reasons = sorted({*one["replaced"], *other["replaced"]})
    return PoolStats(
        pid=one["pid"],
        limit=other["limit"],
        out=one["out"] + other["out"],
        idle=one["idle"] + other["idle"],
        opening=one["opening"] + other["opening"],
        waiting=one["waiting"] + other["waiting"],
        opened=one["opened"] + other["opened"],
        closed=one["closed"] + other["closed"],
        checkouts=one["checkouts"] + other["checkouts"],
        timeouts=one["timeouts"] + other["timeouts"],
        connect_errors=one["connect_errors"] + other["connect_errors"],
        resets=one["resets"] + other["resets"],
        replaced={key: one["replaced"].get(key, 0) + other["replaced"].get(key, 0) for key in reasons},
        wait_time=added(one["wait_time"], other["wait_time"]),
        create_time=added(one["create_time"], other["create_time"]),
        use_time=added(one["use_time"], other["use_time"]),
    )
