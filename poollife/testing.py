"""Helpers for the tests of a project: a test fails if it does not return a session that it borrowed.

pytest has the fixture ``gives_back`` in ``poollife.pytest``.
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

#: Seconds for threads that are about to return a session, such as a server's thread that has just answered.
RETURN_WAIT = 1.0
#: Seconds between two looks.
RETURN_INTERVAL = 0.01


class GivesBackMixin(TestCase):
    """A mixin for any TestCase, Django's or another: a test that does not return a session fails.

    A session counts if the test, or a thread of the test, has borrowed it, and has not returned it when all
    clean-ups have run. Sessions in ``django.db.connections`` of the test's own thread do not count: Django
    keeps them from test to test, and inside of the atomic blocks of its TestCase.
    """

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test, and check its sessions after the last clean-up.

        :param result: the object that collects the results, as in ``unittest.TestCase.run()``.
        :returns: that object.
        """
        from poollife.pools.leaks import tracing

        with tracing():
            # Not in setUp(), which tests override. The clean-up that is added first runs last.
            self.addCleanup(check, leases_out())
            return super().run(result)


@contextmanager
def gives_back() -> Iterator[None]:
    """Check the sessions of a ``with`` block, as ``GivesBackMixin`` does for a test.

    :raises AssertionError: at the end of the block a session has not been returned. The message names the
        borrower, and the line that borrowed it.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.leaks import tracing

    with tracing():
        before = leases_out()
        yield
        check(before)


def check(before: set[Lease]) -> None:
    """Wait up to ``RETURN_WAIT`` seconds until the sessions of the test are returned.

    :param before: the leases that were there before the test.
    :raises AssertionError: a session has not been returned.
    """
    deadline = clock.monotonic() + RETURN_WAIT
    while (left := _left(before)) and clock.monotonic() < deadline:
        time.sleep(RETURN_INTERVAL)
    if left:
        # Wrappers are reference cycles, and only the collector frees them. Their leases are then reclaimed.
        gc.collect()
        left = _left(before)
    if left:
        raise AssertionError(_report_of(left))


def leases_out() -> set[Lease]:
    """Return the leases of all borrowed sessions of this process."""
    from poollife.pools.live import live_pools
    from poollife.process.atfork import at_fork

    at_fork.ensure_process()
    for pool in live_pools.strong_references():
        pool.reclaim()
    return {lease for pool in live_pools.strong_references() for lease in pool.leases.copy() if lease.active}


def _left(before: set[Lease]) -> list[Lease]:
    from django.db import connections

    kept: Sequence[Any] = connections.all(initialized_only=True)
    left = [lease for lease in leases_out() - before if not any(lease.is_of(wrapper) for wrapper in kept)]
    return sorted(left, key=lambda lease: lease.since)


def _report_of(left: list[Lease]) -> str:
    from poollife.pools.exhaustion import hold_of
    from poollife.stacks import text_of

    lines = [f"{len(left)} connections were left out:" if len(left) > 1 else "A connection was left out:"]
    for lease in left:
        lines.append(f"Pool {lease.pool.key.alias!r}: {hold_of(lease).holder} borrowed it and has it still:")
        lines.append(text_of(lease.stack))
    return "\n".join(lines)
