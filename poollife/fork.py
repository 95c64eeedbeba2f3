"""Clock 3: a process forks or ends. The at-fork core is in drivers/; this is for programs to call."""

from __future__ import annotations


def close_pool(alias: str | None = None) -> None:
    """End this process's idle sessions now, and the borrowed ones when they are given back.

    For before a long sleep, or a fork whose child should not even hold /dev/null in their place; the next
    query opens a new session. What the calling thread has borrowed goes back first, as by
    ``connection.close()``, unless it is in an atomic block. What other threads have ends with their work.

    :param alias: a key of ``DATABASES``; None: all of them.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises SynchronousOnlyOperation: in a coroutine, if its thread has borrowed something.
    """
    close(alias, "close_pool() was called")


def close(alias: str | None, reason: str) -> None:
    """Do what ``close_pool()`` does, for a reason of the caller's.

    :param reason: for people.
    :raises: as ``close_pool()``.
    """
    # Here: `import poollife` needs no settings, no driver, and no SQLAlchemy either.
    from django.db import connections
    from django.utils.connection import ConnectionDoesNotExist

    from poollife.pools.registry import registry

    if alias is not None and alias not in connections:
        raise ConnectionDoesNotExist(f"The connection {alias!r} doesn't exist.")
    registry.close(reason, alias)
