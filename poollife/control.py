"""For operators: empty, stop, start and resize the pools of this process, by alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poollife.fork import close

if TYPE_CHECKING:
    from poollife.conf import PoolOptions


def drain_pool(alias: str | None = None, timeout: float = 10.0) -> bool:
    """``close_pool()``, and then wait until what is out has come back, and was closed.

    Queries that come meanwhile open new sessions, in a new pool; with ``suspend_pool()`` before, they wait.

    :param alias: a key of ``DATABASES``; None: all of them.
    :param timeout: seconds.
    :returns: whether all came back in time. What did not is closed when it comes.
    :raises: as ``close_pool()``.
    """
    from poollife.pools.registry import registry

    close(alias, "drain_pool() was called")
    return registry.wait_until_back(alias, timeout)


def suspend_pool(alias: str) -> None:
    """From now on, have who asks for a connection wait, until ``resume_pool()`` or his ``timeout``.

    What is out goes on, and comes back. Idle sessions stay; ``drain_pool()`` ends them.

    :raises ConnectionDoesNotExist: there is no such alias.
    :raises NotSupportedError: with a ``poolclass`` other than ``FairQueuePool``, or ``POOL: False``.
    """
    from poollife.pools.registry import registry

    _options_of(alias)
    registry.suspend(alias)


def resume_pool(alias: str) -> None:
    """End what ``suspend_pool()`` began: who waits is served, first come, first served.

    :raises: as ``suspend_pool()``.
    """
    from poollife.pools.registry import registry

    _options_of(alias)
    registry.suspend(alias, False)


def resize_pool(
    alias: str,
    *,
    pool_size: int | None = None,
    max_overflow: int | None = None,
    core_size: int | None = None,
    min_idle: int | None = None,
) -> None:
    """Have other sizes than the settings say, in this process; what is left out stays as it is.

    Whoever waits and has room now is served. Of what is too much, idle sessions are closed now, and those out
    when they come back.

    :raises ImproperlyConfigured: as the settings would.
    :raises: as ``suspend_pool()``.
    """
    from poollife.pools.registry import registry

    options = _options_of(alias)
    given = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "core_size": core_size,
        "min_idle": min_idle,
    }
    registry.resize(options, alias, {key: size for key, size in given.items() if size is not None})


def _options_of(alias: str) -> PoolOptions:
    from django.db import NotSupportedError, connections

    options: PoolOptions | None = getattr(connections[alias], "pool_options", None)
    if options is None or not options.fair:
        raise NotSupportedError(f"DATABASES[{alias!r}] has no pool of FairQueuePool's, which this takes.")
    return options
