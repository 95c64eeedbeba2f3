"""What uWSGI has in place of ``os.register_at_fork()`` and ``atexit.register()``: a slot each.

It forks without a word to Python, and calls ``uwsgi.post_fork_hook`` in workers, mules and spoolers. When a
worker or a mule ends in good order it calls ``uwsgi.atexit``, and then Python's exit handlers unless it was
told to skip them. Whoever assigns a slot has it alone (``uwsgidecorators`` takes one when it is imported), so
the module is given a class that keeps ours in there, beside whatever is assigned before or after.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Hook = Callable[[], object]

#: Makes one hook of ours and theirs, by slot.
_combined: dict[str, Callable[[Hook], Hook]] = {}


def after_fork(ours: Hook) -> None:
    """Have uWSGI call this in each new process, ahead of everybody else's, one of which may raise.

    Without a master it is also called in the first worker, which is the process that loaded the application,
    when that has forked the others.
    """
    _take("post_fork_hook", lambda theirs: both(ours, theirs))


def at_exit(ours: Hook) -> None:
    """Have uWSGI call this when a process ends, behind everybody else's, which may use what it closes."""
    _take("atexit", lambda theirs: both(theirs, ours))


def forks_in_c() -> bool:
    """Return whether uWSGI will still fork this process in C.

    A child may wait for ever for a thread that it has not got: one that asked for the interpreter's lock at
    that moment. A master forks for as long as it lives, and keeps the lock from all threads. Without a master
    the process that loads the application has no number until it makes the other workers.
    """
    module = sys.modules.get("uwsgi")
    if master := getattr(module, "masterpid", int)():
        return bool(master == os.getpid())
    number = getattr(module, "worker_id", None)
    return number is not None and number() == 0


def both(first: Hook, last: Hook) -> Hook:
    """A hook that calls two; the last one whatever the first one does."""

    def hook() -> None:
        try:
            first()
        finally:
            last()

    return hook


def nothing() -> None:
    """Where a slot is empty."""


class Slots(ModuleType):
    """The class of uWSGI's module from then on. uWSGI itself reads the module's dictionary."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _combined:
            value = _combined[name](value if callable(value) else nothing)
        super().__setattr__(name, value)


def _take(slot: str, combined: Callable[[Hook], Hook]) -> None:
    # Inside the server it is there before any code of the site runs. Elsewhere it may be somebody's stub: of
    # that, too, nothing more is asked than that it is a module.
    module = sys.modules.get("uwsgi")
    if isinstance(module, ModuleType):
        _combined[slot] = combined
        if not isinstance(module, Slots):
            module.__class__ = type("Slots", (Slots, type(module)), {})
        setattr(module, slot, getattr(module, slot, None))
