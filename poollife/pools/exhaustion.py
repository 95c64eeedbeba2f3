"""The error of a checkout that waited in vain: the holders of the sessions, and the likeliest cause."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from poollife.board.page import page
from poollife.conf import PoolOptions
from poollife.errors import Hold, PoolOverloaded, PoolTimeout
from poollife.pools.lease import Lease
from poollife.pools.state import PoolState
from poollife.stacks import line_in, stacks_of
from poollife.work import current_work

Timeout = TypeVar("Timeout", bound=PoolTimeout)
#: Number of the longest holders that a message names. The exception has all of them.
NAMED = 5
#: Seconds for which holding a session is never long, however short the wait was.
SHORT = 1.0
#: The options that decide on the wait; other options are shown if they differ from the default.
RULES = ("pool_size", "max_overflow", "timeout")
#: The cause of a wait in a pool that was suspended.
SUSPENDED = (
    "it was suspended, by suspend_pool() or pool_suspend, and resume_pool() or pool_resume did not follow."
)
#: The parts of a name that differ between two requests or tasks of the same code.
PARTICULAR = re.compile(r"\[[^]]*\]$|[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts that are known when a wait ends in vain."""

    alias: str
    options: PoolOptions
    #: Seconds.
    waited: float
    #: Sessions that are being opened.
    opening: int
    #: Other checkouts that wait.
    waiting: int
    #: The borrowed sessions, the longest hold first.
    holds: tuple[Hold, ...]
    #: The last error in opening a session, if none was opened since.
    connect_error: BaseException | None
    suspended: bool = False
    #: False: the checkout had a slot, and waited until others had found out whether the server answers.
    admitted: bool = True
    #: The pool's counters as text.
    counted: str = ""

    @property
    def patience(self) -> float:
        """Seconds; a session that was held for longer did not come back during the wait."""
        return max(self.waited, SHORT)

    @property
    def kept(self) -> list[Hold]:
        """Holds of sessions that did not come back during the wait."""
        return [hold for hold in self.holds if hold.held > self.patience]


def timeout_of(pool: PoolState, waited: float, admitted: bool = True) -> PoolTimeout:
    """Return the error for a wait that has ended in vain. Takes no lock, and sends nothing.

    :param waited: seconds.
    :param admitted: False: the checkout had a slot, and waited until others had found out whether the server
        answers.
    """
    situation = replace(look(pool, waited), admitted=admitted)
    return _build_error(PoolTimeout, situation, headline(situation))


def overload_of(pool: PoolState, how: str) -> PoolOverloaded:
    """Return the error for a checkout that was refused at once, as too many wait.

    :param how: the end of a sentence that says how many wait, such as "3 wait already."
    """
    begin = f"No connection of pool {pool.key.alias!r} is free, and {how}"
    return _build_error(PoolOverloaded, look(pool, 0.0), begin)


def noted(error: PoolTimeout) -> PoolTimeout:
    """Keep an error among the last time-outs of the board, and return it."""
    work = current_work.get() or f"thread {threading.current_thread().name}"
    page.note_timeout(error.pool, error.waited, str(work), error.likeliest_cause)
    return error


def _build_error(kind: type[Timeout], situation: Situation, begin: str) -> Timeout:
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


def look(pool: PoolState, waited: float) -> Situation:
    """Collect the facts of this moment.

    :param waited: seconds that the checkout has waited.
    """
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


def counted_by(pool: PoolState) -> str:
    """Return the pool's counters as text: they show whether this is one bad moment or the usual state."""
    meters = pool.meters
    slow = sum(meters.wait_time.counts)
    return (
        f"{pool.checkouts} checkouts, {slow} of them queued or opened a session, "
        f"{meters.timeouts} time-outs; {pool.opened} sessions opened, {meters.connect_errors} could not be"
    )


def hold_of(lease: Lease, now_at: str | None = None) -> Hold:
    """Return a description of a lease, which may end meanwhile.

    :param now_at: the line that its thread is at.
    """
    work = lease.work
    mine = lease.thread is threading.current_thread() or (work is not None and work is current_work.get())
    return Hold(
        thread=lease.thread.name,
        work=str(work) if work else None,
        held=lease.age,
        borrowed_at=line_in(lease.stack),
        now_at=now_at,
        own=mine,
        session=lease.session,
    )


def settings_of(options: PoolOptions) -> dict[str, Any]:
    """Return the options that decide on the wait, and the options that differ from their default.

    ``credentials`` is left out: it is the function that knows the password.
    """
    return {
        field.name: value
        for field in fields(options)
        if field.name != "credentials"
        and ((value := getattr(options, field.name)) != field.default or field.name in RULES)
    }


# --- the text -----------------------------------------------------------------------------------------------


def headline(situation: Situation) -> str:
    """Return the sentence that says what happened."""
    opening = f", {situation.opening} more are being opened" if situation.opening else ""
    waiting = f", {situation.waiting} others wait" if situation.waiting else ""
    suspended = ", which is suspended," if situation.suspended else ""
    return (
        f"No connection of pool {situation.alias!r}{suspended} became free within "
        f"{situation.options.timeout:g} s: all {len(situation.holds)} are out{opening}{waiting}."
    )


def details(situation: Situation, settings: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the message after the first."""
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
    """Return the likeliest cause in one sentence, with advice: the first in ``CAUSES`` that fits."""
    return next(cause for find in CAUSES if (cause := find(situation)))


def it_is_suspended(situation: Situation) -> str | None:
    return SUSPENDED if situation.suspended else None


def connecting_fails(situation: Situation) -> str | None:
    if situation.connect_error and situation.opening:
        name = type(situation.connect_error).__name__
        return f"sessions can't be opened ({name}); look at the database first."
    return None


def opening_is_slow(situation: Situation) -> str | None:
    out, limit = len(situation.holds), situation.options.limit or 0
    # A checkout that was refused at once says nothing of how long an opening takes.
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
        f"the waiting work has {len(own)} of {len(situation.holds)} itself ({own[0].holder}), in another "
        f"thread or wrapper; give back before borrowing again, or have fewer threads of one request query at "
        f"once."
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
        f"more work at once than connections: they come back, but not in time for each checkout{most}. Raise "
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
    """Return the kind of work that most of these holds are for, and their number.

    The line that borrowed is added if it is the same for all of that kind.
    """
    ((kind, count),) = Counter(map(kind_of, holds)).most_common(1)
    places = {hold.borrowed_at for hold in holds if kind_of(hold) == kind}
    (place,) = places if len(places) == 1 else (None,)
    return f"{kind} (borrowed at {place})" if place else kind, count


def kind_of(hold: Hold) -> str:
    """Return the name of a hold's work without the parts that differ from one request or task to the next."""
    return PARTICULAR.sub("*", hold.work or f"thread {hold.thread}")
