"""Waiting, bursts and outages: poollife's queue and SQLAlchemy's in one process.

``benchmarks.bench`` starts it, and gives it the kind of server, the database and the part to measure as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.db import Error
from sqlalchemy import exc

from benchmarks.board import board
from benchmarks.dialects import DIALECTS, Dialect
from benchmarks.peers import SHARED
from benchmarks.sizing import sizing
from benchmarks.ways import Way, ways
from servers import Proxy

THREADS = 20
#: The turns whose cost is measured: the number of threads, and the statement of each turn or its seconds.
TURNS: dict[str, tuple[int, str | float]] = {
    "no waiting, no query": (1, ""),
    "twenty threads, no query": (THREADS, ""),
    "twenty threads, SELECT 1": (THREADS, "SELECT 1"),
    "twenty threads, a millisecond of work": (THREADS, 0.001),
}
#: Seconds for which a request of the part ``waiting`` has its session.
HOLD = 0.02
#: A spike: requests at once, idle sessions, seconds of opening a session, seconds of a request's work.
SPIKE, IDLE, CONNECT, WORK = 50, 5, 0.15, 0.002


def at_once(work: Callable[[int], None], number: int) -> None:
    """Call a function in threads that begin at the same moment, and wait for their ends.

    :param work: the function; its argument is the number of the thread.
    :param number: the number of threads.
    :raises Exception: the first error of a thread.
    """
    barrier = threading.Barrier(number)
    errors: list[Exception] = []

    def run(which: int) -> None:
        barrier.wait()
        try:
            work(which)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def fair(dialect: Dialect, entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the turns of each of twenty threads on four sessions, with one query in each turn."""
    found: dict[str, Any] = {}
    for name, make in ways(dialect, entry, SHARED, 0).items():
        way = make()
        counts, given_up = crowd(way, THREADS, "SELECT 1", seconds)
        way.end()
        found[name] = {"least": min(counts), "most": max(counts), "given_up": given_up}
    return found


def turns(
    dialect: Dialect, entry: dict[str, Any], rounds: int, seconds: float
) -> dict[str, dict[str, list[list[float]]]]:
    """Return the cost of a turn by work and way: microseconds on the clock, and of the process."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    all_ways = {name: make() for name, make in ways(dialect, entry, SHARED, 0).items()}
    for _ in range(rounds):
        for work, (threads, sql) in TURNS.items():
            statement = sql if isinstance(sql, str) else dialect.sleep.format(sql)
            for name, way in all_ways.items():
                clock, process = time.perf_counter(), time.process_time()
                number = sum(crowd(way, threads, statement, seconds)[0])
                clock, process = time.perf_counter() - clock, time.process_time() - process
                found.setdefault(work, {}).setdefault(name, []).append(
                    [clock / number * 1e6, process / number * 1e6]
                )
    for way in all_ways.values():
        way.end()
    return found


def crowd(way: Way, threads: int, sql: str, seconds: float) -> tuple[list[int], int]:
    """Run threads without a pause, each with one turn at least; return their turns and the time-outs.

    :param sql: the statement of a turn; an empty text: none.
    :param seconds: the time after which no thread begins another turn.
    """
    counts, given_up = [0] * threads, [0] * threads
    until = time.monotonic() + seconds

    def insist(number: int) -> None:
        again = True
        while again:
            try:
                handle = way.take()
            except (exc.TimeoutError, Error):
                given_up[number] += 1
            else:
                if sql:
                    way.query(handle, sql)
                way.put(handle)
                counts[number] += 1
            again = time.monotonic() < until

    at_once(insist, threads)
    return counts, sum(given_up)


def waiting(dialect: Dialect, entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the waits, measured and ideal, of requests at twice the rate that the sessions can serve."""
    found: dict[str, Any] = {}
    number, hold = int(seconds * 2 * SHARED / HOLD), dialect.sleep.format(HOLD)
    for name, make in ways(dialect, entry, SHARED, 0).items():
        way, visits, begin = make(), [(0.0, 0.0, 0.0)] * number, time.monotonic() + 1

        at_once(lambda which: come_in_time(way, hold, begin, which, visits), number)  # noqa: B023
        way.end()
        visits.sort()
        waited = sorted(got - came for came, got, _ in visits)
        must = sorted(ideal([(came, left - got) for came, got, left in visits], SHARED))
        last = int(number * 0.99) - 1
        found[name] = {
            "median": waited[number // 2],
            "p99": waited[last],
            "most": waited[-1],
            "ideal_p99": must[last],
            "ratio": waited[last] / must[last],
        }
    return found


def come_in_time(
    way: Way, sql: str, begin: float, which: int, visits: list[tuple[float, float, float]]
) -> None:
    """Make one request at its time, and note when it came, got a session, and left.

    :param sql: the statement of the request.
    :param begin: the time of the first request, in seconds on the monotonic clock.
    :param which: the number of the request.
    """
    time.sleep(max(0.0, begin + which * HOLD / SHARED / 2 - time.monotonic()))
    came = time.monotonic()
    handle = way.take()
    got = time.monotonic()
    way.query(handle, sql)
    way.put(handle)
    visits[which] = came, got, time.monotonic()


def ideal(visits: Sequence[tuple[float, float]], connections: int) -> list[float]:
    """Return the waits of the same requests in a queue that costs nothing.

    :param visits: when each request came, and for how many seconds it had its session.
    """
    free, waits = [0.0] * connections, []
    for came, held in visits:
        free.sort()
        start = max(came, free[0])
        free[0] = start + held
        waits.append(start - came)
    return waits


def spike(dialect: Dialect, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of many requests at once on a few idle sessions, where connecting takes long."""
    found: dict[str, Any] = {}
    work = dialect.sleep.format(WORK)
    with Proxy(entry["HOST"], int(entry["PORT"])) as proxy:
        there = {**entry, "PORT": str(proxy.port)}
        for name, make in ways(dialect, there, IDLE, SPIKE - IDLE).items():
            proxy.connect_delay = 0
            way, before, times = make(), len(proxy.accepted), [0.0] * SPIKE
            idle = threading.Barrier(IDLE)
            at_once(lambda _: fill(way, idle), IDLE)  # noqa: B023
            proxy.connect_delay = CONNECT
            at_once(lambda which: rush(way, work, which, times), SPIKE)  # noqa: B023
            way.end()
            times.sort()
            found[name] = {
                "opened": len(proxy.accepted) - before,
                "median": times[SPIKE // 2],
                "most": times[-1],
            }
    return found


def fill(way: Way, all_are_out: threading.Barrier) -> None:
    handle = way.take()
    all_are_out.wait()
    way.put(handle)


def rush(way: Way, sql: str, which: int, times: list[float]) -> None:
    came = time.monotonic()
    handle = way.take()
    way.query(handle, sql)
    way.put(handle)
    times[which] = time.monotonic() - came


class Attempts:
    """The times of all calls of ``MySQLdb.connect``, which this object replaces."""

    def __init__(self) -> None:
        import MySQLdb

        self.times: list[float] = []
        self._connect = MySQLdb.connect
        MySQLdb.connect = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.times.append(time.monotonic())
        return self._connect(*args, **kwargs)

    def most_in_a_second(self, times: Sequence[float]) -> int:
        return max((bisect(times, begin + 1) - number for number, begin in enumerate(times)), default=0)


def outage(dialect: Dialect, entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the figures of an outage under load: attempts to connect, longest request, first success."""
    found: dict[str, Any] = {}
    attempts = Attempts()
    with Proxy(entry["HOST"], int(entry["PORT"])) as proxy:
        there = {**entry, "PORT": str(proxy.port)}
        for name, make in ways(dialect, there, SHARED, SHARED).items():
            way, visits = make(), list[tuple[float, float, bool]]()
            until = time.monotonic() + seconds + 6
            load = threading.Thread(
                target=at_once,
                args=(lambda _: keep_querying(way, until, visits), THREADS),  # noqa: B023
            )
            load.start()
            time.sleep(1)
            with proxy.dropped():
                down = time.monotonic()
                time.sleep(seconds)
            back = time.monotonic()
            load.join()
            way.end()
            tried = sorted(each for each in attempts.times if down <= each < back)
            found[name] = {
                "requests": sum(down <= came < back for came, _, _ in visits),
                "attempts": len(tried),
                "most_attempts": attempts.most_in_a_second(tried),
                "longest": max(left - came for came, left, _ in visits if down <= came < back),
                "first": min(left for _, left, well in visits if well and left > back) - back,
            }
    return found


def keep_querying(way: Way, until: float, visits: list[tuple[float, float, bool]]) -> None:
    """Make requests with pauses of ten milliseconds, after errors, too; note begin, end and success.

    :param until: the time of the last request, in seconds on the monotonic clock.
    """
    from MySQLdb import MySQLError

    while (came := time.monotonic()) < until:
        handle, well = None, False
        try:
            handle = way.take()
            way.query(handle, "SELECT 1")
            well = True
        except (exc.SQLAlchemyError, MySQLError, Error):
            pass
        finally:
            if handle is not None:
                (way.put if well else way.discard)(handle)
        visits.append((came, time.monotonic(), well))
        time.sleep(0.01)


def main() -> None:
    order = json.load(sys.stdin)
    settings.configure(DATABASES={"default": order["entry"]}, USE_TZ=True)
    import django

    django.setup()
    parts: dict[str, Callable[..., Any]] = {
        "fair": fair,
        "turns": turns,
        "waiting": waiting,
        "spike": spike,
        "outage": outage,
        "sizing": sizing,
        "board": board,
    }
    measure = parts[order["part"]]
    print(json.dumps(measure(DIALECTS[order["dialect"]], order["entry"], *order["arguments"])))


if __name__ == "__main__":
    main()
