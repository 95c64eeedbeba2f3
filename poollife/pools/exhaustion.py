"""The answer to whoever waited for a connection in vain: who has them, and why that may be."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from poollife.conf import PoolOptions
from poollife.errors import Hold, PoolOverloaded, PoolTimeout
from poollife.pools.base import BasePool
from poollife.pools.lease import Lease
from poollife.stacks import line_in, stacks_of
from poollife.work import current_work

Timeout = TypeVar("Timeout", bound=PoolTimeout)
#: How many of the longest holders a message names. The exception has all of them.
NAMED = 5
#: Seconds that nobody calls long, however short the wait was.
SHORT = 1.0
#: What rules the wait; other options are shown where they are not the default.
RULES = ("pool_size", "max_overflow", "timeout")
#: What makes two requests or tasks different, but not their code.
PARTICULAR = re.compile(r"\[[^]]*\]$|[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when a wait ends in vain."""

    alias: str
    options: PoolOptions
    waited: float
    opening: int
    #: The others.
    waiting: int
    #: The longest first.
    holds: tuple[Hold, ...]
    #: The last error in opening a session, if none was opened since.
    connect_error: BaseException | None
    suspended: bool = False
    #: Whether it waited for one of those that are out: with a place of its own it may still not open one.
    admitted: bool = True
    #: What the pool has counted so far.
    counted: str = ""

    @property
    def patience(self) -> float:
        """Who has held something for longer than this had it all the time."""
        return max(self.waited, SHORT)

    @property
    def kept(self) -> list[Hold]:
        """What did not come back while this one waited."""
        return [hold for hold in self.holds if hold.held > self.patience]


def timeout_of(pool: BasePool, waited: float, admitted: bool = True) -> PoolTimeout:
    """What to raise when a wait has ended in vain. It takes no locks and sends nothing.

    :param admitted: False: it had a place, but others first had to find out whether the server is there.
    """
    situation = replace(look(pool, waited), admitted=admitted)
    return _told(PoolTimeout, situation, headline(situation))


def overload_of(pool: BasePool, how: str) -> PoolOverloaded:
    """The same for who was not even let wait.

    :param how: how many wait, for people.
    """
    begin = f"No connection of pool {pool.key.alias!r} is free, and {how}"
    return _told(PoolOverloaded, look(pool, 0.0), begin)


def _told(kind: type[Timeout], situation: Situation, begin: str) -> Timeout:
    options, cause = situation.options, likeliest_cause(situation)
    summary = f"{begin} Likeliest cause: {cause}"
    settings = settings_of(options)
    return kind(
        "\n".join([summary, *details(situation, settings)]),
        summary=summary,
        pool=situation.alias,
        waited=situation.waited,
        out=len(situation.holds),
        opening=situation.opening,
        waiting=situation.waiting,
        size=options.pool_size,
        overflow=options.max_overflow,
        holders=situation.holds,
        likeliest_cause=cause,
        settings=settings,
    )


def look(pool: BasePool, waited: float) -> Situation:
    """Take note of who has what."""
    leases = sorted(pool.leases.copy(), key=lambda lease: lease.since)
    stacks = stacks_of({lease.thread for lease in leases})
    return Situation(
        alias=pool.key.alias,
        options=pool.options,
        waited=waited,
        opening=pool.opening,
        waiting=pool.waiting,
        holds=tuple(hold_of(lease, line_in(stacks.get(lease.thread, ()), fallback=True)) for lease in leases),
        connect_error=pool.connect_error,
        suspended=pool.suspended,
        counted=counted_by(pool),
    )


def counted_by(pool: BasePool) -> str:
    """What tells a bad moment from a bad habit."""
    meters = pool.meters
    slow = sum(meters.wait_time.counts)
    return (
        f"{pool.checkouts} checkouts, {slow} of them queued or opened a session, "
        f"{meters.timeouts} time-outs; {pool.opened} sessions opened, {meters.connect_errors} could not be"
    )


def hold_of(lease: Lease, now_at: str | None = None) -> Hold:
    """This lease for people. It may end meanwhile."""
    work = lease.work
    mine = lease.thread is threading.current_thread() or (work is not None and work is current_work.get())
    return Hold(
        thread=lease.thread.name,
        work=str(work) if work else None,
        held=lease.age,
        borrowed_at=line_in(lease.stack),
        now_at=now_at,
        own=mine,
    )


def settings_of(options: PoolOptions) -> dict[str, Any]:
    """What rules the wait, and what is not the default. Not what a password is asked of."""
    return {
        field.name: value
        for field in fields(options)
        if field.name != "credentials"
        and ((value := getattr(options, field.name)) != field.default or field.name in RULES)
    }


# --- the text -----------------------------------------------------------------------------------------------


def headline(situation: Situation) -> str:
    """What happened."""
    opening = f", {situation.opening} more are being opened" if situation.opening else ""
    waiting = f", {situation.waiting} others wait" if situation.waiting else ""
    suspended = ", which is suspended," if situation.suspended else ""
    return (
        f"No connection of pool {situation.alias!r}{suspended} became free within "
        f"{situation.options.timeout:g} s: all {len(situation.holds)} are out{opening}{waiting}."
    )


def details(situation: Situation, settings: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    if situation.holds:
        yield "Held longest:"
        yield from (f"  {hold}" for hold in situation.holds[:NAMED])
    if (more := len(situation.holds) - NAMED) > 0:
        yield f"  and {more} more"
    ruled = ", ".join(f"{key}={shown(value)}" for key, value in settings.items())
    yield f'Ruled by DATABASES[{situation.alias!r}]["POOL"]: {ruled}'
    yield f"So far in this process: {situation.counted}"
    if error := situation.connect_error:
        yield f"Last failure to open a session: {type(error).__name__}: {error}"


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value.__name__ if isinstance(value, type) else repr(value)


# --- the likeliest cause ------------------------------------------------------------------------------------


def likeliest_cause(situation: Situation) -> str:
    """In one sentence, with what to do. The first that fits."""
    return next(cause for find in CAUSES if (cause := find(situation)))


def it_is_suspended(situation: Situation) -> str | None:
    return "somebody has called suspend_pool(), and not resume_pool()." if situation.suspended else None


def connecting_fails(situation: Situation) -> str | None:
    if situation.connect_error and situation.opening:
        name = type(situation.connect_error).__name__
        return f"sessions can't be opened ({name}); look at the database first."
    return None


def opening_is_slow(situation: Situation) -> str | None:
    out, limit = len(situation.holds), situation.options.limit or 0
    # Who was refused at once can't say that it took long.
    held_up = 0 < situation.opening < limit - out and situation.waited > 0
    if situation.opening > out or held_up or not situation.admitted:
        return (
            "the database is slow to open sessions, or out of reach; look there, and set connect_timeout in "
            "OPTIONS below POOL's timeout."
        )
    return None


def it_waits_for_itself(situation: Situation) -> str | None:
    if not (own := [hold for hold in situation.holds if hold.own]):
        return None
    return (
        f"who waits has {len(own)} of {len(situation.holds)} himself ({own[0].holder}), in another thread or "
        f"wrapper; give back before borrowing again, or have fewer threads of one request query at once."
    )


def all_kept(situation: Situation) -> str | None:
    if not situation.holds or len(situation.kept) < len(situation.holds):
        return None
    kind, count = commonest(situation.kept)
    if count == len(situation.holds):
        return (
            f"{kind} keeps what it borrows: none of {count} came back while this one waited; it is too slow "
            f"or does not give back."
        )
    return (
        f"none came back while this one waited; their work takes longer than timeout, or does not give back: "
        f"most are {kind} ({count} of {len(situation.holds)})."
    )


def many_kept(situation: Situation) -> str | None:
    if len(situation.kept) * 2 < len(situation.holds) or not situation.kept:
        return None
    kind, count = commonest(situation.kept)
    return (
        f"{len(situation.kept)} of {len(situation.holds)} did not come back while this one waited; that "
        f"leaves too few for the rest. {count} of them: {kind}."
    )


def too_few(situation: Situation) -> str:
    if not situation.holds:
        return "none could be had in that time; timeout may be too short."
    kind, count = commonest(list(situation.holds))
    most = f"; {count} of {len(situation.holds)} are {kind}" if count * 2 > len(situation.holds) else ""
    return (
        f"more work at once than connections: they come back, but not to everybody in time{most}. Raise "
        f"pool_size to the number of threads, or have fewer threads."
    )


CAUSES: tuple[Callable[[Situation], str | None], ...] = (
    it_is_suspended,
    connecting_fails,
    opening_is_slow,
    it_waits_for_itself,
    all_kept,
    many_kept,
    too_few,
)


def commonest(holds: list[Hold]) -> tuple[str, int]:
    """What most of them are for, with the line that borrowed if it is the same, and how many these are."""
    ((kind, count),) = Counter(map(kind_of, holds)).most_common(1)
    places = {hold.borrowed_at for hold in holds if kind_of(hold) == kind}
    (place,) = places if len(places) == 1 else (None,)
    return f"{kind} (borrowed at {place})" if place else kind, count


def kind_of(hold: Hold) -> str:
    """Its work without what differs from one request or task to the next."""
    return PARTICULAR.sub("*", hold.work or f"thread {hold.thread}")
