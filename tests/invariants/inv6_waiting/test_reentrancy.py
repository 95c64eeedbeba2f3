"""Invariant 6 for code that runs in the middle of the pool's own, in the same thread.

That are handlers of signals, finalizers that the cycle collector calls, and handlers of the user's logs. They
may query, and so wait; what they wait for must not be held up by the frame that they have interrupted.
"""

from __future__ import annotations

import ast
import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poollife.board.layout import WAIT_TIME, Cells
from poollife.errors import PoolTimeout
from poollife.monitoring.stats import stats_of
from poollife.pools import log as pools_log
from poollife.pools.meters import Histogram
from poollife.pools.pool import LeasePool
from poollife.process.atfork import Gate
from servers import MariaDB
from tests.support import ROOT
from tests.support.borrowing import PATIENCE
from tests.support.programs.running import run
from tests.support.stubs import StubBorrower, StubServer, refused, stub_pool
from tests.support.web_server import eventually

#: Seconds after which a handler gives up that was held up.
TIMEOUT = 2.0
#: Of a real timer. Before the rule of fair_queue.py a few in a thousand stopped all threads.
SIGNALS = 3000
#: Where a handler may come in, as far as the tests below look.
OURS = ("poollife.pools.", "poollife.monitoring.", "sqlalchemy.pool")


# --- no handler runs in a thread that has a lock ------------------------------------------------------------


class Finding(ast.NodeVisitor):
    """Collects what lets a handler in: calls, loops, and what makes objects that the collector knows."""

    LETS_IN = (
        ast.Call,
        ast.For,
        ast.While,
        ast.With,
        ast.ListComp,
        ast.SetComp,
        ast.DictComp,
        ast.GeneratorExp,
        ast.List,
        ast.Dict,
        ast.Set,
        ast.Lambda,
        ast.Yield,
        ast.Await,
        ast.Raise,
    )

    def __init__(self, properties: set[str]) -> None:
        self.properties = properties
        self.found: list[str] = []

    def visit(self, node: ast.AST) -> None:
        makes_tuple = isinstance(node, ast.Tuple) and len(node.elts) > 3  # up to three are but swapped
        is_property = isinstance(node, ast.Attribute) and node.attr in self.properties
        if isinstance(node, self.LETS_IN) or makes_tuple or is_property:
            self.found.append(ast.unparse(node))
        self.generic_visit(node)


def locked_blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            names = [ast.unparse(item.context_expr) for item in node.items]
            if any(name.endswith((".counting", "_lock")) for name in names):
                yield node.body


def properties_of(trees: list[ast.Module]) -> set[str]:
    """The names that are properties wherever they occur: reading one is a call."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    properties = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        if any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    plain = {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return properties - plain


def test_nothing_is_called_while_a_lock_is_held() -> None:
    """A handler runs where Python calls something or jumps back, and in 3.11 where a container is made."""
    paths = sorted((ROOT / "poollife").rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in paths}
    properties, found, blocks = properties_of(list(trees.values())), {}, 0
    for path, tree in trees.items():
        for block in locked_blocks(tree):
            blocks += 1
            finding = Finding(properties)
            for statement in block:
                finding.visit(statement)
            if finding.found:
                found[f"{path.relative_to(ROOT)}:{block[0].lineno}"] = finding.found
    assert blocks > 20
    assert found == {}


class Points:
    """Calls something at each point at which a handler of a signal may come in, or at the nth only."""

    def __init__(self, handler: Callable[[], object], number: int | None = None) -> None:
        self._handler = handler
        self._number = number
        self.passed = 0

    def __enter__(self) -> Points:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        if event not in ("call", "c_return"):
            return
        if not frame.f_globals.get("__name__", "").startswith(OURS):
            return
        self.passed += 1
        if self._number in (None, self.passed):
            sys.setprofile(None)
            try:
                self._handler()
            finally:
                if self._number is None:
                    sys.setprofile(self)


class Locks:
    """The locks of a pool, and which of them the calling thread has where it should have none."""

    def __init__(self, pool: LeasePool) -> None:
        self._locks: dict[str, Any] = {
            "pool": pool._lock,
            "queue": pool._slots._lock,  # type: ignore[attr-defined]
            "meters": pool.meters._lock,
            "wait_time": pool.meters.wait_time._lock,
            "create_time": pool.meters.create_time._lock,
        }
        self.held: list[str] = []

    def look(self) -> None:
        self.held += [name for name, lock in self._locks.items() if lock._is_owned()]


@pytest.fixture
def pool() -> Iterator[LeasePool]:
    pool = stub_pool("stub", pool_size=2, max_overflow=1, timeout=TIMEOUT, stats=True, outage_wait=0)
    yield pool
    pool.drain("the test is over")


def use_it_all(pool: LeasePool) -> None:
    """Go through all that takes a lock: checkouts, waits in vain, failures, and what operators do."""
    server = StubServer()
    first, second, third = (StubBorrower(server) for _ in range(3))
    for _ in range(2):
        for borrower in (first, second, third):
            borrower.borrow(pool)
        with pytest.raises(PoolTimeout):
            pool.checkout(StubBorrower(server), deadline=0.0)
        for borrower in (first, second, third):
            borrower.give_back()
    first.borrow(pool).killed = True
    first.give_back()
    server.down = refused()
    pool.close_idle()
    with pytest.raises(Exception, match="2002"):
        first.borrow(pool)
    server.down = None
    pool._outage.over()
    first.borrow(pool)
    pool.resize(pool.options.resized("stub", {"pool_size": 1}))
    pool.suspend()
    pool.suspend(False)
    second.borrow(pool)
    pool.reclaim()
    stats_of(pool)
    second.give_back()
    first.give_back()
    pool._slots.retire(1, lambda connection: True)


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
def test_where_a_handler_may_come_in_its_thread_has_no_lock(pool: LeasePool) -> None:
    locks = Locks(pool)
    with Points(locks.look) as points:
        use_it_all(pool)
    assert points.passed > 1000
    assert locks.held == []


def test_where_the_collector_may_run_its_thread_has_no_lock(pool: LeasePool) -> None:
    """It calls the finalizers of whatever was dropped."""
    locks, runs = Locks(pool), 0

    def look(phase: str, info: object) -> None:
        nonlocal runs
        runs += 1
        locks.look()

    before = gc.get_threshold()
    gc.callbacks.append(look)
    try:
        gc.set_threshold(1)
        use_it_all(pool)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(look)
    assert runs > 100
    assert locks.held == []


def test_the_locks_are_looked_at(pool: LeasePool) -> None:
    """Or the above would show nothing."""
    locks = Locks(pool)
    with pool._lock, pool._slots._lock, Points(locks.look):  # type: ignore[attr-defined]
        pool._slots.waiting  # noqa: B018
    assert {"pool", "queue"} <= set(locks.held)


# --- what it waits for comes ------------------------------------------------------------------------------


def use(pool: LeasePool, borrower: StubBorrower) -> None:
    borrower.borrow(pool)
    borrower.give_back()


class Crossing:
    """A thread borrows and gives back, and at one point a handler that queries comes in.

    All other sessions are out, each in a thread that gives back once the handler is there, and borrows again.
    """

    def __init__(self, size: int, point: int, others: int) -> None:
        self.server = StubServer()
        self.pool = stub_pool("stub", pool_size=size, max_overflow=0, timeout=TIMEOUT)
        self.errors: list[BaseException] = []
        self.handled = 0
        self._come, self._leave = threading.Event(), threading.Event()
        self._others = [threading.Thread(target=self._other, daemon=True) for _ in range(others)]
        self._ready = threading.Barrier(others + 1)
        self._point = point

    def run(self) -> bool:
        """Whether the point was reached."""
        for other in self._others:
            other.start()
        self._ready.wait(PATIENCE)
        main = threading.Thread(target=self._main, daemon=True)
        main.start()
        # The first checkout may have to wait: then the others leave by and by.
        main.join(0.01)
        if main.is_alive() and not self._come.is_set():
            eventually("it waits, or is through", lambda: bool(self.pool.waiting) or not main.is_alive())
            self._leave.set()
        main.join(PATIENCE)
        self._leave.set()
        for other in self._others:
            other.join(PATIENCE)
        assert not main.is_alive()
        assert not any(other.is_alive() for other in self._others)
        return bool(self.handled)

    def _main(self) -> None:
        borrower = StubBorrower(self.server)
        with Points(self._handle, self._point):
            self._note(lambda: use(self.pool, borrower))

    def _handle(self) -> None:
        self.handled += 1
        self._come.set()
        self._leave.set()
        handler = StubBorrower(self.server)
        self._note(lambda: use(self.pool, handler))

    def _other(self) -> None:
        borrower = StubBorrower(self.server)
        borrower.borrow(self.pool)
        self._ready.wait(PATIENCE)
        assert self._leave.wait(PATIENCE)
        self._note(borrower.give_back)
        self._note(lambda: use(self.pool, borrower))

    def _note(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self.errors.append(error)


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
@pytest.mark.parametrize(
    ("size", "others"), [(2, 1), (2, 2), (3, 3)], ids=["one is free", "none is free", "three wait"]
)
def test_a_handler_at_any_point_gets_what_others_give_back(size: int, others: int) -> None:
    """And all of them go on: neither the handler nor another thread waits in vain."""
    point, reached = 0, True
    while reached:
        point += 1
        crossing = Crossing(size, point, others)
        reached = crossing.run()
        assert crossing.errors == [], f"at point {point}"
        pool = crossing.pool
        assert (pool.out, pool.waiting, pool.opening, pool.idle) == (0, 0, 0, pool.opened - pool.closed)
        pool.drain("the test is over")
    assert point > 30


def test_a_handler_goes_before_the_checkout_that_it_has_interrupted() -> None:
    """That one waits for the only session, and could not use it before the handler has ended."""
    pool, server = stub_pool("stub", pool_size=1, max_overflow=0, timeout=PATIENCE), StubServer()
    other, waiting = StubBorrower(server), StubBorrower(server)
    other.borrow(pool)
    order: list[str] = []

    def interrupt(ticket: Any) -> float:
        if not order:
            order.append("the handler comes")
            # What it interrupts is in the queue, and is served before the handler asks.
            thread = threading.Thread(target=other.give_back)
            thread.start()
            thread.join(PATIENCE)
            handler = StubBorrower(server)
            handler.borrow(pool)
            order.append("the handler is served")
            handler.give_back()
        return PATIENCE

    pool._slots._patience_of = interrupt  # type: ignore[attr-defined]
    waiting.borrow(pool)
    order.append("the checkout is served")
    assert order == ["the handler comes", "the handler is served", "the checkout is served"]
    assert (pool.out, pool.opened) == (1, 1)
    waiting.give_back()
    pool.drain("the test is over")


def test_a_handler_that_waits_elsewhere_leaves_no_session_idle_here() -> None:
    """It asks another pool; what is served to the checkout below it goes to a thread that can use it."""
    here, elsewhere = (
        stub_pool(name, pool_size=1, max_overflow=0, timeout=PATIENCE) for name in ("here", "elsewhere")
    )
    server = StubServer()
    other, there, waiting = (StubBorrower(server) for _ in range(3))
    other.borrow(here)
    there.borrow(elsewhere)
    got: list[str] = []

    def third() -> None:
        borrower = StubBorrower(server)
        borrower.borrow(here)
        got.append("a session here")
        borrower.give_back()
        there.give_back()

    came: list[str] = []

    def interrupt(ticket: Any) -> float:
        if not came:
            came.append("the handler comes")
            thread = threading.Thread(target=third)
            other.give_back()  # to the checkout that is interrupted
            thread.start()
            handler = StubBorrower(server)
            handler.borrow(elsewhere)  # which has a session when the third thread is through
            got.append("a session elsewhere")
            handler.give_back()
            thread.join(PATIENCE)
        return PATIENCE

    here._slots._patience_of = interrupt  # type: ignore[attr-defined]
    waiting.borrow(here)
    assert got == ["a session here", "a session elsewhere"]
    waiting.give_back()
    for pool in (here, elsewhere):
        pool.drain("the test is over")


@pytest.mark.parametrize("kind", ["handshake", "fork"])
@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
def test_a_handler_at_any_point_between_forks_and_handshakes(kind: str) -> None:
    """It opens a session of its own, and so does another thread meanwhile."""

    def handle() -> None:
        def other() -> None:
            with gate.handshake({"theirs"}):
                done.append("other")

        thread = threading.Thread(target=other, daemon=True)
        if kind == "handshake":
            thread.start()
            thread.join(PATIENCE)
        with gate.handshake({"mine"}):
            done.append("handler")

    def fork() -> None:
        gate.close()
        gate.open()

    def connect() -> None:
        with gate.handshake({"outer"}):
            pass

    point, reached = 0, True
    while reached:
        point += 1
        gate = Gate()
        done: list[str] = []
        with AtForkPoints(handle, point):
            connect() if kind == "handshake" else fork()
        reached = bool(done)
        if reached:
            assert done == (["other", "handler"] if kind == "handshake" else ["handler"])
        assert not gate._handshakes
        assert not gate.closed
    assert point > 5


class AtForkPoints(Points):
    """The points of the gate."""

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        if event in ("call", "c_return") and frame.f_globals.get("__name__") == "poollife.process.atfork":
            self.passed += 1
            if self.passed == self._number:
                sys.setprofile(None)
                self._handler()


def test_threads_that_count_at_the_same_time_lose_nothing() -> None:
    histogram = Histogram(Cells(), WAIT_TIME, 0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count_often, args=(histogram, 5_000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    stats = histogram.stats()
    assert (stats["counts"], stats["sum"]) == ([0, 0, 0, 0, 0, 0, 20_000, 0, 0, 0], 20_000.0)


def count_often(histogram: Histogram, times: int) -> None:
    for _ in range(times):
        histogram.observe(1.0)


# --- the log ----------------------------------------------------------------------------------------------


class Querying(logging.Handler):
    """Keeps the log in the database: by a wrapper of its own, or the one that is just being connected."""

    def __init__(self, pool: LeasePool, server: StubServer) -> None:
        super().__init__()
        self.pool, self.server = pool, server
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        borrower = StubBorrower(self.server)
        borrower.borrow(self.pool)
        self.written.append(record.getMessage())
        borrower.give_back()


@contextmanager
def querying(pool: LeasePool, server: StubServer) -> Iterator[Querying]:
    handler, logger = Querying(pool, server), logging.getLogger("poollife")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_log_in_the_database_has_the_slot_of_what_it_tells_of() -> None:
    """That a session is replaced is told where its slot is back."""
    pool, server = stub_pool("stub", pool_size=1, max_overflow=0, timeout=TIMEOUT), StubServer()
    borrower = StubBorrower(server)
    borrower.borrow(pool).killed = True
    rule = pool.liveness.reason_to_replace
    pool.liveness.reason_to_replace = lambda connection: None  # type: ignore[method-assign]
    connection = borrower.connection
    connection.killed = False
    borrower.give_back()
    connection.killed = True
    pool.liveness.reason_to_replace = rule  # type: ignore[method-assign]
    with querying(pool, server) as handler:
        borrower.borrow(pool)
        assert handler.written == []
        borrower.give_back()
    assert handler.written == ["Pool 'stub' replaces a session: closed by the server, or out of reach"]
    assert pool.meters.timeouts == 0
    pool.drain("the test is over")


def test_what_a_failed_checkout_has_noticed_is_told() -> None:
    pool, server = stub_pool("stub", pool_size=1, max_overflow=0, timeout=TIMEOUT), StubServer()
    borrower = StubBorrower(server)
    borrower.borrow(pool)
    borrower.give_back()
    (connection,) = server.alive
    connection.killed = True
    server.down = ValueError("not today")
    told: list[str] = []
    logger = logging.getLogger("poollife")
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(ValueError, match="not today"):
            borrower.borrow(pool)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert told == ["Pool 'stub' replaces a session: closed by the server, or out of reach"]
    assert not pools_log.pending
    pool.drain("the test is over")


# --- a real server, and real signals ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_handler_of_real_signals_queries(mariadb: MariaDB, new_database: Callable[[], str]) -> None:
    """Every few milliseconds, in the middle of whatever its thread does: all get what they ask for."""
    database = {
        **mariadb.database(new_database()),
        "ENGINE": "poollife.backends.mysql",
        "POOL": {"pool_size": 2, "max_overflow": 0, "timeout": 5},
    }
    report = run("signals", database, SIGNALS)
    assert (report["failed"], report["out"]) == ([], 0)
    assert report["handled"] >= SIGNALS


def test_this_module_is_named_where_the_rule_is() -> None:
    assert Path(__file__).name in (ROOT / "poollife/pools/fair_queue.py").read_text()
