"""The findings of ``pool_check``: one connection for each alias, opened and returned as the site does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from django.db import connections

from poollife import clock
from poollife.monitoring.dialects import DIALECTS
from poollife.monitoring.dialects.base import Capacity, Finding, Session

#: Pings whose median is shown, and the longest answer in seconds.
PINGS, PING_LIMIT = 20, 10.0
#: Seconds of a round trip from which on it is worth a warning: statements of a request add up.
SLOW = 0.02


@contextmanager
def asked(wrapper: Any) -> Iterator[Session]:
    """Borrow the session of an alias for the block, and return it, unless the caller had one before.

    :param wrapper: Django's connection of the alias.
    """
    is_callers = wrapper.connection is not None
    try:
        with wrapper.cursor() as cursor:
            yield Session(wrapper, cursor)
    finally:
        if not is_callers:
            wrapper.close()


def check_alias(alias: str) -> list[Finding]:
    """Ask the server of an alias.

    :param alias: a key of ``DATABASES``.
    :returns: the findings. If the server can't be asked to the end, that is the last one.
    """
    wrapper: Any = connections[alias]
    # An attribute of the class: the property reads the options, which may be wrong.
    if not hasattr(type(wrapper), "pool_options"):
        return [Finding("pool", "ok", f"not asked: {wrapper.settings_dict['ENGINE']} is none of poollife's")]
    if (dialect := DIALECTS.get(wrapper.vendor)) is None:
        name = wrapper.display_name
        reason = "has no server" if wrapper.vendor == "sqlite" else "servers have no questions here"
        return [Finding("server", "ok", f"nothing to ask: {name} {reason}")]
    found: list[Finding] = []
    is_callers = wrapper.connection is not None
    try:
        with asked(wrapper) as session:
            found.append(Finding("connection", "ok", f"opened, to {wrapper.pool_key().place}"))
            found += dialect.findings(session)
            found.append(idle_sessions(session))
            found += limits(session, dialect.capacity(session))
            found.append(round_trip(session))
            # It would end the caller's transaction.
            if not is_callers:
                found.append(reset(session))
    except Exception as error:  # of the driver or the pool, or of a function that is asked for the password
        cure = "Look at this entry of DATABASES, at the network, and at the server"
        found.append(Finding("connection", "problem", error_text(error), cure))
    return found


def error_text(error: Exception) -> str:
    """Return an error on one line, for people."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def idle_sessions(session: Session) -> Finding:
    """Return the finding about the time for which the server keeps idle sessions."""
    options = session.wrapper.pool_options
    limit = session.wrapper.driver.idle_limit(session.driver)
    if limit is None:
        return Finding("idle sessions", "ok", "the server keeps them")
    text = f"the server ends them after {limit:g} s"
    if limit <= options.ping_idle and not options.pre_ping:
        return Finding(
            "idle sessions",
            "warning",
            f"{text}, and POOL['ping_idle'] is {options.ping_idle:g}: a session may end as it is lent",
            f"Set POOL['ping_idle'] below {limit:g}, or have the server wait longer",
        )
    if options.recycle is not None and not 0 <= options.recycle < limit:
        return Finding(
            "idle sessions",
            "warning",
            f"{text}, and POOL['recycle'] is {options.recycle}: the server is the first to end them",
            f"Leave POOL['recycle'] out, or set it below {limit:g}",
        )
    return Finding("idle sessions", "ok", text)


def limits(session: Session, capacity: Capacity) -> Iterator[Finding]:
    """Yield the findings about the server's limits against the limit of this process's pool."""
    limit = session.wrapper.pool_options.limit
    if session.wrapper.pool_options.behind or limit is None:
        yield Finding("limit", "ok", "the pooler has the limit" if limit else "no pool: one for each thread")
        return
    for scope in capacity.scopes:
        others = max(0, scope.in_use - capacity.own)
        text = f"{limit} in one process; {scope.name}: {scope.allowed}, of which others use {others} now"
        cure = "Lower pool_size + max_overflow, or raise the server's limit; pool_budget has the sum of all"
        if limit > scope.allowed:
            yield Finding("limit", "problem", text, cure)
        elif limit > scope.allowed - others:
            yield Finding("limit", "warning", text, cure)
        else:
            yield Finding("limit", "ok", text)


def round_trip(session: Session) -> Finding:
    """Return the finding about the cost of the pool's ping, the smallest statement."""
    times = []
    for _ in range(PINGS):
        begin = clock.monotonic()
        answered = session.driver.answers(PING_LIMIT)
        times.append(clock.monotonic() - begin)
        if not answered:
            return Finding("round trip", "problem", "the session has ended while it was asked")
    seconds = median(times)
    text = f"{seconds * 1e3:.2f} ms, the median of {PINGS}"
    if seconds < SLOW:
        return Finding("round trip", "ok", text)
    cure = "Bring the site nearer to its server: each statement of a request takes that long"
    return Finding("round trip", "warning", text, cure)


def reset(session: Session) -> Finding:
    """Return the finding about the cost of a reset, which the return of a dirty session has."""
    if session.wrapper.pool_options.behind:
        return Finding("reset", "ok", "none behind a transaction pooler")
    driver = session.driver
    # As the pool does before a reset: the next checkout sends Django's settings again.
    driver.initialised_with = None
    begin = clock.monotonic()
    try:
        driver.reset_session(session.wrapper.lease.connection_params)
    except driver.NotSupportedError as error:
        return Finding("reset", "ok", f"none: {error}. A dirty session is closed, and another one is opened")
    return Finding("reset", "ok", f"{(clock.monotonic() - begin) * 1e3:.2f} ms")
