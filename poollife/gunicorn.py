"""Process hooks of gunicorn: its master forks, its workers end.

The last line of ``gunicorn.conf.py``::

    import poollife.gunicorn; poollife.gunicorn.install(globals())

Sessions are safe without it, across every fork. It closes idle sessions at the right hooks: the master keeps
no session, a worker's main thread keeps none, and a worker closes its sessions in order before it waits for
its threads. A line in the log compares the sessions that all workers may open with the server's limit.

This module imports neither gunicorn nor Django: a master without ``--preload`` loads no application.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from functools import wraps
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poollife.backends.mixin import PooledMixin

Hook = Callable[..., Any]

#: The SQL that asks for the server's limit of connections, by Django's name of the vendor.
LIMIT_QUERIES = {"mysql": "SELECT @@max_connections", "postgresql": "SHOW max_connections"}

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
    if "poollife.pools.registry" not in sys.modules:
        return
    from poollife.pools import live

    live.release(None)
    if worker is _announcer:
        _announcer = None
        try:
            announce(worker)
        except Exception as error:  # the database may be down: the worker serves all the same
            worker.log.warning("poollife: could not compare the workers with the database server: %s", error)


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
    """Log how many sessions all workers may open, and how many each server allows."""
    from django.db import connections

    from poollife.backends.mixin import PooledMixin

    servers: dict[Any, list[PooledMixin]] = {}
    for wrapper in connections.all():
        if isinstance(wrapper, PooledMixin) and wrapper.vendor in LIMIT_QUERIES:
            servers.setdefault((wrapper.vendor, wrapper.pool_key().server), []).append(wrapper)
            _compare_settings(worker, wrapper)
    for wrappers in servers.values():
        _compare_server(worker, wrappers)


def _compare_settings(worker: Any, wrapper: PooledMixin) -> None:
    alias, options, cfg = wrapper.alias, wrapper.pool_options, worker.cfg
    if limit(worker, wrapper) < cfg.threads:
        worker.log.warning(
            "poollife: %d threads share the %d connections of %r: raise pool_size, or requests will wait",
            cfg.threads,
            options.limit,
            alias,
        )
    # gunicorn kills only a sync worker for a request that waits.
    if cfg.worker_class_str == "sync" and 0 < cfg.timeout <= options.timeout:
        worker.log.warning(
            "poollife: POOL['timeout'] of %r is %g: gunicorn kills the worker after %d s, before the pool "
            "can say why it waits",
            alias,
            options.timeout,
            cfg.timeout,
        )


def _compare_server(worker: Any, wrappers: list[PooledMixin]) -> None:
    limits = {wrapper.alias: limit(worker, wrapper) for wrapper in wrappers}
    workers, total = worker.cfg.workers, worker.cfg.workers * sum(limits.values())
    allowed = _ask(wrappers[0])
    log = worker.log.warning if total > allowed else worker.log.info
    log(
        "poollife: %d workers x %s connections = %d; max_connections of the server is %d",
        workers,
        " + ".join(f"{number} ({alias})" for alias, number in limits.items()),
        total,
        allowed,
    )


def limit(worker: Any, wrapper: PooledMixin) -> int:
    """Return the most sessions that a worker may have open at once; without a limit, one for each thread."""
    return wrapper.pool_options.limit or worker.cfg.threads


def _ask(wrapper: PooledMixin) -> int:
    try:
        with wrapper.cursor() as cursor:
            cursor.execute(LIMIT_QUERIES[wrapper.vendor])
            return int(cursor.fetchone()[0])
    finally:
        wrapper.release()
