"""uWSGI's slots for hooks, in place of ``os.register_at_fork()`` and ``atexit.register()``.

uWSGI forks without running Python's fork hooks, and calls ``uwsgi.post_fork_hook`` in workers, mules and
spoolers. When a worker or a mule ends in good order, it calls ``uwsgi.atexit``, and then Python's exit
handlers, unless an option skips them. A slot has one function: each assignment replaces the one before
(``uwsgidecorators`` assigns a slot when it is imported). So uWSGI's module gets a class that keeps the hook
of poollife in the slot, beside any function that is assigned before or after.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Hook = Callable[[], object]

#: By slot, the function that makes one hook of the application's hook and poollife's.
_combined: dict[str, Callable[[Hook], Hook]] = {}


def after_fork(ours: Hook) -> None:
    """Have uWSGI call a hook in each new process, before all other hooks: one of these may raise.

    Without a master, uWSGI also calls it in the first worker, which is the process that loaded the
    application, when that has forked the other workers.

    :param ours: the hook.
    """
    _take("post_fork_hook", lambda theirs: both(both(ours, theirs), lambda: _last()))


def last_after_fork(ours: Hook) -> None:
    """Have uWSGI call a hook in each new process, after all other hooks: it may use what these prepare.

    :param ours: the hook. There is one: a second call replaces it.
    """
    global _last
    _last = ours


def at_exit(ours: Hook) -> None:
    """Have uWSGI call a hook when a process ends, after all other hooks: these may use what it closes.

    :param ours: the hook.
    """
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
    """Return a hook that calls two hooks. It calls the last one even if the first one raises."""

    def hook() -> None:
        try:
            first()
        finally:
            last()

    return hook


def nothing() -> None:
    """Do nothing: the hook of an empty slot."""


#: The hook of ``last_after_fork()``.
_last: Hook = nothing


class Slots(ModuleType):
    """The class of uWSGI's module after the first hook. uWSGI itself reads the module's dictionary."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _combined:
            value = _combined[name](value if callable(value) else nothing)
        super().__setattr__(name, value)


def _take(slot: str, combined: Callable[[Hook], Hook]) -> None:
    # In a uWSGI server the module exists before any code of the site runs. Elsewhere it may be a stub of the
    # site's own: the only requirement is that it is a module.
    module = sys.modules.get("uwsgi")
    if isinstance(module, ModuleType):
        _combined[slot] = combined
        if not isinstance(module, Slots):
            module.__class__ = type("Slots", (Slots, type(module)), {})
        setattr(module, slot, getattr(module, slot, None))
