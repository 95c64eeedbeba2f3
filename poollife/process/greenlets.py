"""Greenlets in a fork: a greenlet's child has copies of all the others, and they can't be ended."""

from __future__ import annotations

import select
import sys

from poollife.process.atfork import at_fork


class Copies:
    """Finds out, in a child, whether a greenlet has forked it."""

    def __init__(self) -> None:
        self.exist = False

    def settle(self) -> None:
        """Wait for nothing."""

    def strong_references(self) -> None:
        """Keep nothing."""

    def abandon(self, held: None) -> None:
        """Look which greenlet has forked."""
        if is_patched("socket") or is_patched("threading"):
            # The main one, which forks the workers of a server, has no parent.
            self.exist = self.exist or sys.modules["gevent"].getcurrent().parent is not None


_copies = Copies()
at_fork.join(_copies)


def are_copies() -> bool:
    """Return whether the other greenlets of this process are copies of its parent's.

    They go on as soon as this process waits in gevent's hub: with requests that the parent answers, too.
    """
    return _copies.exist


def is_patched(module: str) -> bool:
    """Return whether gevent has replaced a module's functions that wait: other greenlets run meanwhile.

    :param module: a module of the standard library that gevent knows.
    """
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched(module))


def unpatched_poll() -> select.poll:
    """Return a poll object of the kernel: gevent's would run other greenlets in the middle of a checkout."""
    monkey = sys.modules.get("gevent.monkey")
    poll: type[select.poll] = monkey.get_original("select", "poll") if monkey else select.poll
    return poll()
