"""The line that a web server or a Celery worker logs when it starts, once for all of its processes.

It compares the sessions that the processes may open together with the database server's limit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from poollife.pools.log import about

logger = logging.getLogger("poollife")

#: The SQL that asks for the server's limit of connections, by Django's name of the vendor.
LIMIT_QUERIES = {"mysql": "SELECT @@max_connections", "postgresql": "SHOW max_connections"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the site that starts, and what it says of its processes."""

    #: The name, such as "gunicorn".
    name: str
    #: The server's word for its processes, such as "workers".
    unit: str = "processes"
    #: The number of its processes; None: not known, so the line is about each process.
    processes: int | None = None
    #: The number of threads of each process; None: not known.
    threads: int | None = None
    #: Seconds after which the server kills a process for a request that waits; 0: it does not.
    kills_after: float = 0


def _write(level: int, text: str) -> None:
    # A line is about all aliases of a server.
    logger.log(level, text, extra=about(None))


def announce(server: Server, *, asks: bool = True, write: Callable[[int, str], object] = _write) -> None:
    """Log how many sessions all processes may open, and how many each database server allows.

    A database that does not answer is logged, and raises no error: the process serves all the same. A process
    that has loaded no site logs nothing.

    :param server: the server that starts.
    :param asks: whether each database server is asked for its limit. The session that asks stays in the pool.
    :param write: the function that takes the level and the text of each line. Default: the logger "poollife".
    """
    # Not by an import: a process without a site needs no Django.
    django = sys.modules.get("django.conf")
    if not (django and django.settings.configured):
        return
    try:
        for level, text in _lines(server, asks):
            write(level, text)
    except Exception as error:
        text = f"could not compare the {server.unit} with the database server: {error}"
        write(logging.WARNING, text)


def _lines(server: Server, asks: bool) -> Iterator[tuple[int, str]]:
    wrappers = [each for each in _pooled_wrappers() if most_sessions(each, server.threads)]
    by_server: dict[Any, list[Any]] = {}
    for wrapper in wrappers:
        by_server.setdefault((wrapper.vendor, wrapper.pool_key().server), []).append(wrapper)
        for text in _objections(server, wrapper):
            yield logging.WARNING, text
    for behind in by_server.values():
        limits = {each.alias: most_sessions(each, server.threads) for each in behind}
        yield _compare(server, limits, _ask(behind[0]) if asks else None)


def _pooled_wrappers() -> list[Any]:
    """Return a new wrapper for each alias with an ENGINE of poollife and a server with a limit."""
    from django.db import connections

    wrappers = map(connections.create_connection, connections)
    return [each for each in wrappers if hasattr(each, "pool_options") and each.vendor in LIMIT_QUERIES]


def most_sessions(wrapper: Any, threads: int | None) -> int:
    """Return the most sessions that a process may have open at once, by this alias; 0: not known.

    :param threads: of the process. A pool without a limit has one session for each.
    """
    return int(wrapper.pool_options.limit or threads or 0)


def _objections(server: Server, wrapper: Any) -> Iterator[str]:
    """Yield what is wrong with the settings of one alias."""
    alias, timeout = wrapper.alias, wrapper.pool_options.timeout
    limit = most_sessions(wrapper, server.threads)
    if limit < (server.threads or 0):
        yield (
            f"{server.threads} threads share the {limit} connections of {alias!r}: raise pool_size, or "
            "requests will wait"
        )
    if 0 < server.kills_after <= timeout:
        yield (
            f"POOL['timeout'] of {alias!r} is {timeout:g}: {server.name} kills the worker after "
            f"{server.kills_after:g} s, before the pool can say why it waits"
        )


def _compare(server: Server, limits: dict[str, int], allowed: int | None) -> tuple[int, str]:
    """Return the level and the text of the line about one database server.

    :param limits: by alias, the most sessions of a process.
    :param allowed: the limit of the database server; None: it was not asked.
    """
    each, terms = sum(limits.values()), " + ".join(f"{limit} ({alias})" for alias, limit in limits.items())
    if server.processes is None:
        text = f"up to {terms} connections in each process"
    else:
        text = f"{server.processes} {server.unit} x {terms} connections = {server.processes * each}"
    if allowed is not None:
        text += f"; max_connections of the server is {allowed}"
        if server.processes is None:
            text += f", enough for {allowed // each} processes"
    is_too_much = allowed is not None and (server.processes or 1) * each > allowed
    return logging.WARNING if is_too_much else logging.INFO, text


def _ask(wrapper: Any) -> int:
    try:
        with wrapper.cursor() as cursor:
            cursor.execute(LIMIT_QUERIES[wrapper.vendor])
            return int(cursor.fetchone()[0])
    finally:
        wrapper.close()
