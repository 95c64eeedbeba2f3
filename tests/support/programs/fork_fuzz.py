"""Forks at random moments, by threads that connect, query, commit, roll back, stream and return.

Arguments: the settings of a database, a seed, how many forks, how many threads, and which part of its
code to take out (none: ""). What each thread and each child does is drawn from the seed; how the threads take
turns is up to the machine.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, connections, transaction

from poollife.process.atfork import at_fork
from tests.support.programs import children
from tests.support.programs.databases import ask, change, held_session, hold, set_up
from tests.support.programs.removal import take_out
from tests.support.programs.states import half_read, rest_is_right

#: Seconds before a thread may fork, at most.
PAUSE = 0.002
#: How many sessions wait in a pool meanwhile.
IDLE = 100


class Undone(Exception):
    """Rolls a transaction back."""


class Fuzz:
    """The threads, and what they find."""

    def __init__(self, seed: int, forks: int) -> None:
        self.seed = seed
        self.committed: list[int] = []
        self.wrong: list[str] = []
        self.failures: list[str] = []
        self._harmed = threading.Event()
        self.done: Counter[str] = Counter()
        self.children: Counter[str] = Counter()
        #: How many children were to write a row in a session of their own.
        self.writers = 0
        self._numbers = itertools.count(1)
        self._forks = iter(range(forks))
        self._over = threading.Event()

    def run(self, threads: int) -> None:
        all_ = self._start(threads)
        for thread in all_:
            thread.join()

    def run_until_harmed(self, threads: int) -> None:
        """Run until something is wrong: after that, threads may wait for ever for lost answers."""
        all_ = self._start(threads)
        while not self._harmed.wait(0.05) and any(thread.is_alive() for thread in all_):
            pass

    def _start(self, threads: int) -> list[threading.Thread]:
        all_ = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]
        for thread in all_:
            thread.start()
        return all_

    def failed(self, what: str) -> None:
        self.failures.append(what)
        self._harmed.set()

    def check(self, right: bool) -> None:
        if not right:
            self.wrong.append(threading.current_thread().name)
            self._harmed.set()

    def _work(self, number: int) -> None:
        walk = Walk(self, random.Random(f"{self.seed}/{number}"))
        try:
            while not self._over.is_set():
                walk.step()
        except Exception as error:
            self.failed(f"thread {number}: {type(error).__name__}: {error}")
        finally:
            connections.close_all()

    def expected_rows(self) -> Counter[int]:
        """How often each number must stand in the table."""
        return Counter({**dict.fromkeys(self.committed, 1), 0: self.writers})

    def next_number(self) -> int:
        return next(self._numbers)

    def may_fork(self) -> bool:
        """Whether one of the forks is left; the last one ends everything."""
        if next(self._forks, None) is None:
            self._over.set()
            return False
        return True


class Walk:
    """What one thread does."""

    def __init__(self, fuzz: Fuzz, chance: random.Random) -> None:
        self._fuzz = fuzz
        self._random = chance
        self._steps: dict[str, Callable[[], None]] = {
            "connect": self.connect,
            "query": self.query,
            "commit": self.commit,
            "roll back": self.roll_back,
            "stream": self.stream,
            "return": self.give_back,
        }

    def step(self) -> None:
        name = self._random.choice(list(self._steps))
        self._steps[name]()
        self._fuzz.done[name] += 1
        self.maybe_fork()

    def connect(self) -> None:
        """A session that is opened and closed."""
        self.check(echo(self._fuzz.next_number(), using="anew"))
        self.maybe_fork("anew")
        connections["anew"].close()

    def query(self) -> None:
        hold()  # until a step gives it back
        self.check(echo(self._fuzz.next_number()))

    def commit(self) -> None:
        number = self._fuzz.next_number()
        with transaction.atomic():
            change("INSERT INTO fuzz (number) VALUES (%s)", number)
            self.maybe_fork()
        self._fuzz.committed.append(number)

    def roll_back(self) -> None:
        try:
            with transaction.atomic():
                change("INSERT INTO fuzz (number) VALUES (%s)", -self._fuzz.next_number())
                self.maybe_fork()
                raise Undone
        except Undone:
            pass

    def stream(self) -> None:
        with half_read() as cursor:
            self.maybe_fork()
            self.check(rest_is_right(cursor))

    def give_back(self) -> None:
        connections["default"].close()

    def check(self, right: bool) -> None:
        self._fuzz.check(right)

    def maybe_fork(self, using: str = "default") -> None:
        time.sleep(self._random.random() * PAUSE)
        if self._random.random() < 0.5 or not self._fuzz.may_fork():
            return
        kind = self._random.choice(list(KINDS))
        raw = connections[using].connection
        if kind == "intrude" and not connections["default"].in_atomic_block:
            self._fuzz.writers += 1
        ending = die if kind == "die" else children.finalize
        report = children.fork(lambda: KINDS[kind](raw), ending).finish()
        self._fuzz.children[kind] += 1
        if report != {"inherited": [], "status": -signal.SIGKILL if kind == "die" else 0}:
            self._fuzz.failed(f"child ({kind}): {report}")


def echo(number: int, using: str = "default") -> bool:
    """Whether the answer is the one to this question."""
    return int(ask("SELECT %s", number, using=using)) == number


# --- the children -------------------------------------------------------------------------------------------


def leave(raw: Any) -> children.Report:
    """Nothing."""
    return {}


def collect(raw: Any) -> children.Report:
    """Drop the wrappers and collect what they kept."""
    gc.unfreeze()
    for wrapper in connections.all(initialized_only=True):
        del connections[wrapper.alias]
    gc.collect()
    return {}


def close(raw: Any) -> children.Report:
    """Close everything, through Django and directly."""
    connections.close_all()
    if raw:
        raw.close()
    return {}


def query(raw: Any) -> children.Report:
    """Honest work in a session of its own, once it is out of its parent's block."""
    connections["anew"].close()
    return {} if all(echo(number, using="anew") for number in range(5)) else {"wrong": True}


def intrude(raw: Any) -> children.Report:
    """Write a row: not in the block that its parent is in, or in a session of its own."""
    may = not connections["default"].in_atomic_block
    try:
        change("INSERT INTO fuzz (number) VALUES (0)")
    except DatabaseError as error:
        return {"error": str(error)} if may else {}
    return {} if may else {"intruded": True}


def touch(raw: Any) -> children.Report:
    """Use the driver's own connection."""
    if raw is None:
        return {}
    try:
        raw.query("SELECT 1") if hasattr(raw, "query") else raw.execute("SELECT 1")
    except raw.InterfaceError:
        return {}
    return {"touched": True}


def die() -> None:
    """Without another word."""
    os.kill(os.getpid(), signal.SIGKILL)


KINDS: dict[str, Callable[[Any], children.Report]] = {
    "leave": leave,
    "die": leave,
    "collect": collect,
    "close": close,
    "query": query,
    "intrude": intrude,
    "touch": touch,
}


# --- all of it ----------------------------------------------------------------------------------------------


def fuzz(database: dict[str, Any], seed: int, forks: int, threads: int, without: str) -> dict[str, Any]:
    """Run it, and say what was found."""
    pools: dict[str, Any] = {"default": {"pool_size": threads}, "anew": False, "idle": {"pool_size": IDLE}}
    set_up({alias: {**database, "POOL": pool} for alias, pool in pools.items()})
    change("CREATE TABLE fuzz (number INTEGER)")
    connections["default"].close()
    take_out(without)
    mine = open_idle()
    # What the children's collectors don't touch needs not be copied for them.
    gc.freeze()
    times = [time_handlers() for _ in range(101)]
    found = Fuzz(seed, forks)
    if without:
        found.run_until_harmed(threads)
        return {"failures": found.failures, "wrong answers": len(found.wrong)}
    found.run(threads)
    rows = written()
    return {
        "forks": found.children.total(),
        "children": found.children,
        "steps": found.done,
        "failures": found.failures,
        "wrong answers": len(found.wrong),
        "lost commits": len(set(found.committed) - rows.keys()),
        "lost sessions": len(set(mine) - set(open_idle())),
        "wrong rows": sorted((rows - found.expected_rows()).elements()),
        "ms in the parent's handlers": round(statistics.median(times) * 1000, 3),
    }


def time_handlers() -> float:
    """Seconds that a fork takes the parent beside the fork itself, with all these idle sessions."""
    start = time.perf_counter()
    at_fork.before()
    at_fork.after_in_parent()
    return time.perf_counter() - start


def open_idle() -> list[int]:
    """Sessions, opened or found all at once, that are idle from then on."""
    together, found = threading.Barrier(IDLE), []

    def open_one() -> None:
        found.append(held_session("idle"))
        together.wait()
        connections["idle"].close()

    threads = [threading.Thread(target=open_one) for _ in range(IDLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def written() -> Counter[int]:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT number, COUNT(*) FROM fuzz GROUP BY number")
        return Counter(dict(cursor.fetchall()))


if __name__ == "__main__":
    print(json.dumps(fuzz(*map(json.loads, sys.argv[1:]))), flush=True)
    if json.loads(sys.argv[-1]):
        # Harmed as they are, neither its threads nor its children can be waited for.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        os._exit(0)
