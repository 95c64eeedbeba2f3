"""The state of an alias's pools in one word, and the likeliest cause in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from poollife.board.views import Holder, Pool
from poollife.pools.exhaustion import PARTICULAR
from poollife.status_page.recent import Recent

#: Seconds from which on a connection is held for long, while checkouts wait, and while none waits.
LONG, VERY_LONG = 2.0, 30.0
ADVICE_KEPT = "its queries are slow, it does other work meanwhile, or it does not give back."


class Cause(NamedTuple):
    """The state of an alias."""

    level: Literal["good", "busy", "bad"]
    #: One word or two, for a label.
    word: str
    #: A sentence, with advice.
    text: str


def likeliest_cause(pools: Sequence[Pool], holders: Sequence[Holder], recent: Recent | None) -> Cause:
    """Return the likeliest cause of what the board says of one alias, or that all is well.

    :param pools: those of all processes, each with its own limit.
    :param holders: the borrowed sessions of these pools, the longest hold first.
    :param recent: the growth of the counters; None: nothing is known of that.
    """
    waiting = sum(pool.waiting for pool in pools)
    if any(pool.suspended for pool in pools):
        text = f"The pool was suspended: {_checkouts(waiting)} until resume_pool() or pool_resume."
        return Cause("bad" if waiting else "busy", "suspended", text)
    if cause := _unreachable(pools, recent):
        return cause
    if waiting:
        return _dry(pools, holders, waiting)
    if recent and recent.timeouts:
        number = "One checkout" if recent.timeouts == 1 else f"{recent.timeouts} checkouts"
        return Cause("busy", "timed out", f"{number} waited in vain {_ago(recent)}. None waits now.")
    if holders and holders[0].held >= VERY_LONG:
        text = f"{_kind(holders[0])} has held a connection for {duration(holders[0].held)}: {ADVICE_KEPT}"
        return Cause("busy", "held long", text)
    if any(pool.out and pool.out == pool.limit for pool in pools):
        full = sum(bool(pool.out) and pool.out == pool.limit for pool in pools)
        return Cause("busy", "all out", f"All connections are out{_where(full, pools)}. No checkout waits.")
    return Cause("good", "in use" if holders else "quiet", "No checkout waits.")


def _unreachable(pools: Sequence[Pool], recent: Recent | None) -> Cause | None:
    is_open = any(pool.sessions for pool in pools)
    if recent and recent.failures:
        times = "once" if recent.failures == 1 else f"{recent.failures} times"
        text = f"Connecting failed {times} {_ago(recent)}, and has not succeeded since. "
        if is_open:
            return Cause(
                "bad", "can't open", f"{text}The server does not answer, or has no room for more sessions."
            )
        return Cause("bad", "no server", f"{text}No connection is open: look at the database first.")
    failed = sum(pool.totals.counters["connect_errors"] for pool in pools)
    if recent is None and failed and not is_open:
        return Cause(
            "busy", "none open", f"No connection is open, and connecting has failed before ({failed} times)."
        )
    return None


def _dry(pools: Sequence[Pool], holders: Sequence[Holder], waiting: int) -> Cause:
    full = sum(pool.limit is not None and pool.out >= pool.limit for pool in pools)
    if not full:
        text = f"{_checkouts(waiting)} while connections are being opened: the database is slow to open them."
        return Cause("busy", "opening", text)
    dry = f"{_checkouts(waiting)}: all connections are out{_where(full, pools)}. "
    kept = [holder for holder in holders if holder.held >= LONG]
    if not kept:
        return Cause(
            "bad",
            "dry",
            f"{dry}More work at once than connections: each is held for less than {LONG:g} s. Raise "
            "pool_size to the number of threads, or have fewer threads.",
        )
    ((kind, number),) = Counter(map(_kind, kept)).most_common(1)
    longest = next(holder.held for holder in kept if _kind(holder) == kind)
    share = f"{number} of {len(holders)}" if number > 1 else f"one of {len(holders)}"
    return Cause("bad", "dry", f"{dry}{kind} has {share}, for up to {duration(longest)}: {ADVICE_KEPT}")


def duration(seconds: float) -> str:
    """Return a duration for people, such as "3.2 s" or "5 min". ``assets/status.js`` has this function, too.

    :param seconds: from 0.
    """
    if seconds < 10:
        return f"{int(seconds * 10) / 10:.1f} s"
    for most, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < most:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // 86400)} d"


def _kind(holder: Holder) -> str:
    """Return the name of the work without the parts that differ from one request or task to the next."""
    return PARTICULAR.sub("*", holder.work or f"thread {holder.thread}")


def _checkouts(waiting: int) -> str:
    return "1 checkout waits" if waiting == 1 else f"{waiting} checkouts wait"


def _where(full: int, pools: Sequence[Pool]) -> str:
    return "" if full == len(pools) else f" in {full} of {len(pools)} processes"


def _ago(recent: Recent) -> str:
    return f"in the last {duration(recent.seconds)}"
