"""Exceptions from outside, at every point where CPython delivers them: does each slot come back?

``PyThreadState_SetAsyncExc`` (Celery's time limits, debuggers) and signals strike where the interpreter looks
for them: when a Python function begins, and after a call of a C function. A profile function is told of just
these points, so it can strike at the first, the second, the third ... until the work gets through.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import itertools
import json
import logging
import os
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import MySQLdb
from django.db import connections, transaction
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.pool import QueuePool

from poollife import PooledThread, PooledThreadPoolExecutor, auto_close_db, pool_stats
from poollife.pools import outage as outages
from poollife.pools.tickets import Ticket
from poollife.wsgi import PoolWSGIMiddleware
from tests.support.programs.databases import ask, change, set_up

POOL_SIZE, MAX_OVERFLOW = 2, 1
LIMIT = POOL_SIZE + MAX_OVERFLOW
#: Seconds after which something counts as hanging.
PATIENCE = 30.0
#: The same for SQLAlchemy's queue, where some do hang.
SHORT_PATIENCE = 0.3
#: How many strikes the slots are counted after.
POINTS_TOGETHER = 8
#: Where they strike: all that is between a borrower's code and the C code of the driver, locks included. The
#: standard library's executors are not: struck in there, they lose a worker or a future.
STRUCK = (
    "poollife.",
    "sqlalchemy.",
    "MySQLdb.",
    "django.db.",
    "threading",
    "weakref",
    "_weakrefset",
    "contextlib",
)
#: Functions in which a thread is born and dies.
LIFE = {
    "_bootstrap",
    "_bootstrap_inner",
    "_set_ident",
    "_set_tstate_lock",
    "_set_native_id",
    "_delete",
    "_stop",
}
#: Callbacks of weak references and destructors: what is thrown in there has nowhere to go.
FINALIZERS = {
    "_remove",
    "remove",
    "_borrower_died",
    "__del__",
    "finalize.__call__",
    "WeakRegistry.add.<locals>.<lambda>",
}


class Struck(BaseException):
    """Comes from outside."""


class Failure(Exception):
    """Of a job's own."""


class Strike:
    """Raises ``Struck`` at the nth chance that this thread gives."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.where: str | None = None

    def start(self) -> None:
        sys.setprofile(self)

    @staticmethod
    def stop() -> None:
        sys.setprofile(None)

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event not in ("call", "c_return") or not module.startswith(STRUCK) or is_spared(frame):
            return
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            name = getattr(argument, "__name__", "")
            self.where = f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno} {event} {name}"
            raise Struck(self.where)


def is_spared(frame: Any) -> bool:
    if frame.f_code.co_name in LIFE:
        return True
    while frame:
        if FINALIZERS & {frame.f_code.co_name, frame.f_code.co_qualname}:
            return True
        frame = frame.f_back
    return False


# --- what is struck -----------------------------------------------------------------------------------------


def query() -> None:
    ask("SELECT 1")


def block() -> None:
    with transaction.atomic(), transaction.atomic():
        change("INSERT INTO log VALUES (1)")


def unread() -> None:
    """A session that is thrown away when it comes back."""
    connections["default"].ensure_connection()
    connections["default"].connection.query("SELECT 1; SELECT 2")


def dirty() -> None:
    """A session that is reset when it comes back."""
    ask("SELECT @left := 1")


WORK: dict[str, Callable[[], None]] = {"query": query, "block": block, "unread": unread, "dirty": dirty}


def decorated(strike: Strike, work: Callable[[], None]) -> None:
    run = auto_close_db(work)
    strike.start()
    run()


def generator(strike: Strike, work: Callable[[], None]) -> None:
    @auto_close_db
    def steps() -> Any:
        strike.start()
        query()
        yield
        work()
        yield

    for _ in steps():
        pass


def with_block(strike: Strike, work: Callable[[], None]) -> None:
    try:
        strike.start()
        with auto_close_db():
            work()
    except Struck:
        pass
    # Should the call of __exit__ itself have been struck: the next one makes up for it.
    with auto_close_db():
        pass


def thread(strike: Strike, work: Callable[[], None]) -> None:
    def target() -> None:
        strike.start()
        work()

    started = PooledThread(target=target)
    started.start()
    started.join()


def unwrapped(strike: Strike, work: Callable[[], None]) -> None:
    """Between two statements it gives back, and with the thread's end the rest."""

    def target() -> None:
        try:
            strike.start()
            work()
        finally:
            strike.stop()

    started = threading.Thread(target=target)
    started.start()
    started.join()
    # Looks for what dead threads had.
    pool_stats()


def response(strike: Strike, work: Callable[[], None]) -> None:
    def application(environ: Any, start: Any) -> Iterator[bytes]:
        yield b"part"
        work()
        yield b"part"

    def serve(application: Any) -> None:
        body = PoolWSGIMiddleware(application)({}, lambda *_: None)
        try:
            list(body)
        finally:
            getattr(body, "close", list)()

    with suppress(Struck):
        strike.start()
        serve(application)
    # The next request of this thread makes up for an end that was struck.
    serve(lambda environ, start: [])


class UntilGivenBack(ThreadPoolExecutor):
    """Below ``PooledThreadPoolExecutor``: no job of its is struck after all that ours does for it is done."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        def guarded() -> Any:
            try:
                return fn(*args, **kwargs)
            finally:
                Strike.stop()

        return super().submit(guarded)


class GuardedExecutor(PooledThreadPoolExecutor, UntilGivenBack):
    """What the jobs are given to."""


def make_executor_form() -> Callable[[Strike, Callable[[], None]], None]:
    executor = GuardedExecutor(1)

    def run(strike: Strike, work: Callable[[], None]) -> None:
        def job() -> None:
            strike.start()
            work()

        error = executor.submit(job).exception(PATIENCE)
        assert isinstance(error, Struck | None), error

    return run


FORMS: dict[str, Callable[[], Callable[[Strike, Callable[[], None]], None]]] = {
    "decorated": lambda: decorated,
    "generator": lambda: generator,
    "with": lambda: with_block,
    "thread": lambda: thread,
    "unwrapped": lambda: unwrapped,
    "response": lambda: response,
    "executor": make_executor_form,
}


def everywhere(form: str, work: str, start: str) -> dict[str, Any]:
    """Strike at each point of it.

    :param start: what the pool is like: "cold", "warm", "crowded" (all but one slot in use), "dead" (its
        session was killed), "listened" to (so that SQLAlchemy's own handles are used), "down" (its server was
        away, and another attempt is due), or "refused" (the next attempt fails, the one after that does not).
    """
    report: dict[str, Any] = {"points": 0, "not back": [], "slots lost": [], "hung": []}
    run = FORMS[form]()
    # What one strike has left in a session, the next attempt could cover.
    together = 1 if work == "dirty" else POINTS_TOGETHER
    uncounted: list[str] = []
    threading.excepthook = lambda a: isinstance(a.exc_value, Struck) or threading.__excepthook__(a)
    number, struck = 0, True
    while struck:
        number += 1
        strike = Strike(number)
        prepare(start)
        held = [Holder() for _ in range(LIMIT - 1 if start == "crowded" else 0)]
        here = threading.Thread(target=attempt, args=(run, strike, WORK[work]), daemon=True)
        here.start()
        here.join(PATIENCE)
        struck = strike.where is not None
        where = strike.where or "not struck"
        if here.is_alive():
            report["hung"].append(where)
            break
        for holder in held:
            holder.leave()
        uncounted.append(where)
        judge(uncounted, report, count=len(uncounted) == together or not struck)
    report["points"] = number - 1
    return report


def attempt(
    run: Callable[[Strike, Callable[[], None]], None], strike: Strike, work: Callable[[], None]
) -> None:
    try:
        run(strike, work)
    except Struck:
        pass
    finally:
        strike.stop()
        # This thread lives on: that it has died must not be what gives a connection back.
        stay.append(connections["default"])


#: Wrappers that nobody closes.
stay: list[Any] = []


def judge(places: list[str], report: dict[str, Any], *, count: bool) -> None:
    """Look for what the last strike has cost.

    :param places: where the strikes struck since slots were counted last; emptied by counting.
    :param count: whether to borrow all slots at once. That costs more than a strike. A slot that was lost
        stays lost, so counting after several strikes finds it as well.
    """
    from tests.support.counting import pool_of

    MySQLdb.connect = connect
    pool = pool_of("default")
    if pool.out:
        report["not back"].append(places[-1])
    if not count:
        return
    # A borrower that finds what another has left counts as one that got nothing.
    free = count_free("SELECT @left IS NULL")
    if free != LIMIT:
        report["slots lost" if free >= 0 else "hung"] += places
    places.clear()


def prepare(start: str) -> None:
    """Leave the pool without sessions, or with one."""
    from tests.support.counting import pool_of

    sessions: Any = pool_of("default")._sessions
    if start in ("cold", "down", "refused"):
        sessions.dispose()
        if start == "down":
            outage = pool_of("default")._outage
            outage.failed(Ticket(), MySQLdb.OperationalError(2002, "refused"))
            outage._next_attempt = time.monotonic()
        elif start == "refused":
            outages.FIRST_PAUSE = 0.001
            MySQLdb.connect = refuse_once
        return
    if start == "listened" and not sessions.dispatch.checkout:
        for name in "checkout", "checkin":
            event.listen(sessions, name, lambda *_: None)
    Holder().leave()
    if start == "dead":
        for entry in sessions._free:
            # It may have been shut down for an earlier attempt, which has not come to it.
            with socket.socket(fileno=os.dup(entry.dbapi_connection.fileno())) as its, suppress(OSError):
                its.shutdown(socket.SHUT_RDWR)


connect = MySQLdb.connect


def refuse_once(*args: Any, **kwargs: Any) -> Any:
    MySQLdb.connect = connect
    raise MySQLdb.OperationalError(2002, "refused")


class Holder:
    """A thread with a connection, for as long as it is wanted."""

    def __init__(self, question: str = "SELECT 1") -> None:
        self._has, self._leave = threading.Event(), threading.Event()
        self._question = question
        self.got = False
        self._thread = PooledThread(target=self._hold, daemon=True)
        self._thread.start()
        self._has.wait(PATIENCE)

    def _hold(self) -> None:
        try:
            self.got = ask(self._question) == 1
        finally:
            self._has.set()
        self._leave.wait()

    def leave(self) -> bool:
        """Whether it did."""
        self._leave.set()
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()


def count_free(question: str = "SELECT 1") -> int:
    """How many can be had at once; -1: somebody hangs."""
    holders = [Holder(question) for _ in range(LIMIT)]
    got = sum(holder.got for holder in holders)
    left = [holder.leave() for holder in holders]
    return got if all(left) else -1


# --- SQLAlchemy's own queue ---------------------------------------------------------------------------------


class Stub:
    """A driver's connection."""

    def close(self) -> None:
        pass


def bare() -> dict[str, Any]:
    """Strike ``connect()`` and ``close()`` of a warm QueuePool with one slot at each point."""
    report: dict[str, Any] = {"points": 0, "lost": 0, "hung": 0}
    creator: Any = Stub
    for number in itertools.count(1):
        pool = QueuePool(creator, pool_size=1, max_overflow=0, timeout=0, reset_on_return=None)
        pool.connect().close()
        strike, leave, struck = Strike(number), threading.Event(), threading.Event()
        threading.Thread(target=strike_bare, args=(pool, strike, struck, leave), daemon=True).start()
        struck.wait()
        if strike.where is None:
            leave.set()
            return report
        report["points"] += 1
        got: list[object] = []
        asking = threading.Thread(target=ask_bare, args=(pool, got), daemon=True)
        asking.start()
        asking.join(SHORT_PATIENCE)
        leave.set()
        if got != ["a connection"]:
            report["lost" if got else "hung"] += 1
    raise AssertionError("not reached")


def strike_bare(pool: QueuePool, strike: Strike, struck: threading.Event, leave: threading.Event) -> None:
    try:
        strike.start()
        pool.connect().close()
    except Struck:
        pass
    finally:
        strike.stop()
        gc.collect()
        struck.set()
    # That the thread has ended must not be what gives the connection back.
    leave.wait()


def ask_bare(pool: QueuePool, got: list[object]) -> None:
    try:
        handle = pool.connect()
    except SQLAlchemyTimeout:
        got.append("none")
    else:
        got.append("a connection")
        handle.close()


# --- and at random ------------------------------------------------------------------------------------------


class Striker(threading.Thread):
    """Strikes threads that are at work, as a time limit does: with PyThreadState_SetAsyncExc."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._targets: list[int] = []
        self._over = threading.Event()
        self.strikes = 0

    def guarded(self, job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a job that may be struck, but nothing outside of it."""
        me = threading.get_ident()
        try:
            with self._lock:
                self._targets.append(me)
            return job(*args, **kwargs)
        finally:
            # What was thrown and has not arrived yet arrives here at the latest.
            with self._lock:
                self._targets.remove(me)

    def run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                if self._targets:
                    ident = self._random.choice(self._targets)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(ident), ctypes.py_object(Struck)
                    )
                    self.strikes += 1
            time.sleep(self._random.random() * 0.002)

    def end(self) -> None:
        self._over.set()
        self.join()


class Judge(threading.Thread):
    """Judges the exceptions of finalizers, in a thread of its own.

    A hook in Python could be struck itself. Then the exception that it had to judge would be lost.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._thrown: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sys.unraisablehook = self._thrown.put

    def run(self) -> None:
        while (each := self._thrown.get()) is not None:
            unraisable(each)
            del each  # or it would keep the frames until the next one

    def end(self) -> None:
        sys.unraisablehook = unraisable
        self._thrown.put(None)
        self.join()


class UnderAttack(ThreadPoolExecutor):
    """Below ``PooledThreadPoolExecutor``: its jobs are struck, with all that ours does around them."""

    striker: Striker

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(self.striker.guarded, fn, *args, **kwargs)


class Executor(PooledThreadPoolExecutor, UnderAttack):
    """What the jobs are given to."""


def at_random(jobs: int, seed: int) -> dict[str, Any]:
    """Many jobs, of which some fail, some are cancelled and some are struck."""
    from tests.support.counting import pool_of

    threading.excepthook = lambda a: isinstance(a.exc_value, Struck) or threading.__excepthook__(a)
    judge = Judge()
    judge.start()
    chance = random.Random(seed)
    # SQLAlchemy's loggers keep what they were asked once, under a lock that can be struck.
    count_free()
    striker = UnderAttack.striker = Striker(seed)
    others: Counter[str] = Counter()
    ends = {"well": 0, "failed": 0, "struck": 0, "cancelled": 0}
    # Threads change often, so that they are struck in the middle of Python code and not only after a read.
    sys.setswitchinterval(1e-5)
    executor = Executor(2 * LIMIT)
    striker.start()
    futures = []
    for _ in range(jobs):
        future = executor.submit(chance.choice([query, query, block, unread, fail]))
        futures.append(future)
        if chance.random() < 0.1:
            future.cancel()
        if len(futures) % 50 == 0:
            futures[-1].exception() if not futures[-1].cancelled() else None
    for future in futures:
        try:
            error = future.exception(PATIENCE)
        except CancelledError:
            ends["cancelled"] += 1
        else:
            ends["struck" if isinstance(error, Struck) else "failed" if error else "well"] += 1
            if error and not isinstance(error, Struck | Failure):
                others[f"{type(error).__name__}: {error}"[:200]] += 1
    striker.end()
    judge.end()
    out = pool_of("default").out
    return {
        "ends": ends,
        "others": others,
        "strikes": striker.strikes,
        "out": out,
        "free": count_free(),
        "limit": LIMIT,
    }


def fail() -> None:
    ask("SELECT 1")
    raise Failure


def unraisable(each: Any) -> None:
    """Struck inside a finalizer, it has nowhere to go.

    And where ``__init__`` was struck, the finalizers of Django 6.0 look for what was not set yet. The
    duplicate in drivers/network.py has this class, and its finalizer closes it where its owner was struck,
    but warns.
    """
    module = getattr(each.object, "__module__", None) or ""
    if not (
        isinstance(each.exc_value, Struck)
        or module.startswith("django.db.")
        or type(each.object) is _socket.socket
    ):
        sys.__unraisablehook__(each)


def main(database: dict[str, Any], mode: str, *arguments: Any) -> None:
    logging.disable(logging.CRITICAL)  # SQLAlchemy tells of each of them
    sys.unraisablehook = unraisable
    pool = {"pool_size": POOL_SIZE, "max_overflow": MAX_OVERFLOW, "timeout": 5, **database.pop("POOL", {})}
    set_up({"default": {**database, "POOL": pool}}, LOGGING_CONFIG=None)
    change("CREATE TABLE IF NOT EXISTS log (n INT)")
    connections["default"].close()
    modes: dict[str, Callable[..., Any]] = {"everywhere": everywhere, "at_random": at_random, "bare": bare}
    report = modes[mode](*arguments)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
