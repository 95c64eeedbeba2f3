"""The mathematics of the size of a pool: waiting in queues, without a clock and without a database.

Sources:

- J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", Operations Research 9 (1961): the mean
  number of borrowed sessions is the rate of checkouts times the mean hold.
- The machine repair model M/M/c//N (L. Kleinrock, "Queueing Systems", vol. 1, 1975, chapter 3), the queue
  beside T. Engset's model of loss (1918): the threads of a process are the N customers, and the sessions of
  its pool are the c servers.
- The arrival theorem (K. C. Sevcik and I. Mitrani, "The Distribution of Queuing Network States at Input and
  Output Instants", Journal of the ACM 28, 1981): a thread that comes sees the pool as it would be with one
  thread less.
- A. K. Erlang's formulas B and C for a source without a limit (1917). The recursion for B stays in the range
  of floats.

The formulas take durations to be distributed exponentially. ``benchmarks/sizing.py`` compares them with
lognormal holds, in a simulation and in a pool.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import count, islice

#: The part of the checkouts that wait, below which a pool is large enough.
TARGET = 0.01


def mean_out(rate: float, hold: float) -> float:
    """Return the mean number of borrowed sessions (Little's law).

    :param rate: checkouts per second.
    :param hold: mean seconds from checkout to return.
    """
    return rate * hold


def mean_pause(threads: int, rate: float, hold: float, wait: float = 0.0) -> float:
    """Return the mean seconds of a thread from a return to its next checkout, by Little's law; 0.0 at least.

    :param threads: the threads of the process.
    :param rate: checkouts per second of the process.
    :param hold: mean seconds from checkout to return.
    :param wait: mean seconds for which a checkout waited, when ``rate`` was measured.
    :raises ValueError: ``rate`` is not above 0.
    """
    if rate <= 0:
        raise ValueError("the rate of checkouts has to be above 0")
    return max(0.0, threads / rate - hold - wait)


def wait_of_threads(threads: int, sessions: int, pause: float, hold: float) -> float:
    """Return the probability that a checkout waits: M/M/c//N, as a coming thread sees it.

    :param threads: the threads of the process (N), from 1.
    :param sessions: the sessions of the pool (c), from 1.
    :param pause: mean seconds of a thread from a return to its next checkout.
    :param hold: mean seconds from checkout to return.
    """
    if threads <= sessions:
        return 0.0
    if pause <= 0:
        return 1.0
    others = threads - 1
    # The weights of 0, 1, ... borrowing or waiting threads. They are normed as they grow: a large ratio to
    # the power of many threads would leave the range of floats.
    weight = total = 1.0
    waiting = 0.0
    for busy in range(1, others + 1):
        weight *= hold / pause * (others - busy + 1) / min(busy, sessions)
        total += weight
        if busy >= sessions:
            waiting += weight
        if total > 1e100:
            weight, total, waiting = weight / total, 1.0, waiting / total
    return waiting / total


def wait_of_many(sessions: int, rate: float, hold: float) -> float:
    """Return the probability that a checkout waits, if any number of them may come at once: Erlang C.

    :param sessions: the sessions of the pool (c), from 1.
    :param rate: checkouts per second of the process.
    :param hold: mean seconds from checkout to return.
    :returns: 1.0 where the sessions can't serve that rate: then the queue grows without an end.
    """
    *_, waiting = islice(_waits_of_many(mean_out(rate, hold)), sessions)
    return waiting


def _waits_of_many(load: float) -> Iterator[float]:
    """Yield the probabilities for 1, 2, 3, ... sessions."""
    lost = 1.0  # Erlang B of no session
    for sessions in count(1):
        lost = load * lost / (sessions + load * lost)
        yield 1.0 if load >= sessions else lost / (1 - load / sessions * (1 - lost))


def size_for_threads(threads: int, pause: float, hold: float, target: float = TARGET) -> int:
    """Return the least number of sessions with which fewer checkouts than this part wait.

    The other arguments are those of ``wait_of_threads()``. With as many sessions as threads, none waits.

    :param target: the part of the checkouts, such as 0.01.
    """
    # The more sessions, the fewer wait.
    return 1 + bisect_left(
        range(1, threads + 1),
        True,
        key=lambda sessions: wait_of_threads(threads, sessions, pause, hold) < target,
    )


def size_for_many(rate: float, hold: float, target: float = TARGET) -> int:
    """Return the least number of sessions with which fewer checkouts than this part wait.

    The other arguments are those of ``wait_of_many()``.

    :param target: the part of the checkouts, such as 0.01.
    """
    waits = enumerate(_waits_of_many(mean_out(rate, hold)), 1)
    return next(sessions for sessions, waiting in waits if waiting < target)


def most_sessions(limit: int | None, threads: int) -> int:
    """Return the most sessions that the pool of one process may have open at the same time.

    :param limit: of the pool; None: it has none, and each thread may have a session.
    :param threads: the threads of the process.
    """
    return threads if limit is None else limit
