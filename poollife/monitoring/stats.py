"""Numbers of this process's pools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict

from poollife.board.layout import (
    CLOSED,
    CONNECT_ERRORS,
    LENT,
    MAX_WAITING,
    OPENED,
    PINGED,
    RESETS,
    TICKETED,
    TIMEOUTS,
)
from poollife.pools.meters import HistogramStats, added

if TYPE_CHECKING:
    from poollife.pools.state import PoolState


class PoolStats(TypedDict):
    """The numbers of one alias in this process. Counters count from the moment when the pool was made."""

    #: The id of this process.
    pid: int
    #: The limit of one pool: pool_size + max_overflow; None if sessions are not pooled.
    limit: int | None
    #: Borrowed sessions now.
    out: int
    #: Idle sessions now.
    idle: int
    #: Sessions that are being opened or pinged now.
    opening: int
    #: Checkouts that wait now.
    waiting: int
    #: The most checkouts that ever waited at the same time.
    max_waiting_seen: int
    #: Sessions opened.
    opened: int
    #: Sessions closed.
    closed: int
    #: Checkouts that got a session.
    checkouts: int
    #: Checkouts that ended in a ``PoolTimeout``.
    timeouts: int
    #: Failed attempts to open a session.
    connect_errors: int
    #: Returns that needed a reset; where that is not possible, the session was closed.
    resets: int
    #: Sessions that were closed because they could not be kept, by reason.
    replaced: dict[str, int]
    #: Seconds from the begin of a checkout until it has a session, opening it included. All checkouts count;
    #: a checkout that neither queued nor opened a session counts as 0 seconds.
    wait_time: HistogramStats
    #: Seconds for opening a session.
    create_time: HistogramStats
    #: Seconds from checkout to checkin; None without ``POOL["stats"]``.
    use_time: HistogramStats | None


def pool_stats() -> dict[str, PoolStats]:
    """Return the numbers of this process's pools, by alias. No session is opened for that.

    An alias has several pools if its database, user or options have changed, or if a pool was closed while
    sessions were borrowed: then the numbers of its pools are added up. Counters start at 0 with each pool. A
    closed pool is counted until its last session is returned.

    An alias without a checkout in this process has no entry.

    :returns: for each alias a dictionary with these keys:

        - ``pid``: the id of this process
        - ``limit``: the most sessions of one pool, ``pool_size`` + ``max_overflow``; None without pooling
        - ``out``, ``idle``, ``opening``: sessions that are borrowed, idle, being opened or pinged
        - ``waiting``, ``max_waiting_seen``: checkouts that wait now, and the most that ever did
        - ``opened``, ``closed``: sessions opened and closed so far
        - ``checkouts``, ``timeouts``: checkouts that got a session, and that ended in a ``PoolTimeout``
        - ``connect_errors``: failed attempts to open a session
        - ``resets``: returns that needed a reset
        - ``replaced``: sessions closed because they could not be kept, by reason
        - ``wait_time``, ``create_time``, ``use_time``: histograms in seconds of the checkout, of opening a
          session, and of a lease; ``use_time`` is None without ``POOL["stats"]``. Each is a dictionary with
          ``count``, ``sum``, ``counts`` and ``bounds``.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.live import live_pools
    from poollife.process.atfork import at_fork

    at_fork.ensure_process()
    stats: dict[str, PoolStats] = {}
    for pool in live_pools.strong_references():
        # The leases of dead threads do not count as borrowed.
        pool.reclaim(thoroughly=False)
        if pool.closed_because and not (pool.out or pool.opening):
            continue
        alias, numbers = pool.key.alias, stats_of(pool)
        stats[alias] = _sum(stats[alias], numbers) if alias in stats else numbers
    return stats


def stats_of(pool: PoolState) -> PoolStats:
    """Return the numbers of one pool."""
    out, idle, opening, waiting = pool.out, pool.idle, pool.opening, pool.waiting
    meters, counters = pool.meters, pool.counters
    # No call while the lock is held: FairQueuePool explains this.
    with pool.counting:
        opened, closed, resets = counters[OPENED], counters[CLOSED], counters[RESETS]
        checkouts = counters[LENT] + counters[TICKETED] + counters[PINGED]
        timeouts, connect_errors = counters[TIMEOUTS], counters[CONNECT_ERRORS]
        max_waiting = counters[MAX_WAITING]
    return PoolStats(
        pid=os.getpid(),
        limit=pool.options.limit,
        out=out,
        idle=idle,
        opening=opening,
        waiting=waiting,
        max_waiting_seen=max_waiting,
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
    """Return the sum of the numbers of two pools of one alias.

    :param one: the older pool.
    :param other: the younger pool, which opens new sessions. Its limit is the result's.
    """
    reasons = sorted({*one["replaced"], *other["replaced"]})
    return PoolStats(
        pid=one["pid"],
        limit=other["limit"],
        out=one["out"] + other["out"],
        idle=one["idle"] + other["idle"],
        opening=one["opening"] + other["opening"],
        waiting=one["waiting"] + other["waiting"],
        max_waiting_seen=max(one["max_waiting_seen"], other["max_waiting_seen"]),
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
