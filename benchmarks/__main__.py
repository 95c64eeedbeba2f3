"""``make bench``: poollife and its peers in one run, on a private server.

Only figures of one run can be compared: the peers take turns, so other load of the machine affects all of
them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import plots, report
from benchmarks.bench import EXECUTOR, Bench
from benchmarks.dialects import DIALECTS
from benchmarks.peers import PEERS, SHARED, Peer
from benchmarks.throughput import SCENARIOS

PARTS = (
    "round_trips",
    "leaks",
    "forks",
    "cycles",
    "last_ids",
    "memory",
    "fair",
    "turns",
    "spike",
    "waiting",
    "sizing",
    "outage",
    "board",
    "cpu",
    "throughput",
)


class Part(NamedTuple):
    """A part of a run."""

    #: The function that returns the figures.
    measure: Callable[[], Any]
    #: The function that prints the figures.
    show: Callable[[Any], None]


def parts_of(bench: Bench, options: argparse.Namespace) -> dict[str, Part]:
    """Return all parts by name."""
    rounds, cycles, seconds = options.rounds, options.cycles, options.seconds
    return {
        "round_trips": Part(bench.round_trips, report.print_round_trips),
        "leaks": Part(bench.leaks, report.print_leaks),
        "forks": Part(bench.forks, report.print_forks),
        "cycles": Part(
            lambda: bench.cycles(rounds, cycles), lambda found: report.print_cycles(found, rounds, cycles)
        ),
        "last_ids": Part(
            lambda: bench.last_ids(options.jobs),
            lambda found: report.print_last_ids(found, EXECUTOR, SHARED, options.jobs),
        ),
        "memory": Part(lambda: bench.memory(options.memory), report.print_memory),
        "fair": Part(lambda: bench.fair(seconds), lambda found: report.print_fair(found, seconds)),
        "turns": Part(
            lambda: bench.turns(rounds, seconds / 40),
            lambda found: report.print_turns(found, rounds, seconds / 40),
        ),
        "spike": Part(lambda: bench.pressure("spike"), report.print_spike),
        "waiting": Part(
            lambda: bench.pressure("waiting", seconds / 10),
            lambda found: report.print_waiting(found, seconds / 10),
        ),
        "sizing": Part(
            lambda: bench.pressure("sizing", seconds), lambda found: report.print_sizing(found, seconds)
        ),
        "outage": Part(
            lambda: bench.pressure("outage", seconds), lambda found: report.print_outage(found, seconds)
        ),
        "board": Part(
            lambda: [bench.pressure("board", seconds / 2 / rounds) for _ in range(rounds)], report.print_board
        ),
        "cpu": Part(
            lambda: bench.cpu(rounds, max(1, cycles // 10)),
            lambda found: report.print_cpu(found, rounds, max(1, cycles // 10)),
        ),
        "throughput": Part(
            lambda: bench.throughput(options.scenarios, rounds, seconds / 40),
            lambda found: report.print_throughput(found, rounds, seconds / 40),
        ),
    }


def environment(peers: Sequence[Peer], server: Any) -> dict[str, str]:
    """Return the versions of Python, the server and the packages."""
    packages = {"Django", "SQLAlchemy", *(package for peer in peers for package in peer.packages)}
    if find_spec("gunicorn"):
        packages.add("gunicorn")
    return {
        "Python": platform.python_version(),
        "server": str(server.execute("SELECT VERSION()")[0][0]).partition(" on ")[0],
        **{package: version(package) for package in sorted(packages)},
    }


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an argument: names separated by commas, all of them among the known ones."""

    def names(text: str) -> list[str]:
        given = [name for name in text.split(",") if name]
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return given

    return names


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--database", choices=list(DIALECTS), default="mysql", help="the kind of server (mysql)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the timing (15)")
    parser.add_argument(
        "--cycles",
        type=int,
        default=1000,
        help="cycles of each round; a tenth of it for the requests of the part cpu (1000)",
    )
    parser.add_argument("--jobs", type=int, default=1200, help="jobs of the part last_ids (1200)")
    parser.add_argument("--memory", type=int, default=20_000, help="cycles of the memory's course (20000)")
    parser.add_argument("--only", help="measure only the peer of that name, or all with that in the name")
    parser.add_argument(
        "--parts",
        type=some_of(PARTS),
        help=f"which parts, separated by commas ({','.join(PARTS)})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="seconds of the parts fair and outage, and of each run of sizing; a tenth of it for the part"
        " waiting, a fortieth for each round of turns and of throughput (20)",
    )
    parser.add_argument(
        "--scenarios",
        type=some_of(SCENARIOS),
        default=list(SCENARIOS),
        help=f"which scenarios of the part throughput, separated by commas ({','.join(SCENARIOS)})",
    )
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help=f"write bar charts of the parts {', '.join(plots.PLOTS)}"
    )
    options = parser.parse_args(given)
    without = DIALECTS[options.database].without
    if options.parts is None:
        options.parts = [name for name in PARTS if name not in without]
    elif unknown := without.intersection(options.parts):
        parser.error(f"not with {options.database}: {', '.join(unknown)}")
    return options


def named(database: str, name: str | None) -> list[Peer]:
    """Return the peer of that name, or else the peers with that text in the name; all for None."""
    peers = PEERS[database]
    exactly = [peer for peer in peers if peer.name == name]
    return exactly or [peer for peer in peers if name is None or name in peer.name]


def main() -> None:
    options = arguments()
    dialect = DIALECTS[options.database]
    chosen = named(dialect.name, options.only)
    missing = {peer.name: reason for peer in chosen if (reason := peer.missing())}
    peers = [peer for peer in chosen if peer.name not in missing]
    with dialect.server(None) as server:
        versions = environment(peers, server)
        found: dict[str, Any] = {"versions": versions, "missing": missing, "failed": {}}
        if not options.json:
            report.print_versions(versions, missing)
        bench = Bench(dialect, server, peers)
        parts = parts_of(bench, options)
        for name in options.parts:
            bench.failed.clear()
            found[name] = parts[name].measure()
            found["failed"][name] = dict(bench.failed)
            if not options.json:
                parts[name].show(found[name])
                report.print_failed(bench.failed)
    if options.plots:
        plots.write(found, dialect.name, options.plots)
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
