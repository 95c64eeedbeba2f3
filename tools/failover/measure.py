"""Run a load while something happens to its servers, and count what came of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import PEERS, Peer
from tests.support import ROOT
from tools.failover.load import ROWS, Plan, Report, Request, report_of

#: The names of the engines that are compared, by database.
COMPARED = {
    "mysql": (
        "poollife",
        "stock, CONN_MAX_AGE=600",
        "stock, 600, health checks",
        "stock, CONN_MAX_AGE=0",
        "django-db-connection-pool",
    ),
    "postgresql": (
        "poollife",
        "stock, CONN_MAX_AGE=None",
        "stock, CONN_MAX_AGE=0",
        "Django's own pool",
        "django-db-connection-pool",
    ),
}
#: Seconds for which a load goes on before something happens.
BEFORE = 3.0
#: Letters of an error's text that tell it from others.
TEXT = 60


def peers(kind: str, names: Sequence[str] = ()) -> list[Peer]:
    """Return the engines that are compared.

    :param kind: of the database.
    :param names: how the names of those begin that are wanted; none: all.
    """
    chosen = [peer for name in COMPARED[kind] for peer in PEERS[kind] if peer.name == name]
    return [peer for peer in chosen if peer.name.startswith(tuple(names or ("",)))]


@dataclass
class Outcome:
    """A line of a table."""

    what: str
    engine: str
    requests: list[Request]
    #: When it happened, on the monotonic clock.
    event: float
    #: The rows of the server that is left, by their text; None: the load has written nothing.
    rows: Mapping[str, int] | None
    #: Connections that were opened from the event on.
    opened: int
    notes: list[str] = field(default_factory=list)
    stats: dict[str, Any] | None = None

    @property
    def failed(self) -> list[Request]:
        """The requests that have failed."""
        return [each for each in self.requests if each.error]

    @property
    def longest(self) -> float:
        """Seconds of the longest request that succeeded."""
        return max((each.took for each in self.requests if not each.error), default=0.0)

    @property
    def over_after(self) -> float | None:
        """Seconds from the event until the last request that failed; None: none has."""
        return max((each.ended - self.event for each in self.failed), default=None)

    def _written(self, each: Request) -> int:
        return (self.rows or {}).get(each.marker, 0)

    @property
    def lost(self) -> int:
        """Number of acknowledged requests whose rows are missing."""
        return sum(self._written(each) < ROWS[each.kind] for each in self.requests if not each.error)

    @property
    def twice(self) -> int:
        """Number of requests that have written more than their rows, or half of a transaction."""
        return sum(
            self._written(each) not in (0, ROWS[each.kind]) for each in self.requests if ROWS[each.kind]
        )

    @property
    def errors(self) -> str:
        """The errors with their numbers, the most frequent first."""
        found = Counter(str(each.error)[:TEXT] for each in self.failed)
        return "; ".join(f"{number} x {text}" for text, number in found.most_common(3))

    def cells(self) -> list[str]:
        """Return the cells of its line."""
        over = "-" if self.over_after is None else f"{self.over_after:.1f}"
        checked = self.rows is not None
        return [
            self.what,
            self.engine,
            str(len(self.requests)),
            str(len(self.failed)),
            f"{self.longest:.2f}",
            over,
            str(self.opened),
            str(self.lost) if checked else "-",
            str(self.twice) if checked else "-",
            "; ".join([*self.notes, self.errors]) if self.errors else "; ".join(self.notes),
        ]


COLUMNS = (
    "scenario",
    "engine",
    "requests",
    "failed",
    "longest",
    "over after",
    "opened",
    "lost",
    "twice",
    "notes",
)


class Load:
    """A load that runs, in a process of its own."""

    def __init__(self, peer: Peer, entry: dict[str, Any], pool: Mapping[str, Any], **plan: Any) -> None:
        """Start it, and wait until it sends requests.

        :param peer: the engine.
        :param entry: the entry of DATABASES, without its ENGINE.
        :param pool: more keys of poollife's POOL.
        :param plan: fields of ``Plan``.
        """
        size = plan.get("threads", Plan.threads)
        self.plan = Plan(
            # The time-out is the default of all of them, but for those whose default is longer.
            peer.database(entry, size, 10, **pool),
            list(peer.middleware),
            list(peer.apps),
            **plan,
        )
        self._process = subprocess.Popen(
            self._command(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(self._process.communicate()[1])
        self.began = time.monotonic()

    def _command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "tools.failover.load", self.plan.text(), *more]

    def order(self, *command: str) -> None:
        """Run a command of manage.py for the processes of this load's site."""
        subprocess.run(self._command(*command), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def wait_until(self, seconds: float) -> None:
        """Wait until the load has run for so long."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def end(self, beyond: float = 60.0) -> Report:
        """Wait for its end, and return its report.

        :param beyond: seconds that it may take after its time. A load that hangs then is ended, and its
            requests are not known.
        """
        limit = self.began + self.plan.seconds + beyond - time.monotonic()
        try:
            out, errors = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode:
            raise RuntimeError(errors)
        return report_of(out)


def measure(
    what: str,
    peer: Peer,
    entry: dict[str, Any],
    happens: Callable[[Load], float],
    rows: Callable[[], Mapping[str, int]] | None = None,
    opened: Callable[[], int] = lambda: 0,
    pool: Mapping[str, Any] | None = None,
    **plan: Any,
) -> Outcome:
    """Run a load, and have something happen meanwhile.

    :param what: the name of the line.
    :param happens: does it, and returns the time of the event on the monotonic clock.
    :param rows: returns the rows of the server that is left.
    :param opened: returns the number of connections that were opened so far.
    :param pool: more keys of poollife's POOL.
    """
    load = Load(peer, entry, pool or {}, **plan)
    load.wait_until(BEFORE - 0.2)
    before = opened()
    load.wait_until(BEFORE)
    event = happens(load)
    report = load.end()
    return Outcome(
        what,
        peer.name,
        report.requests,
        event,
        rows() if rows else None,
        opened() - before,
        stats=report.stats,
    )


def print_table(title: str, outcomes: Sequence[Outcome]) -> None:
    """Print the lines, as Markdown."""
    lines = [list(COLUMNS), *(outcome.cells() for outcome in outcomes)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS) - 1)]
    print(f"\n## {title}\n", flush=True)
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("| " + " | ".join([*cells, line[-1]]) + " |", flush=True)
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|---|", flush=True)
