"""Process hooks for programs to call. The fork hooks themselves are in ``process/atfork.py``."""

from __future__ import annotations


def close_pool(alias: str | None = None) -> None:
    """Close the idle sessions of this process now, and each borrowed session when it is returned.

    Call it before a long sleep, or before a fork whose child should not even hold ``/dev/null`` in place of
    their sockets. The next query opens a new session. The sessions of the calling thread are returned first,
    as by ``connection.close()``, but not those in an atomic block. Other threads keep their sessions until
    their work ends.

    :param alias: a key of ``DATABASES``. Default: None, all of them.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises SynchronousOnlyOperation: called in a coroutine whose thread has a borrowed session.
    """
    close(alias, "close_pool() was called")


def close(alias: str | None, reason: str) -> None:
    """Do what ``close_pool()`` does, with another reason.

    :param alias: a key of ``DATABASES``; None: all of them.
    :param reason: the text that the log has as the reason.
    :raises ConnectionDoesNotExist: there is no such alias.
    :raises SynchronousOnlyOperation: called in a coroutine whose thread has a borrowed session.
    """
    # Imported here: `import poollife` needs no settings, no driver and no SQLAlchemy.
    from django.db import connections
    from django.utils.connection import ConnectionDoesNotExist

    from poollife.pools.registry import registry

    if alias is not None and alias not in connections:
        raise ConnectionDoesNotExist(f"The connection {alias!r} doesn't exist.")
    registry.close(reason, alias)
