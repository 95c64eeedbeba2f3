"""Process hooks of gunicorn: its master forks, its workers end.

The last line of ``gunicorn.conf.py``::

    import poollife.gunicorn; poollife.gunicorn.install(globals())

Sessions are safe without it, across every fork. It closes idle sessions at the right hooks: the master keeps
no session, a worker's main thread keeps none, and a worker closes its sessions in order before it waits for
its threads. A line in the log compares the sessions that all workers may open with the server's limit.

This module imports neither gunicorn nor Django: a master without ``--preload`` loads no application.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from functools import wraps
from pkgutil import resolve_name
from typing import Any

Hook = Callable[..., Any]

#: The worker that logs the comparison; set in the master, and so in the worker itself.
_announcer: Any = None


def install(namespace: MutableMapping[str, Any]) -> None:
    """Add poollife's hooks behind the hooks of a gunicorn configuration. A second call changes nothing.

    :param namespace: ``globals()`` of the configuration; its hooks are replaced in place.
    :raises ImportError: a hook is a dotted path whose module can't be imported.
    :raises AttributeError: a hook is a dotted path whose module has no such name.
    """
    for name, ours in HOOKS.items():
        theirs = namespace.get(name, ours)
        # gunicorn also takes a dotted path.
        namespace[name] = behind(resolve_name(theirs) if isinstance(theirs, str) else theirs, ours)


def behind(theirs: Hook, ours: Hook) -> Hook:
    """Return a hook that calls both. Ours comes second, to close the sessions that theirs opens.

    :param theirs: the hook of the configuration. If it has ours behind it already, it is the result.
    :param ours: the hook of poollife.
    """
    if theirs is ours or hasattr(theirs, "with_poollife"):
        return theirs

    @wraps(theirs)  # gunicorn looks at the number of arguments
    def both(*arguments: Any) -> Any:
        try:
            return theirs(*arguments)
        finally:
            ours(*arguments)

    both.with_poollife = True  # type: ignore[attr-defined]
    return both


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Put our hooks behind the hooks that a configuration defines below ``install()``, in place of ours.

    gunicorn calls this hook first after it has read its configuration.
    """
    for name, ours in HOOKS.items():
        server.cfg.set(name, behind(getattr(server.cfg, name), ours))


def pre_fork(server: Any, worker: Any) -> None:
    """Close the pools of the master of a preloaded site, which serves no request and needs no session."""
    global _announcer
    if _announcer is None or _announcer.cfg is not server.cfg:
        _announcer = worker  # the first worker after the configuration was read
    close_pools("gunicorn's master is about to fork a worker")


def post_worker_init(worker: Any) -> None:
    """Return the sessions that the application's import and the hooks borrowed; log the comparison.

    A gthread worker serves no request in this thread: a slot that the thread kept would be lost for good.
    """
    global _announcer
    if "poollife.pools.registry" in sys.modules:
        from poollife.pools import live

        live.release(None)
    if worker is _announcer:
        _announcer = None
        announce(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """Close the worker's idle sessions in order, before Python's exit, which first waits for all threads."""
    if worker.pid == os.getpid():  # gunicorn may call this in the master for a worker that has vanished
        close_pools()


# Not worker_int and worker_abort: signal handlers call them, maybe while a pool's lock is held.
HOOKS: dict[str, Hook] = {
    hook.__name__: hook for hook in (nworkers_changed, pre_fork, post_worker_init, worker_exit)
}


def close_pools(reason: str = "its gunicorn worker ends") -> None:
    """Close this process's pools, if it has any: ``close_pool()`` without an import of Django.

    :param reason: the text that the log has as the reason.
    """
    if pools := sys.modules.get("poollife.pools.registry"):
        pools.registry.close(reason)


def announce(worker: Any) -> None:
    """Log how many sessions all workers may open, and how many each server allows; nothing without a site.

    :param worker: gunicorn's worker, whose log has the lines.
    """
    if "django.conf" not in sys.modules:
        return
    from poollife import start_line

    def write(level: int, text: str) -> None:
        log = worker.log.warning if level >= logging.WARNING else worker.log.info
        log("poollife: %s", text)

    cfg = worker.cfg
    server = start_line.Server(
        "gunicorn",
        "workers",
        cfg.workers,
        cfg.threads,
        # gunicorn kills only a sync worker for a request that waits.
        cfg.timeout if cfg.worker_class_str == "sync" else 0,
    )
    start_line.announce(server, write=write)
