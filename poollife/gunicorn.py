"""Clock 3 under gunicorn: its master forks, its workers end.

The last line of ``gunicorn.conf.py``::

    import poollife.gunicorn; poollife.gunicorn.install(globals())

Sessions are safe without it, across every fork. It adds manners: a master that keeps no session, workers that
leave none with their main thread and say goodbye to the server before they wait for their threads, and a line
in the log that compares what they may open with what the server allows.

Neither gunicorn nor Django is imported with this: a master without ``--preload`` loads no application.
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

#: How many connections a server allows, by the vendor that Django knows it as.
QUESTIONS = {"mysql": "SELECT @@max_connections", "postgresql": "SHOW max_connections"}

#: The worker that tells, in the master and in the worker itself.
_speaker: Any = None


def install(namespace: MutableMapping[str, Any]) -> None:
    """Add poollife's hooks behind the ones that a configuration has. Harmless when repeated.

    :param namespace: ``globals()`` of the configuration.
    :raises ImportError, AttributeError: a hook is given as a dotted path that leads nowhere.
    """
    for name, ours in HOOKS.items():
        theirs = namespace.get(name, ours)
        # gunicorn takes a dotted path, too.
        namespace[name] = behind(resolve_name(theirs) if isinstance(theirs, str) else theirs, ours)


def behind(theirs: Hook, ours: Hook) -> Hook:
    """One hook that calls both; the user's comes first, so that ours closes what that opens."""
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
    """The first hook that gunicorn calls after it has read its configuration.

    Hooks that were defined below ``install()`` have replaced ours there: put ours behind them, too.
    """
    for name, ours in HOOKS.items():
        server.cfg.set(name, behind(getattr(server.cfg, name), ours))


def pre_fork(server: Any, worker: Any) -> None:
    """The master of a preloaded site keeps no session: nobody there would use it."""
    global _speaker
    if _speaker is None or _speaker.cfg is not server.cfg:
        _speaker = worker  # the first one since the configuration was read
    close_pools("gunicorn's master is about to fork a worker")


def post_worker_init(worker: Any) -> None:
    """Give back what loading the application and the hooks have borrowed, and tell what the workers may open.

    A gthread worker serves no request in this thread, so that slot of the pool would be lost for good.
    """
    global _speaker
    if "poollife.pools.registry" not in sys.modules:
        return
    from poollife.pools import live

    live.release(None)
    if worker is _speaker:
        _speaker = None
        try:
            announce(worker)
        except Exception as error:  # the database may be down: no reason not to serve
            worker.log.warning("poollife: could not compare the workers with the database server: %s", error)


def worker_exit(server: Any, worker: Any) -> None:
    """Say goodbye to the database server ahead of Python's own exit, which first waits for all threads."""
    if worker.pid == os.getpid():  # gunicorn may call this in the master for a worker that has vanished
        close_pools()


# worker_int and worker_abort are called by signal handlers, maybe while a pool's lock is held: none of ours.
HOOKS: dict[str, Hook] = {
    hook.__name__: hook for hook in (nworkers_changed, pre_fork, post_worker_init, worker_exit)
}


def close_pools(reason: str = "its gunicorn worker ends") -> None:
    """Close this process's pools, if it ever loaded one of poollife's backends.

    :param reason: for the log.
    """
    if pools := sys.modules.get("poollife.pools.registry"):
        pools.registry.close(reason)


def announce(worker: Any) -> None:
    """Log how many connections all workers may open, beside what each server allows."""
    from django.db import connections

    from poollife.backends.mixin import PooledMixin

    servers: dict[Any, list[PooledMixin]] = {}
    for wrapper in connections.all():
        if isinstance(wrapper, PooledMixin) and wrapper.vendor in QUESTIONS:
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
    # Other kinds of workers are not killed for a request that waits.
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
    """The most connections that a worker may have open at once."""
    return wrapper.pool_options.limit or worker.cfg.threads


def _ask(wrapper: PooledMixin) -> int:
    try:
        with wrapper.cursor() as cursor:
            cursor.execute(QUESTIONS[wrapper.vendor])
            return int(cursor.fetchone()[0])
    finally:
        wrapper.release()
