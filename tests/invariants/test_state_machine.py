"""A state machine takes random steps over a pool, and checks after each of them all that must hold.

The server is a stub. ``make stress`` does the like with threads on a real one.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from poollife.errors import PoolTimeout
from poollife.pools.base import PoolKey
from poollife.pools.collector import collector
from poollife.pools.liveness import Liveness
from poollife.pools.pool import LeasePool
from poollife.pools.registry import registry
from tests.support.stubs import STUB_DRIVER, StubBorrower, StubConnection, StubServer, pool_options, refused

#: How many in all; POOLLIFE_MACHINE_STEPS=1000000 goes on for long.
STEPS = int(os.environ.get("POOLLIFE_MACHINE_STEPS", "10000"))
PARTS = 5
RECYCLE = 1000
RETIRE_INTERVAL = 10.0
#: Which of those that there are. Drawn from as many always: what there is depends on the pool's own random
#: numbers, too, and Hypothesis wants to draw the same when it repeats a run.
INDEXES = st.integers(0, 11)
#: Mostly not: while the server is down or the pool suspended, little else is tried.
SELDOM = st.sampled_from([False, False, False, True])


class Struck(BaseException):
    """Comes from outside."""


class Held:
    """Somebody who has a session, as the model knows it."""

    def __init__(self, borrower: StubBorrower, pool: LeasePool) -> None:
        self.borrower = borrower
        self.pool = pool
        self.connection: StubConnection = borrower.connection


class PoolMachine(RuleBasedStateMachine):
    """One process, one alias; nobody ever waits, as there is nobody else."""

    steps: ClassVar[int] = 0

    @initialize(size=st.integers(1, 3), overflow=st.integers(0, 3), core=st.integers(0, 3))
    def start(self, size: int, overflow: int, core: int) -> None:
        self.server = StubServer()
        self.key = PoolKey("machine", (self.server,), None, None, None)
        self.options = pool_options(
            "machine",
            pool_size=size,
            max_overflow=overflow,
            core_size=min(core, size),
            timeout=0,
            recycle=RECYCLE,
            retire_interval=RETIRE_INTERVAL,
        )
        self.limit = size + overflow
        self.held: list[Held] = []
        #: What nobody refers to any more, by pool.
        self.dropped: list[LeasePool] = []
        self.suspended = False

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.down = None
            while self.held:
                self.held.pop().borrower.give_back()
            for pool in self._pools():
                pool.drain("the run is over")
            registry.drain("machine", "the run is over")
            registry.suspend("machine", False)
            registry._sizes.pop("machine", None)
            assert not self.server.alive
            assert self.server.opened == self.server.closed

    # --- what they share --------------------------------------------------------------------------------

    @property
    def pool(self) -> LeasePool:
        """The one that a checkout finds now. Its housekeeper and its probe are rules, and no threads."""
        pool = registry.pool(self.key, self.options, STUB_DRIVER)
        pool._slots.unbalanced = int
        pool._outage.probe.thread.call = int  # type: ignore[method-assign, assignment]
        return pool

    def _pools(self) -> set[LeasePool]:
        return {self.pool, *(held.pool for held in self.held), *self.dropped}

    def _mine(self) -> list[Held]:
        return [held for held in self.held if held.pool is self.pool]

    def _borrow(self, borrower: StubBorrower) -> None:
        pool = self.pool
        borrower.borrow(pool)
        # A checkout that succeeds need not have looked for what was dropped.
        self.held.append(Held(borrower, pool))

    # --- borrowers --------------------------------------------------------------------------------------

    @rule()
    def borrow(self) -> None:
        """Where there is room there is a session, and otherwise an error; never one that is dead or old."""
        pool, borrower = self.pool, StubBorrower(self.server)
        idle = {connection for connection in self.server.alive if connection.idle and connection.pool is pool}
        fit = {each for each in idle if not each.killed and each.age < RECYCLE * each.lifetime}
        try:
            self._borrow(borrower)
        except PoolTimeout:
            assert self.suspended or len(self._mine()) >= self.limit
        except OperationalError:
            # That it is back is noticed after a while.
            assert self.server.down or self.pool._outage.error
            assert not self.suspended
            # One that is dead is replaced at once; those below it may be fit.
            assert len(fit) < len(idle) or not fit
        else:
            connection = self.held[-1].connection
            assert not self.suspended
            assert len(self._mine()) <= max(self.limit, 1)
            assert not connection.killed
            assert connection.age < RECYCLE
            assert not connection.dirty
            assert connection in fit or connection not in idle

    @rule(index=INDEXES, dirty=st.booleans())
    def give_back(self, index: int, dirty: bool) -> None:
        if not (held := self._take(index)):
            return
        held.connection.dirty = dirty
        held.borrower.give_back()
        held.borrower.give_back()
        assert not (held.pool.closed_because and held.connection in self.server.alive)

    @rule(index=INDEXES)
    def drop(self, index: int) -> None:
        """Its borrower goes without a word."""
        if held := self._take(index):
            self.dropped.append(held.pool)
        del held
        gc.collect(0)

    @rule(index=INDEXES)
    def connect_again(self, index: int) -> None:
        """Who has one and asks again gives the first one back."""
        if not (held := self._take(index)):
            return
        held.borrower.give_back()
        try:
            self._borrow(held.borrower)
        except OperationalError:
            assert held.borrower.lease is None

    @rule(dirty=st.booleans())
    def visit(self, dirty: bool) -> None:
        """What most do: come and go."""
        before = len(self.held)
        self.borrow()
        if len(self.held) > before:
            self.give_back(before, dirty)

    @rule()
    def end_a_burst(self) -> None:
        while self.held:
            self.give_back(0, dirty=False)

    def _take(self, index: int) -> Held | None:
        return self.held.pop(index % len(self.held)) if self.held else None

    # --- the server -------------------------------------------------------------------------------------

    @rule(index=INDEXES)
    def kill(self, index: int) -> None:
        if alive := sorted(self.server.alive, key=lambda connection: connection.number):
            alive[index % len(alive)].killed = True

    @rule()
    def restart(self) -> None:
        for connection in self.server.alive:
            connection.killed = True

    @rule(down=SELDOM)
    def stop_or_start(self, down: bool) -> None:
        self.server.down = refused() if down else None

    @rule()
    def probe(self) -> None:
        """It leaves an idle session where it found the server, and nothing where it did not."""
        before, pool = set(self.server.alive), self.pool
        pool._outage.probe.work()
        found = self.server.alive - before
        assert len(found) <= 1
        assert not (found and (self.server.down or self.suspended or pool._outage.error))
        for connection in found:
            assert connection.idle
            connection.pool = pool

    @precondition(lambda self: not self.suspended and len(self._mine()) < self.limit)
    @rule(probes=st.booleans())
    def find_a_server_that_is_there(self, probes: bool) -> None:
        """After a while no outage refuses anything, whether the probe has run meanwhile or not."""
        self.server.down = None
        self.pass_time(60.0)
        if probes:
            self.probe()
        before = len(self.held)
        self.borrow()
        # What was dropped has a slot until a checkout that finds the pool full looks for it.
        assert len(self.held) == before + 1
        assert not self.pool._outage.error or self.held[-1].connection.age >= 60

    @precondition(lambda self: not self.suspended)
    @rule()
    def strike_in_the_middle_of_connecting(self) -> None:
        self.server.down = Struck()  # type: ignore[assignment]  # whatever is raised
        borrower = StubBorrower(self.server)
        try:
            self._borrow(borrower)
        except (Struck, OperationalError):
            assert borrower.lease is None
        finally:
            self.server.down = None

    # --- time -------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, RETIRE_INTERVAL, 60.0, float(RECYCLE)]))
    def pass_time(self, seconds: float) -> None:
        for connection in self.server.alive:
            connection.born -= seconds
            connection.idle_since -= seconds
        for pool in self._pools():
            pool.housekeeping._next_retirement -= seconds
        outage = self.pool._outage
        outage._next_attempt -= seconds
        outage._since -= seconds
        outage.probe.rests_until -= seconds

    @rule()
    def keep_house(self) -> None:
        pool = self.pool
        before, surplus = pool.closed, pool._slots.surplus
        pool.housekeeping.do()
        assert pool.closed - before <= min(self.options.retire_quantity, surplus)
        pool.reclaim()
        self.dropped = [each for each in self.dropped if each is not pool]

    # --- operators --------------------------------------------------------------------------------------

    @rule(disposed=st.booleans())
    def close(self, disposed: bool) -> None:
        (registry.dispose if disposed else registry.drain)("machine", "closed")

    @rule(size=st.integers(1, 3), overflow=st.integers(0, 2))
    def resize(self, size: int, overflow: int) -> None:
        sizes = {"pool_size": size, "max_overflow": overflow, "core_size": min(size, 2)}
        registry.resize(self.options, "machine", sizes)
        self.limit = size + overflow

    @rule(suspended=SELDOM)
    def suspend_or_resume(self, suspended: bool) -> None:
        registry.suspend("machine", suspended)
        self.suspended = suspended

    # --- processes --------------------------------------------------------------------------------------

    @rule()
    def fork(self) -> None:
        """The child has nothing of its parent's, and a pool of its own; the parent does not notice."""
        before = {connection: connection.killed for connection in self.server.alive}
        if (child := os.fork()) == 0:
            try:
                self._be_a_child()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert {connection: connection.killed for connection in self.server.alive} == before

    def _be_a_child(self) -> None:
        inherited, self.server.down = set(self.server.alive), None
        for held in self.held:
            assert held.borrower.lease is None
            held.borrower.give_back()
            held.connection.close()
        assert self.server.alive == inherited
        # The child knows of its parent's new sizes, but not that it was suspended.
        newcomers = [StubBorrower(self.server) for _ in range(self.limit)]
        opened = {newcomer.borrow(self.pool) for newcomer in newcomers}
        assert len(opened) == self.limit
        assert not opened & inherited
        for newcomer in newcomers:
            newcomer.give_back()

    # --- the invariants ---------------------------------------------------------------------------------

    @invariant()
    def each_session_has_one_holder(self) -> None:
        PoolMachine.steps += 1
        if not hasattr(self, "server"):
            return
        connections = [held.connection for held in self.held]
        assert len(set(connections)) == len(connections)
        for held in self.held:
            assert held.borrower.lease
            assert held.connection.lease is held.borrower.lease
            assert held.connection in self.server.alive
            assert not held.connection.idle

    @invariant()
    def nothing_is_lost_and_nothing_is_too_much(self) -> None:
        if not hasattr(self, "server"):
            return
        for pool in self._pools():
            alive = {connection for connection in self.server.alive if connection.pool is pool}
            held = sum(each.pool is pool for each in self.held)
            assert pool.opened - pool.closed == len(alive)
            assert pool.out + pool.idle == len(alive)
            assert held <= pool.out <= held + self.dropped.count(pool)
            assert len(alive) <= max(self.limit, pool.out)
            assert not (pool.closed_because and pool.idle)
            assert not pool._slots.opening
            assert not pool._slots.waiting


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is dropped here goes at once."""
    monkeypatch.setattr(collector, "run", lambda *_, **__: None)


def run(runs: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=50,
            deadline=None,
            database=None,
            phases=phases,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.slow] if part else []) for part in range(PARTS)]
)
def test_the_invariants_hold_after_each_of_many_steps(part: int) -> None:
    PoolMachine.steps = 0
    while PoolMachine.steps < STEPS / PARTS:
        run(25)


@pytest.mark.parametrize("broken", ["lends twice", "loses a slot", "exceeds the limit", "delivers dead ones"])
def test_state_machine_notices_a_broken_invariant(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each a mistake of the pool's that the machine has to find."""
    from poollife.pools.fair_queue import FairQueuePool

    give, serve = FairQueuePool._do_return_conn, FairQueuePool.serve

    def lends_twice(self: FairQueuePool, entry: Any) -> None:
        give(self, entry)
        if self._free and not self._waiting:
            self._free.append(self._free[-1])

    def loses(self: FairQueuePool, entry: Any) -> None:
        if len(self._slots) < 2:
            give(self, entry)

    def exceeds(self: FairQueuePool) -> None:
        bounds, self.bounds = self.bounds, self.bounds._replace(limit=sys.maxsize)
        serve(self)
        self.bounds = bounds

    if broken == "lends twice":
        monkeypatch.setattr(FairQueuePool, "_do_return_conn", lends_twice)
    elif broken == "loses a slot":
        monkeypatch.setattr(FairQueuePool, "_do_return_conn", loses)
    elif broken == "exceeds the limit":
        monkeypatch.setattr(FairQueuePool, "serve", exceeds)
    else:
        monkeypatch.setattr(Liveness, "reason_to_replace", lambda self, connection: None)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever invariant it is that finds out
        run(200, (Phase.generate,))
