"""Many threads, or greenlets, use a pool as badly as they can, and then all is counted.

Sessions are killed, threads end with what they have, wrappers are dropped, blocks fail; with ``disturb`` the
pool is closed, resized, suspended and forked, too.
"""

from __future__ import annotations

import importlib
import json
import sys

if "--greenlets" in sys.argv:
    sys.argv.remove("--greenlets")
    importlib.import_module("gevent.monkey").patch_all()

import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import MySQLdb
from django.db import DatabaseError, InterfaceError, connections, transaction

from poollife import auto_close_db, close_pool, drain_pool, pool_stats, resize_pool, resume_pool, suspend_pool
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from poollife.errors import PoolTimeout
from poollife.pools.live import live_pools
from tests.support.programs.databases import ask, change, set_up

SIZE, OVERFLOW = 8, 8
#: What a killed session costs whoever has it: a lost one, or a transaction that was on it.
LOST = {1927, 2006, 2013}
#: Seconds for which nothing may take longer.
PATIENCE = 30.0


class Sessions:
    """Counts at the client: a session is there from before it is connected until it is closed."""

    def __init__(self) -> None:
        self.now = self.most = self.opened = self.closed = 0
        self._lock = threading.Lock()

    def install(self) -> None:
        connect, close = MySQLdb.connect, GuardedConnection.close

        def counted_connect(*args: Any, **kwargs: Any) -> Any:
            self._add(1)
            try:
                connection = connect(*args, **kwargs)
            except BaseException:
                self._add(-1)
                raise
            self.opened += 1
            return connection

        def counted_close(connection: Any) -> None:
            was_open = connection.open
            try:
                close(connection)
            finally:
                if was_open:
                    self.closed += 1
                    self._add(-1)

        MySQLdb.connect = counted_connect
        GuardedConnection.close = counted_close  # type: ignore[method-assign, assignment]

    def _add(self, number: int) -> None:
        with self._lock:
            self.now += number
            self.most = max(self.most, self.now)


class Stress:
    """One run."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        #: By the server's number of the session.
        self.holders: dict[int, int] = {}
        self._wrappers: list[Any] = []
        self._deeds: list[tuple[Callable[[], None], int]] = [
            (self._query, 8),
            (self._hold, 4),
            (self._block, 4),
            (self._fail, 2),
            (self._unread, 1),
            (self._end_with_it, 1),
            (self._drop, 1),
        ]

    @property
    def on(self) -> bool:
        return time.monotonic() < self.until

    def work(self) -> None:
        """What each thread does."""
        deeds, weights = zip(*self._deeds, strict=True)
        while self.on:
            (deed,) = self.random.choices(deeds, weights)
            try:
                # Otherwise a thread like this one gives back after each statement.
                with auto_close_db():
                    deed()
                self.done[deed.__name__.strip("_")] += 1
            except PoolTimeout:
                self.errors["PoolTimeout"] += 1
            except (DatabaseError, InterfaceError, MySQLdb.Error) as error:
                self._note(error)
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            finally:
                connections["default"].close()

    def _note(self, error: Exception) -> None:
        code = error.args[0] if error.args else None
        if code in LOST:
            self.errors[str(code)] += 1
        else:
            self.wrong.append(f"{type(error).__name__}: {error}")

    # --- deeds ------------------------------------------------------------------------------------------

    def _query(self) -> None:
        number, me = ask("SELECT CONNECTION_ID()"), threading.get_ident()
        other = self.holders.setdefault(number, me)
        if other != me:
            self.wrong.append("lent twice")
        if ask("SELECT CONNECTION_ID()") != number:
            self.wrong.append("another session in the middle")
        self.holders.pop(number, None)

    def _hold(self) -> None:
        connections["default"].ensure_connection()
        time.sleep(self.random.uniform(0, 0.01))

    @staticmethod
    def _block() -> None:
        with transaction.atomic():
            change("INSERT INTO log VALUES (1)")

    @staticmethod
    def _fail() -> None:
        with suppress(ZeroDivisionError), transaction.atomic():
            change("INSERT INTO log VALUES (-1)")
            raise ZeroDivisionError

    @staticmethod
    def _unread() -> None:
        connections["default"].ensure_connection()
        connections["default"].connection.query("SELECT 1; SELECT 2")

    def _end_with_it(self) -> None:
        """A thread that ends with what it has, while somebody has its wrapper still."""
        thread = threading.Thread(target=self._borrow_and_end)
        thread.start()
        thread.join(PATIENCE)

    def _borrow_and_end(self) -> None:
        with suppress(DatabaseError):
            connections["default"].ensure_connection()
            self._wrappers = [*self._wrappers[-20:], connections["default"]]

    @staticmethod
    def _drop() -> None:
        connections.create_connection("default").ensure_connection()

    # --- disturbers -------------------------------------------------------------------------------------

    def kill(self, entry: dict[str, Any], connect: Any) -> None:
        """Have the server kill one now and then."""
        admin = connect(
            host=entry["HOST"], port=int(entry["PORT"]), user=entry["USER"], password=entry["PASSWORD"]
        )
        while self.on:
            time.sleep(self.random.uniform(0, 0.1))
            admin.query(f"SELECT id FROM information_schema.processlist WHERE db = '{entry['NAME']}'")
            if alive := admin.store_result().fetch_row(0):
                with suppress(MySQLdb.OperationalError):  # its pool was quicker
                    admin.query(f"KILL {self.random.choice(alive)[0]}")
                    self.done["kill"] += 1
        admin.close()

    def disturb(self) -> None:
        """What operators and programs do to a pool."""
        deeds = [close_pool, self._resize, self._suspend, self._fork]
        while self.on:
            time.sleep(self.random.uniform(0, 0.3))
            deed = self.random.choice(deeds)
            deed("default")
            self.done[deed.__name__.strip("_")] += 1

    def _resize(self, alias: str) -> None:
        size, overflow = self.random.randint(1, SIZE), self.random.randint(0, OVERFLOW)
        resize_pool(alias, pool_size=size, max_overflow=overflow, core_size=min(4, size))

    @staticmethod
    def _suspend(alias: str) -> None:
        suspend_pool(alias)
        time.sleep(0.02)
        resume_pool(alias)

    def _fork(self, alias: str) -> None:
        if (child := os.fork()) == 0:
            os._exit(self._be_a_child())
        if os.waitpid(child, 0)[1]:
            self.wrong.append("a child failed")

    @staticmethod
    def _be_a_child() -> int:
        for _ in range(5):
            with suppress(DatabaseError):  # its session may be killed, too
                return int(ask("SELECT 1") != 1)
            connections["default"].close()
        return 1


def resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - as short as it can be
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stress(entry: dict[str, Any], seed: int, seconds: float, threads: int, disturb: bool) -> dict[str, Any]:
    connect, sessions = MySQLdb.connect, Sessions()
    sessions.install()
    pool = {"pool_size": SIZE, "max_overflow": OVERFLOW, "core_size": 4, "retire_interval": 0.2, "timeout": 5}
    set_up({"default": {**entry, "POOL": pool}})
    change("CREATE TABLE log (n INT) ENGINE=InnoDB")
    connections["default"].close()
    before, run = set(threading.enumerate()), Stress(seed, seconds)
    workers = [threading.Thread(target=run.work) for _ in range(threads)]
    workers.append(threading.Thread(target=run.kill, args=(entry, connect)))
    if disturb:
        workers.append(threading.Thread(target=run.disturb))
    for worker in workers:
        worker.start()
    time.sleep(seconds / 3)
    memory = resident()
    for worker in workers:
        worker.join(seconds + PATIENCE)
    memory = resident() - memory
    hung = sum(worker.is_alive() for worker in workers)
    run._wrappers.clear()
    gc.collect()
    rows = ask("SELECT COUNT(*) FROM log WHERE n < 0")
    connections["default"].close()
    stats = pool_stats()["default"]
    drained = drain_pool("default", timeout=5)
    until = time.monotonic() + PATIENCE
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    return {
        "done": dict(run.done),
        "errors": dict(run.errors),
        "most at once": sessions.most,
        "opened": sessions.opened,
        "memory": memory,
        "hung": hung,
        "wrong": sorted(set(run.wrong)),
        "rolled back and there": rows,
        "out": stats["out"],
        "not back": not drained,
        "opened, not closed": sessions.opened - sessions.closed,
        "pools with something": [
            repr(pool) for pool in live_pools.strong_references() if pool.out or pool.idle
        ],
        "threads": [thread.name for thread in set(threading.enumerate()) - before],
    }


if __name__ == "__main__":
    print(json.dumps(stress(*map(json.loads, sys.argv[1:]))))
