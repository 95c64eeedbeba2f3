"""A threaded parent that forks while it is busy in every way, and children that do all they can to it.

Arguments: the settings of a database, how many forks, which kinds of children, and which part of its
code to take out (none: ""). Prints what became of parent and children.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import queue
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, transaction

from tests.support.programs import children
from tests.support.programs.databases import change, held_session, session, set_up
from tests.support.programs.removal import take_out
from tests.support.programs.states import half_read, rest_is_right

#: How many questions a child asks.
ECHOES = 10
#: How many children may be alive at once.
CROWD = 3


class Marked(Exception):
    """What a child of the kind "raise" dies of."""


class Parent:
    """What the parent's threads do, and what they find."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        #: One entry for each row that the open transaction is to get; None: commit.
        self.rows: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        #: One entry for each row that the streaming thread is to read; None: all the rest.
        self.pace: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.failures: list[str] = []
        self.wrong: list[str] = []
        #: How much each thread asked.
        self.asked: dict[str, int] = {}
        #: Sessions that must outlive the storm: who has it, before and after.
        self.sessions: dict[str, list[int]] = {}
        #: Driver connections and cursors that children lay their hands on.
        self.raw: list[Any] = []
        self.cursors: list[Any] = []
        #: What each thread is in the middle of, and in how many forks any was.
        self.busy: dict[str, str] = {}
        self.forks_meanwhile: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[threading.Event], None], name: str) -> None:
        """Run this in a thread, and wait until it says that it has got into its state."""
        ready = threading.Event()

        def run() -> None:
            try:
                work(ready)
            except Exception as error:
                self.failures.append(f"{name}: {type(error).__name__}: {error}")
            finally:
                ready.set()
                with suppress(Exception):
                    connections.close_all()

        thread = threading.Thread(target=run, name=name)
        self._threads.append(thread)
        thread.start()
        ready.wait()

    def end(self) -> None:
        self.stop.set()
        self.rows.put(None)
        self.pace.put(None)
        for thread in self._threads:
            thread.join()

    @contextmanager
    def being(self, state: str) -> Iterator[None]:
        name = threading.current_thread().name
        self.busy[name] = state
        yield
        del self.busy[name]

    def note_busy(self) -> None:
        """Called right before a fork."""
        self.forks_meanwhile.update(set(self.busy.copy().values()))

    def check(self, right: bool) -> None:
        """Take note of a wrong answer."""
        if not right:
            self.wrong.append(threading.current_thread().name)

    def summary(self) -> dict[str, Any]:
        return {
            "failures": self.failures,
            "wrong": self.wrong,
            "sessions": self.sessions,
            "asked": self.asked,
            "forks meanwhile": self.forks_meanwhile,
        }

    @contextmanager
    def same_session(self, name: str, using: str = "default") -> Iterator[None]:
        self.sessions[name] = [held_session(using)]
        yield
        self.sessions[name].append(session(using))

    # --- the threads ---------------------------------------------------------------------------------------

    def keep_idle(self, ready: threading.Event) -> None:
        """A session that waits in its pool."""
        with self.same_session("idle", "idle"):
            self.raw.append(connections["idle"].connection)
            connections["idle"].close()
            ready.set()
            self.stop.wait()

    def keep_borrowed(self, ready: threading.Event) -> None:
        """A lease on which nothing happens."""
        with self.same_session("borrowed"):
            self.raw.append(connections["default"].connection)
            cursor = connections["default"].cursor()
            cursor.execute("SELECT 1")
            self.cursors.append(cursor)
            ready.set()
            self.stop.wait()
            self.check(cursor.fetchone() == (1,))

    def keep_transaction(self, ready: threading.Event) -> None:
        """A transaction that gets a row in each round, and is committed in the end."""
        with self.same_session("in a transaction"), transaction.atomic():
            self.raw.append(connections["default"].connection)
            ready.set()
            while who := self.rows.get():
                change("INSERT INTO storm (who) VALUES (%s)", who)

    def echo(self, ready: threading.Event) -> None:
        """Ask and compare without a pause."""
        name = threading.current_thread().name
        with self.same_session(name):
            self.raw.append(connections["default"].connection)
            ready.set()
            for number in itertools.count(1):
                if self.stop.is_set():
                    break
                with self.being("in a query"):
                    right = echo(number)
                self.check(right)
                self.asked[name] = number

    def take_turns(self, ready: threading.Event) -> None:
        """Borrow the only session of a pool, which others do too, ask, and give it back, without a pause."""
        name = threading.current_thread().name
        with self.same_session(name, "turns"):
            ready.set()
            for number in itertools.count(1):
                if self.stop.is_set():
                    break
                connections["turns"].close()
                # Meanwhile somebody else has his turn.
                self.check(echo(number))
                with self.being("waiting"):
                    connections["turns"].ensure_connection()
                self.check(echo(number, using="turns"))
                self.asked[name] = number

    def connect(self, ready: threading.Event) -> None:
        """Open a session, ask one thing, and close it, without a pause."""
        name = threading.current_thread().name
        ready.set()
        for number in itertools.count(1):
            if self.stop.is_set():
                break
            with self.being("connecting"):
                connections["anew"].ensure_connection()
            self.check(echo(number, using="anew"))
            connections["anew"].close()
            self.asked[name] = number

    def stream(self, ready: threading.Event) -> None:
        """Read a long result, one row in each round."""
        with self.same_session("streaming"), half_read() as cursor:
            self.raw.append(connections["default"].connection)
            self.cursors.append(cursor)
            ready.set()
            for read in itertools.count(2):
                if not self.pace.get():
                    break
                self.check(cursor.fetchone()[0] == read)
            self.check(rest_is_right(cursor, read - 1))


def echo(number: int, using: str = "default") -> bool:
    """Whether the answer is the one to this question."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT SLEEP(0.002), %s", (number,))
        answers = list(cursor.fetchall())
    return answers == [(0, number)]


# --- the children -------------------------------------------------------------------------------------------


class Children:
    """What each kind of child does. Called in the child."""

    def __init__(self, parent: Parent, errors: int) -> None:
        self._parent = parent
        self._errors = errors

    def work(self, kind: str) -> children.Work:
        works: dict[str, children.Work] = {
            "exit": self.exit,
            "collect": self.collect,
            "close": self.close,
            "query": self.query,
            "touch": self.touch,
            "intrude": self.intrude,
            "fail": self.fail,
            "exit in a transaction": self.exit,
        }

        def work() -> children.Report:
            report = works[kind]()
            # What the frames of lost threads refer to is never freed: it must not hang on the parent.
            self._parent.raw.clear()
            self._parent.cursors.clear()
            return report

        return work

    def exit(self) -> children.Report:
        """Nothing, but the interpreter's end frees everything."""
        gc.unfreeze()
        return {}

    def collect(self) -> children.Report:
        """Drop the wrappers and collect what they kept."""
        for alias in ("default", "stream"):
            del connections[alias]
        gc.collect()
        return {}

    def close(self) -> children.Report:
        """Close everything, through Django and directly."""
        connections.close_all()
        for cursor in self._parent.cursors:
            cursor.close()
        for raw in self._parent.raw:
            raw.close()
        return {}

    def query(self) -> children.Report:
        """Honest work in a session of its own."""
        newest = max(itertools.chain(*self._parent.sessions.values()))
        own = session()
        right = sum(echo(number) for number in range(ECHOES))
        return {"own session": own > newest and session() == own, "right": right}

    def touch(self) -> children.Report:
        """Use the inherited driver connections and cursors."""
        attempts: list[Callable[[], object]] = []
        for raw in self._parent.raw:
            attempts += [raw.ping, raw.commit, raw.rollback, raw.cursor]
            attempts += [partial(raw.query, "SELECT 1"), partial(raw.autocommit, True)]
        for cursor in self._parent.cursors:
            attempts += [cursor.fetchone, cursor.fetchall, partial(cursor.execute, "SELECT 1")]
        return {"attempts": len(attempts), "refused": sum(map(is_refused, attempts))}

    def intrude(self) -> children.Report:
        """Query inside the atomic block that the forking thread is in, and then leave it by the end."""
        try:
            change("INSERT INTO storm (who) VALUES ('intruder')")
        except DatabaseError as error:
            return {"refusal": str(error)}
        return {"refusal": None}

    def fail(self) -> children.Report:
        """Die of an exception, whose traceback goes elsewhere."""
        os.dup2(self._errors, sys.stderr.fileno())
        return {}


def is_refused(attempt: Callable[[], object]) -> bool:
    """With the driver's own InterfaceError, or Django's."""
    import MySQLdb

    try:
        attempt()
    except (MySQLdb.InterfaceError, InterfaceError):
        return True
    return False


def die() -> None:
    """The ending of the kind "fail"."""
    raise Marked


#: Those that are forked in the middle of a transaction of the forking thread.
IN_TRANSACTION = ("close", "intrude", "fail", "exit in a transaction")


# --- the storm ----------------------------------------------------------------------------------------------


def storm(database: dict[str, Any], forks: int, kinds: list[str], without: str) -> dict[str, Any]:
    """All of it."""
    pools: dict[str, Any] = {
        "default": {},
        "idle": {"pool_size": 1},
        "turns": {"pool_size": 1, "max_overflow": 0},
        "stream": {},
        "anew": False,
    }
    set_up({alias: {**database, "POOL": pool} for alias, pool in pools.items()})
    change("CREATE TABLE storm (id INTEGER AUTO_INCREMENT PRIMARY KEY, who TEXT) ENGINE=InnoDB")
    take_out(without)
    # What the children's collectors don't touch needs not be copied for them: most of their time, else.
    gc.freeze()
    parent = Parent()
    parent.start(parent.keep_idle, "idle")
    parent.start(parent.keep_borrowed, "borrowed")
    parent.start(parent.keep_transaction, "in a transaction")
    parent.start(parent.stream, "streaming")
    parent.start(parent.echo, "asking")
    parent.start(parent.take_turns, "waiting 1")
    parent.start(parent.take_turns, "waiting 2")
    parent.start(parent.connect, "connecting")
    with parent.same_session("forking"):
        outcomes = fork_all(parent, forks, kinds)
    parent.end()
    connections.close_all()
    return {**outcomes, "committed": committed(), **parent.summary()}


def fork_all(parent: Parent, forks: int, kinds: list[str]) -> dict[str, Any]:
    """Fork one after the other, with up to ``CROWD`` of them alive."""
    said: dict[str, list[children.Report]] = {kind: [] for kind in kinds}
    inherited: list[str] = []
    crowd: deque[tuple[str, children.Child]] = deque()

    def reap() -> None:
        kind, child = crowd.popleft()
        report = child.finish()
        inherited.extend(report.pop("inherited", ["it never said"]))
        said[kind].append(report)

    with tempfile.TemporaryFile() as errors, half_read("stream") as rows:
        parent.cursors.append(rows)
        works = Children(parent, errors.fileno())
        for number in range(forks):
            kind = kinds[number % len(kinds)]
            fork = (children.fork, children.process)[number // len(kinds) % 2]
            parent.rows.put("thread")
            parent.pace.put("on")
            parent.check(rows.fetchone()[0] == number + 2)
            if kind in IN_TRANSACTION:
                with transaction.atomic():
                    change("INSERT INTO storm (who) VALUES ('main')")
                    parent.note_busy()
                    child = fork(works.work(kind), die if kind == "fail" else None)
            else:
                parent.note_busy()
                child = fork(works.work(kind), die if kind == "fail" else None)
            crowd.append((kind, child))
            # A child forked while multiprocessing has others would wait for them at its exit, and fail.
            while len(crowd) == CROWD or (crowd and (number + 1) % len(kinds) == 0):
                reap()
        parent.check(rest_is_right(rows, forks + 1))
        errors.seek(0)
        deaths = errors.read().decode()
    return {
        "children": {kind: counted(reports) for kind, reports in said.items()},
        "inherited": inherited,
        "tracebacks": deaths.count("Traceback (most recent call last)"),
        "marked": deaths.count("\nMarked\n"),
        "ignored": deaths.count("Exception ignored"),
    }


def counted(reports: list[children.Report]) -> list[tuple[children.Report, int]]:
    """The different ones, and how many there are of each."""
    return [(report, reports.count(report)) for i, report in enumerate(reports) if report not in reports[:i]]


def committed() -> dict[str, int]:
    """The rows of the table, by who made them."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT who, COUNT(*) FROM storm GROUP BY who ORDER BY who")
        return dict(cursor.fetchall())


if __name__ == "__main__":
    print(json.dumps(storm(*map(json.loads, sys.argv[1:]))))
