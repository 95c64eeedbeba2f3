"""Functions for operators and routers: the pools of this process, by alias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poollife.fork import close

if TYPE_CHECKING:
    from poollife.conf import PoolOptions


def drain_pool(alias: str | None = None, timeout: float = 10.0) -> bool:
    """Do what ``close_pool()`` does, and wait until the borrowed sessions have been returned and closed.

    Queries that come meanwhile open sessions in a new pool. After ``suspend_pool()`` they wait instead.

    :param alias: a key of ``DATABASES``. Default: None, all of them.
    :param timeout: the longest wait in seconds. Default: 10.
    :returns: True if all sessions were returned in time. The others are closed when they are returned.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises SynchronousOnlyOperation: called in a coroutine whose thread has a borrowed session.
    """
    from poollife.pools.registry import registry

    close(alias, "drain_pool() was called")
    return registry.wait_until_back(alias, timeout)


def renew_pool(alias: str) -> None:
    """Replace all sessions that are open now: idle ones are closed now, borrowed ones when they are returned.

    For settings of the server that only new sessions get, and for servers behind a balancer that are to get
    their share again. The pool itself, its waiting checkouts and its counters stay.

    :param alias: a key of ``DATABASES``.
    :raises ConnectionDoesNotExist: there is no such alias.
    """
    from django.db import connections

    from poollife.pools.registry import registry

    connections[alias]  # raises
    registry.renew(alias)


def pool_available(alias: str) -> bool:
    """Return whether the server of an alias answers, as far as this process knows: for database routers.

    The answer is that of the last attempt to open a session, of this alias or of another one with the same
    server, ``OPTIONS`` and ``role``. Nothing is sent and nothing is waited for. While the answer is False, a
    background thread tries to open a session about once a second: so the answer changes although no query
    goes there.

    :param alias: a key of ``DATABASES``.
    :returns: True if no attempt has failed, if none was made yet, or if the ENGINE is none of poollife's.
    :raises ConnectionDoesNotExist: there is no such alias.
    """
    from django.db import connections

    from poollife.pools.registry import registry

    wrapper: Any = connections[alias]
    if not hasattr(type(wrapper), "pool_options"):
        return True
    pool = registry.find(wrapper.pool_key())
    return pool is None or pool.looks_reachable(wrapper.opener)


def suspend_pool(alias: str) -> None:
    """Have each checkout wait from now on, until ``resume_pool()`` or until its ``timeout`` is over.

    Borrowed sessions stay in use, and are returned as usual. Idle sessions stay open; ``drain_pool()`` closes
    them.

    :param alias: a key of ``DATABASES``.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises NotSupportedError: with a ``poolclass`` other than ``FairQueuePool``, or with ``POOL: False``.
    """
    from poollife.pools.registry import registry

    options_of(alias)
    registry.suspend(alias)


def resume_pool(alias: str) -> None:
    """End what ``suspend_pool()`` began: waiting checkouts go on, first come, first served.

    :param alias: a key of ``DATABASES``.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises NotSupportedError: with a ``poolclass`` other than ``FairQueuePool``, or with ``POOL: False``.
    """
    from poollife.pools.registry import registry

    options_of(alias)
    registry.suspend(alias, False)


def resize_pool(
    alias: str,
    *,
    pool_size: int | None = None,
    max_overflow: int | None = None,
    core_size: int | None = None,
    min_idle: int | None = None,
) -> None:
    """Give the pools of an alias other sizes than the settings, in this process.

    Checkouts that wait get the new slots at once. If there are more sessions than the new limit, idle
    sessions are closed now, and borrowed ones when they are returned.

    Each size is a number of sessions. Default: None, the size stays as it is.

    :param alias: a key of ``DATABASES``.
    :param pool_size: as ``POOL["pool_size"]``: from 1.
    :param max_overflow: as ``POOL["max_overflow"]``: sessions beyond ``pool_size``, from 0.
    :param core_size: as ``POOL["core_size"]``: the sessions that the pool keeps, at most the limit.
    :param min_idle: as ``POOL["min_idle"]``: the sessions that the pool holds ready, at most the limit.
    :raises ImproperlyConfigured: a value that ``POOL`` could not have either.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises NotSupportedError: with a ``poolclass`` other than ``FairQueuePool``, or with ``POOL: False``.
    """
    from poollife.pools.registry import registry

    options = options_of(alias)
    given = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "core_size": core_size,
        "min_idle": min_idle,
    }
    registry.resize(options, alias, {key: size for key, size in given.items() if size is not None})


def options_of(alias: str) -> PoolOptions:
    """Return the options of an alias whose pools can be suspended and resized.

    :raises ConnectionDoesNotExist: there is no such alias.
    :raises NotSupportedError: with a ``poolclass`` other than ``FairQueuePool``, or with ``POOL: False``.
    """
    from django.db import NotSupportedError, connections

    options: PoolOptions | None = getattr(connections[alias], "pool_options", None)
    if options is None or not options.fair:
        raise NotSupportedError(f"DATABASES[{alias!r}] has no FairQueuePool, which this function needs.")
    return options
