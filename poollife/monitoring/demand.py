"""The findings of ``pool_budget``: the connections that a site may open, and that its servers allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from poollife import clock
from poollife.board.reader import Board
from poollife.board.views import Process, Totals
from poollife.monitoring import budget
from poollife.monitoring.check import asked, error_text
from poollife.monitoring.dialects import DIALECTS
from poollife.monitoring.dialects.base import Capacity

#: A deployment starts the new processes before the old ones have ended.
DEPLOYMENT = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of hosts, of processes on each, and of threads in each of them."""

    hosts: int
    processes: int
    #: None: not known.
    threads: int | None


@dataclass(frozen=True, slots=True)
class Room:
    """A limit of a server, and what counts for it."""

    name: str
    allowed: int
    #: The sessions of other clients now.
    others: int
    #: The sessions of the site in a deployment.
    needed: int

    @property
    def fits(self) -> bool:
        """True if a deployment fits."""
        return self.needed + self.others <= self.allowed


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and the sessions that the site may open there."""

    vendor: str
    address: str
    #: The most sessions of one process, by alias.
    limits: dict[str, int]
    #: The most sessions of all processes.
    sessions: int
    #: MiB of the server's memory in a deployment.
    memory: float
    rooms: list[Room] = field(default_factory=list)
    #: Aliases behind a pooler, which has the limit of the sessions at the server.
    behind: list[str] = field(default_factory=list)
    #: The error of the server, if it did not answer.
    error: str | None = None

    @property
    def fits(self) -> bool:
        """True if the server has answered and a deployment fits."""
        return self.error is None and all(room.fits for room in self.rooms)


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the pool of an alias, from its use."""

    alias: str
    #: Checkouts per second of one process; mean seconds of a lease; mean borrowed sessions.
    rate: float
    hold: float
    out: float
    #: The limit of the settings; None: there is none.
    limit: int | None
    #: The part of the checkouts that wait with that limit; None: there is none.
    waiting: float | None
    #: The least limit with which fewer than ``budget.TARGET`` of the checkouts wait.
    size: int


@dataclass(frozen=True, slots=True)
class Use:
    """The use of the pool of one alias in one process, as the mean of all."""

    #: Checkouts per second; None: not known.
    rate: float | None
    #: Mean seconds from checkout to return; None: not known.
    hold: float | None
    #: Mean seconds for which a checkout waits.
    wait: float = 0.0


def servers(plan: Plan) -> list[Server]:
    """Ask each server of ``DATABASES`` for its limits; one session of each alias is borrowed for that."""
    aliases = [alias for alias in connections if connections[alias].vendor in DIALECTS]
    found, errors = _ask(aliases)
    # A server has several names. An alias that it did not answer counts for the server with that address.
    identities = {address(alias): capacity.identity for alias, capacity in found.items()}
    groups: dict[str, list[str]] = {}
    for alias in aliases:
        place = address(alias)
        groups.setdefault(identities.get(place, place), []).append(alias)
    return [
        _server(
            members,
            {alias: found[alias] for alias in members if alias in found},
            "; ".join(errors[alias] for alias in members if alias in errors) or None,
            plan,
        )
        for members in groups.values()
    ]


def _ask(aliases: list[str]) -> tuple[dict[str, Capacity], dict[str, str]]:
    """Return by alias the answers of the servers, and the errors."""
    found, errors = {}, {}
    with ExitStack() as stack:
        sessions = {}
        # All are open before the first one asks: so the answers count the same sessions.
        for alias in aliases:
            try:
                sessions[alias] = stack.enter_context(asked(connections[alias]))
            except Exception as error:  # of a driver or a pool, or of a function that knows the password
                errors[alias] = f"{alias}: {error_text(error)}"
        for alias, session in sessions.items():
            try:
                found[alias] = DIALECTS[connections[alias].vendor].capacity(session)
            except Exception as error:  # as above
                errors[alias] = f"{alias}: {error_text(error)}"
    return found, errors


def address(alias: str) -> str:
    """Return the address of an alias's server, as the settings have it."""
    wrapper: Any = connections[alias]
    host, port = wrapper.settings_dict["HOST"] or "localhost", wrapper.settings_dict["PORT"]
    if host.startswith("/") and wrapper.vendor == "mysql":
        return str(host)
    return f"{host}:{port or DIALECTS[wrapper.vendor].port}"


def _server(aliases: list[str], found: dict[str, Capacity], error: str | None, plan: Plan) -> Server:
    vendor = connections[aliases[0]].vendor
    limits = {alias: budget.most_sessions(limit_of(alias), plan.threads or 1) for alias in aliases}
    everywhere = plan.hosts * plan.processes
    sessions = everywhere * sum(limits.values())
    behind = [alias for alias in aliases if behind_pooler(alias)]
    return Server(
        vendor=vendor,
        address=", ".join(dict.fromkeys(map(address, aliases))),
        limits=limits,
        sessions=sessions,
        memory=round(DEPLOYMENT * sessions * DIALECTS[vendor].session_mib, 1),
        rooms=list(_rooms({key: found[key] for key in found if key not in behind}, limits, everywhere)),
        behind=behind,
        error=error,
    )


def _rooms(found: dict[str, Capacity], limits: dict[str, int], everywhere: int) -> Iterator[Room]:
    """Yield each limit of a server, with the sessions of the aliases that count for it.

    :param found: the answers of the server, by alias.
    :param limits: the most sessions of one process, by alias.
    :param everywhere: the processes on all hosts.
    """
    for name in dict.fromkeys(scope.name for capacity in found.values() for scope in capacity.scopes):
        members = {
            alias: (capacity, scope)
            for alias, capacity in found.items()
            for scope in capacity.scopes
            if scope.name == name
        }
        # Aliases with the same user and database see the same sessions.
        own = {(capacity.user, capacity.database): capacity.own for capacity, _ in members.values()}
        _, scope = list(members.values())[-1]
        needed = DEPLOYMENT * everywhere * sum(limits[alias] for alias in members)
        yield Room(name, scope.allowed, max(0, scope.in_use - sum(own.values())), needed)


def limit_of(alias: str) -> int | None:
    """Return the limit of an alias's pool; None: it has none, or is not one of poollife's."""
    options = getattr(connections[alias], "pool_options", None)
    limit: int | None = options.limit if options else None
    return limit


def behind_pooler(alias: str) -> bool:
    """Return whether the settings say that a transaction pooler is in front of the server."""
    options = getattr(connections[alias], "pool_options", None)
    return bool(options and options.behind)


def use_of(alias: str, board: Board | None, processes: Iterable[Process]) -> Use:
    """Return the use of an alias's pools, as the board has counted it.

    :param board: None: there is none.
    :param processes: the processes of the board whose rate counts.
    """
    if board is None:
        return Use(None, None)
    checkouts, seconds = 0, 0.0
    for process in processes:
        mine = [pool for pool in process.pools if pool.alias == alias]
        checkouts += sum(pool.totals.counters["checkouts"] for pool in mine)
        seconds += max(0.0, clock.wall() - process.started) if mine else 0.0
    totals = board.totals.get(alias, Totals.none())
    return Use(
        rate=checkouts / seconds if checkouts and seconds else None,
        hold=_mean(totals, "use_time"),
        wait=_mean(totals, "wait_time") or 0.0,
    )


def _mean(totals: Totals, name: str) -> float | None:
    counts, seconds = totals.histograms[name]
    return seconds / sum(counts) if sum(counts) else None


def size_of(alias: str, use: Use, threads: int | None) -> Size | None:
    """Return the size of an alias's pool; None: its use is not known.

    :param threads: of a process; None: any number of checkouts may come at once, as under ASGI.
    """
    if not (use.rate and use.hold):
        return None
    limit, rate, hold = limit_of(alias), use.rate, use.hold
    if threads is None:
        size = budget.size_for_many(rate, hold)
        waiting = None if limit is None else budget.wait_of_many(limit, rate, hold)
    else:
        pause = budget.mean_pause(threads, rate, hold, use.wait)
        size = budget.size_for_threads(threads, pause, hold)
        waiting = None if limit is None else budget.wait_of_threads(threads, limit, pause, hold)
    return Size(alias, rate, hold, budget.mean_out(rate, hold), limit, waiting, size)
