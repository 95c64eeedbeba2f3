"""The part of the checkouts that wait: as ``pool_budget`` calculates it, in a simulation, and in a pool.

Threads pause, borrow a session, hold it and return it. Pauses are distributed exponentially. Holds have a
lognormal distribution, as the times of requests have: many short ones, and a few that are very long.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.db import connection, connections

from benchmarks.dialects import Dialect
from poollife import close_pool
from poollife.board.layout import OPENED
from poollife.monitoring import budget
from poollife.pools.meters import Meters

#: The standard deviation of the logarithm of a hold: one of a hundred is ten times as long as the median.
SIGMA = 1.0
#: Checkouts of a simulation.
SIMULATED = 50_000
#: Threads, mean seconds of a pause, and mean seconds of a hold. They are long beside a turn of a thread on a
#: machine with other load.
LOADS = ((8, 0.08, 0.04), (16, 0.12, 0.04))
#: Sessions less than ``pool_budget`` names, of the second pool for each load.
FEWER = 2


@dataclass(frozen=True)
class Load:
    """Threads that borrow sessions."""

    threads: int
    #: Mean seconds from a return to the next checkout, and from a checkout to the return.
    pause: float
    hold: float
    sigma: float = SIGMA

    def pauses(self, random: random.Random) -> float:
        """Return the seconds of one pause."""
        return random.expovariate(1 / self.pause)

    def holds(self, random: random.Random) -> float:
        """Return the seconds of one hold."""
        return random.lognormvariate(math.log(self.hold) - self.sigma**2 / 2, self.sigma)


def simulate(load: Load, sessions: int, checkouts: int = SIMULATED, seed: int = 1) -> float:
    """Return the part of the checkouts that wait, in a simulation over virtual time.

    :param load: the threads.
    :param sessions: the sessions of the pool.
    :param checkouts: their number.
    :param seed: of the random numbers.
    """
    numbers = random.Random(seed)
    # The time of each event, and whether it is a return.
    events = [(load.pauses(numbers), False) for _ in range(load.threads)]
    heapq.heapify(events)
    queue, free, waited, come = 0, sessions, 0, 0
    while come < checkouts:
        now, is_return = heapq.heappop(events)
        if is_return:
            heapq.heappush(events, (now + load.pauses(numbers), False))
            if queue:
                queue -= 1
                heapq.heappush(events, (now + load.holds(numbers), True))
            else:
                free += 1
            continue
        come += 1
        if free:
            free -= 1
            heapq.heappush(events, (now + load.holds(numbers), True))
        else:
            queue, waited = queue + 1, waited + 1
    return waited / checkouts


class Counts:
    """The counters of a pool at one moment."""

    def __init__(self, meters: Meters, opened: int) -> None:
        assert meters.use_time
        waits, uses = meters.wait_time.stats(), meters.use_time.stats()
        self.checkouts = meters.checkouts
        #: Checkouts that queued: the histogram also has those that opened a session.
        self.queued = waits["count"] - opened
        self.waited, self.held, self.returns = waits["sum"], uses["sum"], uses["count"]


def counts() -> Counts:
    """Return the counters of the pool of this process."""
    pool: Any = connection.lease_pool  # type: ignore[attr-defined]  # poollife's
    return Counts(pool.meters, int(pool.counters[OPENED]))


def measure(load: Load, sessions: int, seconds: float) -> dict[str, float]:
    """Return what threads find in a pool of this process.

    :param load: the threads.
    :param sessions: the limit of the pool.
    :param seconds: for how long they go on.
    """
    close_pool()
    # Each thread makes its own wrapper from these settings.
    connections.settings["default"]["POOL"] = {
        "pool_size": sessions,
        "max_overflow": 0,
        "timeout": 60,
        "stats": True,
    }
    with ThreadPoolExecutor(load.threads) as executor:
        list(executor.map(fill, [threading.Barrier(sessions)] * sessions))
        before, begin = counts(), time.monotonic()
        list(
            executor.map(borrow, [load] * load.threads, range(load.threads), [begin + seconds] * load.threads)
        )
        after, seconds = counts(), time.monotonic() - begin
    checkouts = after.checkouts - before.checkouts
    return {
        "checkouts": checkouts,
        "rate": checkouts / seconds,
        "hold": (after.held - before.held) / (after.returns - before.returns),
        "wait": (after.waited - before.waited) / checkouts,
        "waiting": (after.queued - before.queued) / checkouts,
    }


def fill(all_are_out: threading.Barrier) -> None:
    """Open one of the sessions."""
    connection.ensure_connection()
    all_are_out.wait()
    connection.close()


def borrow(load: Load, seed: int, until: float) -> None:
    """Borrow sessions, each for the time of a hold, until a time on the monotonic clock."""
    numbers = random.Random(seed)
    while time.monotonic() < until:
        time.sleep(load.pauses(numbers))
        connection.ensure_connection()
        time.sleep(load.holds(numbers))
        connection.close()


def sizing(dialect: Dialect, entry: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Return the part of the checkouts that wait, for the size that ``pool_budget`` names and for less.

    The calculation and the simulation begin with the rate and the hold that the pool has measured, as
    ``pool_budget`` does.

    :param seconds: of each of the runs.
    """
    found = []
    for threads, pause, hold in LOADS:
        size = budget.size_for_threads(threads, pause, hold)
        for sessions in (size, size - FEWER):
            seen = measure(Load(threads, pause, hold), sessions, seconds)
            pause_seen = budget.mean_pause(threads, seen["rate"], seen["hold"], seen["wait"])
            found.append(
                {
                    **seen,
                    "threads": threads,
                    "sessions": sessions,
                    "size": budget.size_for_threads(threads, pause_seen, seen["hold"]),
                    "calculated": budget.wait_of_threads(threads, sessions, pause_seen, seen["hold"]),
                    "simulated": simulate(Load(threads, pause_seen, seen["hold"]), sessions),
                }
            )
    close_pool()
    return found
