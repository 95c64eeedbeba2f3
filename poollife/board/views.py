"""The content of the files of the board, as objects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from poollife.board import layout
from poollife.board.layout import Cells, text

#: The names of the counters that never fall, and their places.
COUNTERS = {
    "opened": (layout.OPENED,),
    "closed": (layout.CLOSED,),
    "checkouts": (layout.LENT, layout.TICKETED, layout.PINGED),
    "timeouts": (layout.TIMEOUTS,),
    "connect_errors": (layout.CONNECT_ERRORS,),
    "resets": (layout.RESETS,),
    "replaced": (layout.REPLACED,),
}
#: The names of the histograms, the place of their first bucket, and that of their sum.
HISTOGRAMS = {
    "wait_time": (layout.WAIT_TIME, 0),
    "create_time": (layout.CREATE_TIME, 1),
    "use_time": (layout.USE_TIME, 2),
}

#: Later times than this are damage: seconds since 1970, as those are the largest.
LATEST = 1e11


class Damaged(Exception):
    """The error of a file that is none of the board's, or that was damaged."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of one alias, which never fall: see ``pool_stats()`` for their names."""

    counters: dict[str, int]
    #: For each histogram the numbers of durations, as ``HistogramStats.counts``, and the sum in seconds.
    histograms: dict[str, tuple[list[int], float]]

    @classmethod
    def of(cls, cells: Cells) -> Totals:
        numbers = [max(0, number) for number in cells.counters]  # a file may be damaged
        histograms = {
            name: (numbers[first : first + layout.BUCKETS], _seconds(cells.sums[place]))
            for name, (first, place) in HISTOGRAMS.items()
        }
        counters = {name: sum(numbers[at] for at in places) for name, places in COUNTERS.items()}
        # A checkout that neither queued nor opened a session was not observed: it took no time.
        counts, seconds = histograms["wait_time"]
        counts[0] += numbers[layout.LENT] + numbers[layout.PINGED]
        return cls(counters, {**histograms, "wait_time": (counts, seconds)})

    @classmethod
    def none(cls) -> Totals:
        return cls.of(Cells())

    def plus(self, other: Totals) -> Totals:
        """Return the sums of both."""
        return Totals(
            {name: self.counters[name] + other.counters[name] for name in COUNTERS},
            {
                name: (
                    [one + two for one, two in zip(counts, other.histograms[name][0], strict=True)],
                    seconds + other.histograms[name][1],
                )
                for name, (counts, seconds) in self.histograms.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """A borrowed session."""

    alias: str
    server: str
    database: str
    #: The session's number at the server; None: it has none.
    session: int | None
    #: The request, task or block; empty: a thread borrowed by itself.
    work: str
    thread: str
    #: Seconds since the checkout.
    held: float
    #: When the session was opened, in seconds on the monotonic clock.
    session_opened: float
    #: The process that has it.
    pid: int


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A checkout that waited in vain."""

    alias: str
    #: Seconds since 1970.
    at: float
    #: Seconds.
    waited: float
    #: The request, task, block or thread.
    work: str
    #: One sentence, with advice. A long one is cut.
    likeliest_cause: str
    #: The process.
    pid: int


@dataclass(frozen=True, slots=True)
class Pool:
    """The numbers of one pool of a process."""

    alias: str
    server: str
    database: str
    #: The most sessions; None: there is no limit.
    limit: int | None
    #: Open sessions, borrowed or not.
    sessions: int
    #: Borrowed sessions.
    out: int
    #: Sessions that no borrower has. More may be open, of which the board has no row.
    idle: int
    #: Checkouts that wait now, and the most that ever did.
    waiting: int
    max_waiting: int
    suspended: bool
    #: The number of the orders that it has obeyed.
    orders: int
    totals: Totals
    #: The numbers of the sessions at the server that no borrower has.
    idle_sessions: list[int]


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and its pools."""

    pid: int
    command: str
    #: Seconds since 1970.
    started: float
    token: int
    pools: list[Pool] = field(default_factory=list)
    #: The borrowed sessions, the longest hold first.
    holders: list[Holder] = field(default_factory=list)
    #: The last time-outs, the latest first.
    timeouts: list[TimedOut] = field(default_factory=list)


def parse(files: Sequence[bytes], now: float) -> Process:
    """Return what the files of one process say, whatever is in them: a file may be damaged.

    :param files: the content of each file, at least one.
    :param now: on the monotonic clock.
    """
    _, pid, started, token, _, command = layout.HEADER.unpack_from(files[0])
    process = Process(pid, text(command), _seconds(started), token)
    pools = {number: pool for file in files for number, pool in _pools(file)}
    idle: dict[int, list[int]] = {number: [] for number in pools}
    out, at_rest = dict.fromkeys(pools, 0), dict.fromkeys(pools, 0)
    for at, file in itertools.product(range(layout.ROWS_AT, layout.TIMEOUTS_AT, layout.ROW_SIZE), files):
        number, session, opened, held, since, work, thread = layout.ROW.unpack_from(file, at)
        if (pool := pools.get(number)) is None:
            continue
        if held:
            out[number] += 1
            # A checkout writes its time after the mark that it has the session.
            seconds = max(0.0, now - _seconds(since)) if since else 0.0
            process.holders.append(
                Holder(
                    alias=pool.alias,
                    server=pool.server,
                    database=pool.database,
                    session=session or None,
                    work=text(work),
                    thread=text(thread),
                    held=seconds,
                    session_opened=_seconds(opened),
                    pid=pid,
                )
            )
        else:
            at_rest[number] += 1
            if session:
                idle[number].append(session)
    process.holders.sort(key=lambda holder: -holder.held)
    process.timeouts.extend(_timeouts(files, pid))
    for number, pool in pools.items():
        process.pools.append(
            replace(pool, out=out[number], idle=at_rest[number], idle_sessions=sorted(idle[number]))
        )
    return process


def check(file: bytes) -> None:
    """Refuse a file that is none of the board's.

    :param file: its content.
    :raises Damaged: it says why.
    """
    if len(file) != layout.SIZE:
        raise Damaged(f"it has {len(file)} bytes, and should have {layout.SIZE}")
    if not file.startswith(layout.MAGIC):
        raise Damaged("it is none of the board's, or another version of poollife has written it")


def changes_of(file: bytes) -> int:
    """Return the number of changes of a file: odd while numbers move from one place to another."""
    return int(layout.HEADER.unpack_from(file)[4])


def holds_sessions(file: bytes) -> bool:
    """Return whether a borrower has one of the sessions in a file."""
    places = range(layout.ROWS_AT, layout.TIMEOUTS_AT, layout.ROW_SIZE)
    rows = (layout.ROW.unpack_from(file, at) for at in places)
    return any(held and pool for pool, _, _, held, *_ in rows)


def totals_by_alias(file: bytes) -> Iterator[tuple[str, Totals]]:
    """Yield the counters of each pool in a file, with the alias of that pool."""
    for at in range(layout.PLACES_AT, layout.ROWS_AT, layout.PLACE_SIZE):
        number, alias, _, _ = layout.PLACE.unpack_from(file, at)
        if number:
            yield text(alias), Totals.of(Cells(memoryview(file)[at : at + layout.PLACE_SIZE]))


def _pools(file: bytes) -> Iterator[tuple[int, Pool]]:
    for at in range(layout.PLACES_AT, layout.ROWS_AT, layout.PLACE_SIZE):
        number, alias, server, database = layout.PLACE.unpack_from(file, at)
        cells = Cells(memoryview(file)[at : at + layout.PLACE_SIZE])
        counters = cells.counters
        if not number or counters[layout.ENDED]:
            continue
        yield (
            number,
            Pool(
                alias=text(alias),
                server=text(server),
                database=text(database),
                limit=None if counters[layout.LIMIT] == layout.NO_LIMIT else counters[layout.LIMIT],
                sessions=max(0, counters[layout.OPENED] - counters[layout.CLOSED]),
                out=0,
                idle=0,
                waiting=counters[layout.WAITING],
                max_waiting=counters[layout.MAX_WAITING],
                suspended=bool(counters[layout.SUSPENDED]),
                orders=counters[layout.ORDERS],
                totals=Totals.of(cells),
                idle_sessions=[],
            ),
        )


def _timeouts(files: Sequence[bytes], pid: int) -> list[TimedOut]:
    places = range(layout.TIMEOUTS_AT, layout.SIZE, layout.TIMEOUT_SIZE)
    found = [layout.TIMEOUT.unpack_from(file, at) for file in files for at in places]
    timeouts = [
        TimedOut(text(alias), _seconds(when), _seconds(waited), text(work), text(cause), pid)
        for number, when, waited, alias, work, cause in found
        if number and when
    ]
    return sorted(timeouts, key=lambda timeout: -timeout.at)


def _seconds(number: float) -> float:
    """Return a time or a sum from a file, 0.0 if it can't be one."""
    return number if 0 <= number < LATEST else 0.0
