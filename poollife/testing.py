"""For users' own tests: fail one that leaves a connection out.

For pytest there is the fixture ``gives_back`` in ``poollife.pytest``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from poollife import clock

if TYPE_CHECKING:
    from unittest import TestCase, TestResult

    from poollife.pools.lease import Lease
else:
    TestCase = object

#: Seconds for those who are about to give back, such as a server's thread that has just answered.
PATIENCE = 1.0
INTERVAL = 0.01


class GivesBackMixin(TestCase):
    """Put before any TestCase, Django's or another: a test that leaves a connection out fails.

    Out is what the test, or a thread of its, has borrowed and not given back when all its clean-ups have
    run. What the thread of the test has by ``django.db.connections`` is not: Django keeps that from test to
    test, and inside of TestCase's atomic blocks.
    """

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test, and look."""
        from poollife.pools.leaks import tracing

        with tracing():
            # Not in setUp(), which tests override. The first to be added is the last to be run.
            self.addCleanup(check, leases_out())
            return super().run(result)


@contextmanager
def gives_back() -> Iterator[None]:
    """The same for one block.

    :raises AssertionError: says who has it, and what line borrowed it.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.leaks import tracing

    with tracing():
        before = leases_out()
        yield
        check(before)


def check(before: set[Lease]) -> None:
    """Give those who are about to give back the time for it, and complain of the others.

    :param before: what was out already.
    :raises AssertionError: if there are any.
    """
    deadline = clock.monotonic() + PATIENCE
    while (left := _left(before)) and clock.monotonic() < deadline:
        time.sleep(INTERVAL)
    if left:
        # Wrappers are reference cycles. Those that nobody has any more are taken back.
        gc.collect()
        left = _left(before)
    if left:
        raise AssertionError(_told(left))


def leases_out() -> set[Lease]:
    """All that is out in this process, whoever has it."""
    from poollife.pools.live import live_pools
    from poollife.process.atfork import at_fork

    at_fork.ensure_process()
    for pool in live_pools.hold():
        pool.reclaim()
    return {lease for pool in live_pools.hold() for lease in pool.leases.copy() if lease.active}


def _left(before: set[Lease]) -> list[Lease]:
    from django.db import connections

    kept: Sequence[Any] = connections.all(initialized_only=True)
    left = [lease for lease in leases_out() - before if not any(lease.is_of(wrapper) for wrapper in kept)]
    return sorted(left, key=lambda lease: lease.since)


def _told(left: list[Lease]) -> str:
    from poollife.pools.exhaustion import hold_of
    from poollife.stacks import text_of

    lines = [f"{len(left)} connections were left out:" if len(left) > 1 else "A connection was left out:"]
    for lease in left:
        lines.append(f"Pool {lease.pool.key.alias!r}: {hold_of(lease).holder} borrowed it and has it still:")
        lines.append(text_of(lease.stack))
    return "\n".join(lines)
