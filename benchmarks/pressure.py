"""What becomes of those who wait, and of a burst: poollife's queue beside SQLAlchemy's, in one process.

``benchmarks.__main__`` starts it, and gives it a database and what to measure as JSON.
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
from django.db import DatabaseError, connection, connections
from sqlalchemy import exc
from sqlalchemy.pool import QueuePool

from benchmarks.bare import connector
from poollife import clock
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.tickets import Ticket, current
from servers import Proxy

THREADS, CONNECTIONS = 20, 4
#: Seconds after which one gives up.
TIMEOUT = 5.0
#: What a turn's cost is measured with: threads, and what each asks in its turn.
TURNS = {
    "nobody waits, and nothing is asked": (1, ""),
    "twenty threads, and nothing is asked": (THREADS, ""),
    "twenty threads, SELECT 1": (THREADS, "SELECT 1"),
    "twenty threads, a millisecond of work": (THREADS, "SELECT SLEEP(0.001)"),
}
#: Seconds: what one request needs a connection for where waiting is measured.
HOLD = 0.02
#: A spike: how many come at once, on how many idle sessions, what connecting takes, and their work.
SPIKE, IDLE, CONNECT, WORK = 50, 5, 0.15, 0.002


class Way:
    """One way to have a connection: a method for each step."""

    def take(self) -> Any:
        raise NotImplementedError

    def query(self, handle: Any, sql: str) -> None:
        raise NotImplementedError

    def put(self, handle: Any) -> None:
        raise NotImplementedError

    def throw_away(self, handle: Any) -> None:
        """After an error."""
        self.put(handle)

    def end(self) -> None:
        raise NotImplementedError


class Bare(Way):
    """A pool of SQLAlchemy's without Django."""

    poolclass: type[QueuePool] = QueuePool

    def __init__(self, entry: dict[str, Any], size: int, overflow: int) -> None:
        self._pool: Any = self.poolclass(
            connector(entry),
            pool_size=size,
            max_overflow=overflow,
            timeout=TIMEOUT,
            reset_on_return=None,
        )

    def take(self) -> Any:
        return self._pool.connect()

    def query(self, handle: Any, sql: str) -> None:
        handle.dbapi_connection.query(sql)
        handle.dbapi_connection.store_result()

    def put(self, handle: Any) -> None:
        handle.close()

    def throw_away(self, handle: Any) -> None:
        handle.invalidate()

    def end(self) -> None:
        self._pool.dispose()


class Lent(Bare):
    """poollife's queue without Django: the calls that a lease makes, so without SQLAlchemy's handle."""

    poolclass = FairQueuePool
    #: Who has a session still does.
    active = True

    def take(self) -> Any:
        ticket = current.ticket = Ticket(deadline=clock.monotonic() + TIMEOUT)
        try:
            handle = self._pool.take(ticket)
            self._pool.hold(ticket, self)
            return handle
        except BaseException:
            ticket.active = False
            self._pool.free()
            raise
        finally:
            ticket.active = False
            current.ticket = None

    def put(self, handle: Any) -> None:
        self._pool.put(handle)

    def throw_away(self, handle: Any) -> None:
        handle.invalidate()
        self.put(handle)


class Full(Way):
    """poollife as a site has it."""

    def __init__(self, entry: dict[str, Any], size: int, overflow: int) -> None:
        from poollife import close_pool

        close_pool()
        # Each thread makes a wrapper of its own from these.
        connections.settings["default"].update(
            PORT=entry["PORT"],
            POOL={"pool_size": size, "max_overflow": overflow, "timeout": TIMEOUT, "outage_wait": 0},
        )

    def take(self) -> Any:
        connection.ensure_connection()
        return connection

    def query(self, handle: Any, sql: str) -> None:
        with handle.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()

    def put(self, handle: Any) -> None:
        handle.close()

    def end(self) -> None:
        from poollife import close_pool

        close_pool()


def ways(entry: dict[str, Any], size: int, overflow: int) -> dict[str, Callable[[], Way]]:
    return {
        "SQLAlchemy's QueuePool, bare": lambda: Bare(entry, size, overflow),
        "poollife's FairQueuePool, bare": lambda: Lent(entry, size, overflow),
        "poollife, with Django": lambda: Full(entry, size, overflow),
    }


def at_once(work: Callable[[int], None], number: int) -> None:
    """So many threads that begin at the same moment."""
    barrier = threading.Barrier(number)

    def run(which: int) -> None:
        barrier.wait()
        work(which)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fair(entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Twenty threads on four connections, one query each time: who gets how many turns."""
    found: dict[str, Any] = {}
    for name, make in ways(entry, CONNECTIONS, 0).items():
        way = make()
        counts, given_up = crowd(way, THREADS, "SELECT 1", seconds)
        way.end()
        found[name] = {"least": min(counts), "most": max(counts), "given_up": given_up}
    return found


def turns(entry: dict[str, Any], rounds: int, seconds: float) -> dict[str, dict[str, list[list[float]]]]:
    """What a turn costs, by its work and the way: microseconds by the clock and of the process."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    all_ways = {name: make() for name, make in ways(entry, CONNECTIONS, 0).items()}
    for _ in range(rounds):
        for work, (threads, sql) in TURNS.items():
            for name, way in all_ways.items():
                clock, process = time.perf_counter(), time.process_time()
                number = sum(crowd(way, threads, sql, seconds)[0])
                clock, process = time.perf_counter() - clock, time.process_time() - process
                found.setdefault(work, {}).setdefault(name, []).append(
                    [clock / number * 1e6, process / number * 1e6]
                )
    for way in all_ways.values():
        way.end()
    return found


def crowd(way: Way, threads: int, sql: str, seconds: float) -> tuple[list[int], int]:
    """So many threads that have no pause, each at least once: their turns, and how often one gave up."""
    counts, given_up = [0] * threads, [0] * threads
    until = time.monotonic() + seconds

    def insist(number: int) -> None:
        again = True
        while again:
            try:
                handle = way.take()
            except (exc.TimeoutError, DatabaseError):
                given_up[number] += 1
            else:
                if sql:
                    way.query(handle, sql)
                way.put(handle)
                counts[number] += 1
            again = time.monotonic() < until

    at_once(insist, threads)
    return counts, sum(given_up)


def waiting(entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Requests come at twice the rate that the connections can bear: what they wait, and what they must."""
    found: dict[str, Any] = {}
    number = int(seconds * 2 * CONNECTIONS / HOLD)
    for name, make in ways(entry, CONNECTIONS, 0).items():
        way, visits, begin = make(), [(0.0, 0.0, 0.0)] * number, time.monotonic() + 1

        at_once(lambda which: come_in_time(way, begin, which, visits), number)  # noqa: B023
        way.end()
        visits.sort()
        waited = sorted(got - came for came, got, _ in visits)
        must = sorted(ideal([(came, left - got) for came, got, left in visits], CONNECTIONS))
        last = int(number * 0.99) - 1
        found[name] = {
            "median": waited[number // 2],
            "p99": waited[last],
            "most": waited[-1],
            "ideal_p99": must[last],
            "ratio": waited[last] / must[last],
        }
    return found


def come_in_time(way: Way, begin: float, which: int, visits: list[tuple[float, float, float]]) -> None:
    """One of them."""
    time.sleep(max(0.0, begin + which * HOLD / CONNECTIONS / 2 - time.monotonic()))
    came = time.monotonic()
    handle = way.take()
    got = time.monotonic()
    way.query(handle, f"SELECT SLEEP({HOLD})")
    way.put(handle)
    visits[which] = came, got, time.monotonic()


def ideal(visits: Sequence[tuple[float, float]], connections: int) -> list[float]:
    """What each would wait in a queue that costs nothing, coming when it came and holding for as long."""
    free, waits = [0.0] * connections, []
    for came, held in visits:
        free.sort()
        start = max(came, free[0])
        free[0] = start + held
        waits.append(start - came)
    return waits


def spike(entry: dict[str, Any]) -> dict[str, Any]:
    """Many requests at once on a few idle sessions, where connecting takes longer than their work."""
    found: dict[str, Any] = {}
    with Proxy(entry["HOST"], int(entry["PORT"])) as proxy:
        there = {**entry, "PORT": str(proxy.port)}
        for name, make in ways(there, IDLE, SPIKE - IDLE).items():
            proxy.connect_delay = 0
            way, before, times = make(), len(proxy.accepted), [0.0] * SPIKE
            idle = threading.Barrier(IDLE)
            at_once(lambda _: fill(way, idle), IDLE)  # noqa: B023
            proxy.connect_delay = CONNECT
            at_once(lambda which: rush(way, which, times), SPIKE)  # noqa: B023
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


def rush(way: Way, which: int, times: list[float]) -> None:
    came = time.monotonic()
    handle = way.take()
    way.query(handle, f"SELECT SLEEP({WORK})")
    way.put(handle)
    times[which] = time.monotonic() - came


class Attempts:
    """When somebody tried to connect: each call of ``MySQLdb.connect``, which it takes the place of."""

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


def outage(entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The server goes away for a while, under load: who waits, who tries, and when all is well again."""
    found: dict[str, Any] = {}
    attempts = Attempts()
    with Proxy(entry["HOST"], int(entry["PORT"])) as proxy:
        there = {**entry, "PORT": str(proxy.port)}
        for name, make in ways(there, CONNECTIONS, CONNECTIONS).items():
            way, visits = make(), list[tuple[float, float, bool]]()
            until = time.monotonic() + seconds + 6
            load = threading.Thread(
                target=at_once,
                args=(lambda _: knock(way, until, visits), THREADS),  # noqa: B023
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


def knock(way: Way, until: float, visits: list[tuple[float, float, bool]]) -> None:
    """A client that comes every ten milliseconds, whatever happens."""
    from django.db.utils import Error
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
                (way.put if well else way.throw_away)(handle)
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
    }
    measure = parts[order["part"]]
    print(json.dumps(measure(order["entry"], *order["arguments"])))


if __name__ == "__main__":
    main()
