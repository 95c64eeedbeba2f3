"""``make bench``: poollife and its peers in one run, on a private server.

Figures of one run belong together: peers take turns, so whatever else the machine does strikes all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any

from benchmarks import leaks
from benchmarks.peers import BARE, PEERS, POOLLIFE, Peer
from benchmarks.tables import table
from benchmarks.wiretap import Wiretap
from servers import MariaDB

NAME = "bench"
PARTS = "round_trips,leaks,cycles,memory,fair,turns,spike,waiting,outage"
VIEWS = {
    "one SELECT": ("read", False, 1),
    "ATOMIC_REQUESTS, SELECT and UPDATE": ("write", True, 2),
}


class Process:
    """A worker of ``benchmarks.worker``: its orders are methods."""

    def __init__(self, peer: Peer, entry: dict[str, Any]) -> None:
        self.peer = peer
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._tell(
            {
                "entry": {**entry, **peer.entry, "ENGINE": peer.engine},
                "middleware": peer.middleware,
                "persistent": peer.persistent,
            }
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        # Closed, its orders end; and with them it does.
        self._process.communicate()

    def __getattr__(self, order: str) -> Any:
        return lambda *arguments: self._tell([order, *arguments])

    def _tell(self, message: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        if answer := self._process.stdout.readline():
            return json.loads(answer)
        raise RuntimeError(f"{self.peer.name} failed:\n{self._process.communicate()[1]}")


class Bench:
    """One run."""

    def __init__(self, server: MariaDB, peers: Sequence[Peer]) -> None:
        self._server = server
        self._peers = peers
        server.create_database(NAME)
        for statement in leaks.SET_UP.strip().splitlines():
            server.execute(statement.format(name=NAME, user=server.user))

    @contextmanager
    def _processes(
        self, peers: Sequence[Peer], *, alone: bool = False, **entry: Any
    ) -> Iterator[list[Process]]:
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    Process(peer, {**self._server.database(NAME), **entry, **(peer.alone if alone else {})})
                )
                for peer in peers
            ]

    def round_trips(self) -> dict[str, Any]:
        """What a warm request asks of the server beside the view's own, by peer and view."""
        found: dict[str, Any] = {}
        with (
            Wiretap(self._server.host, self._server.port) as tap,
            self._processes(self._peers, PORT=str(tap.port)) as processes,
        ):
            for process in processes:
                for name, (view, atomic, own) in VIEWS.items():
                    for _ in range(3):
                        process.request(view, atomic)
                    with tap.listening() as heard:
                        process.request(view, atomic)
                    extra = {"own": own, "extra": len(heard) - own, "heard": list(heard)}
                    found.setdefault(process.peer.name, {})[name] = extra
        return found

    def leaks(self) -> dict[str, dict[str, str]]:
        """What the next borrower comes across, by kind and peer."""
        found: dict[str, dict[str, str]] = {}
        with self._processes(self._peers, alone=True) as processes:
            for name, kind in leaks.KINDS.items():
                soil, look = (statement.format(name=NAME) for statement in kind)
                for process in processes:
                    verdict = self._verdict(process, name, soil, look)
                    found.setdefault(name, {})[process.peer.name] = verdict
        return found

    def _verdict(self, process: Process, name: str, soil: str, look: str) -> str:
        self._renew(process)
        new = process.ask(look)
        self._renew(process)
        changed = process.ask_twice(soil, look)
        self._renew(process)
        process.ask(soil)
        next_ = process.ask(look)
        if next_ != new:
            return "LEAKS"
        return "-" if changed != new or name in leaks.HARMS_OTHERS_ONLY else "shows nothing"

    def _renew(self, process: Process) -> None:
        """New sessions: to look may itself change one."""
        process.forget()
        for session in self._server.sessions():
            self._server.execute(f"KILL {session.id}")
        while self._server.sessions():
            time.sleep(0.005)
        process.renew()

    def cycles(self, rounds: int, cycles: int) -> dict[str, dict[str, float]]:
        """Microseconds for a checkout and a return, and how many times SQLAlchemy's bare cycle that is."""
        times: dict[str, list[list[float]]] = {}
        with self._processes([BARE, *self._peers]) as processes:
            for process in processes:
                process.cycles(cycles // 10)
            for _ in range(rounds):
                for process in processes:
                    times.setdefault(process.peer.name, []).append(process.cycles(cycles))
        return {name: summary(each, times[BARE.name]) for name, each in times.items()}

    def pressure(self, part: str, *arguments: float) -> dict[str, Any]:
        """See ``benchmarks.pressure``."""
        entry = {**self._server.database(NAME), "ENGINE": POOLLIFE.engine}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.pressure"],
            input=json.dumps({"part": part, "entry": entry, "arguments": arguments}),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{part} failed:\n{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def turns(self, rounds: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
        """As for ``cycles()``, but of a crowd's turns, by what each does: SQLAlchemy's queue is the first."""
        found = self.pressure("turns", rounds, seconds)
        return {
            work: {name: summary(times, next(iter(ways.values()))) for name, times in ways.items()}
            for work, ways in found.items()
        }

    def memory(self, cycles: int) -> dict[str, list[dict[str, int]]]:
        """Memory and objects after each quarter of so many cycles."""
        found: dict[str, list[dict[str, int]]] = {}
        with self._processes(self._peers) as processes:
            for process in processes:
                process.cycles(1000)
                for quarter in range(5):
                    if quarter:
                        process.cycles(cycles // 4)
                    resident, objects = process.memory()
                    found.setdefault(process.peer.name, []).append(
                        {"cycles": quarter * (cycles // 4), "bytes": resident, "objects": objects}
                    )
        return found


def summary(times: list[list[float]], bare: list[list[float]]) -> dict[str, float]:
    """Of each round's times, on the clock and of the process."""
    clock, process = zip(*times, strict=True)
    # Of each round its own: what slows the machine down slows both.
    ratios = [one[1] / other[1] for one, other in zip(times, bare, strict=True)]
    return {
        "median": statistics.median(clock),
        "least": min(clock),
        "most": max(clock),
        "process": statistics.median(process),
        "ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
    }


# --- what is printed ----------------------------------------------------------------------------------------


def print_round_trips(found: dict[str, Any]) -> None:
    print("\nRound trips of a warm request, beside the view's own; each a packet that was answered\n")
    rows = [[name, *(str(each[view]["extra"]) for view in VIEWS)] for name, each in found.items()]
    print(table(["", *VIEWS], rows))


def print_leaks(found: dict[str, dict[str, str]]) -> None:
    print("\nSession state that the next borrower comes across\n")
    names = list(next(iter(found.values())))
    numbers = [f"({number})" for number in range(1, len(names) + 1)]
    rows = [[kind, *each.values()] for kind, each in found.items()]
    sums = [str(sum(each[name] == "LEAKS" for each in found.values())) for name in names]
    print(table([f"{len(found)} kinds", *numbers], [*rows, ["leaks", *sums]]))
    print("\n" + "\n".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True)))
    print("'shows nothing': neither does the borrower himself see anything of it there.")


def print_cycles(found: dict[str, dict[str, float]], rounds: int, cycles: int) -> None:
    print(
        f"\nA checkout and a return, warm: ensure_connection() and close(), or what Django does at the end of"
        f"\na request where it keeps the connection. Microseconds, {rounds} rounds of {cycles} cycles. How"
        f"\nmany times SQLAlchemy's bare cycle: by the process's time, which leaves out what it waits for.\n"
    )
    rows = [
        [
            name,
            f"{each['median']:.1f}",
            f"{each['least']:.1f} - {each['most']:.1f}",
            f"{each['process']:.1f}",
            f"{each['ratio']:.1f}",
            f"{each['least_ratio']:.1f} - {each['most_ratio']:.1f}",
        ]
        for name, each in found.items()
    ]
    print(table(["", "median", "spread", "process", "x bare", "spread"], rows))


def print_memory(found: dict[str, list[dict[str, int]]]) -> None:
    steps = next(iter(found.values()))
    print("\nMegabytes of memory, and objects, after so many cycles\n")
    heads = [f"{step['cycles']:,}" for step in steps]
    rows = [
        [name, *(f"{step['bytes'] / 1e6:.1f}, {step['objects']:,}" for step in each)]
        for name, each in found.items()
    ]
    print(table(["", *heads], rows))


def print_fair(found: dict[str, Any], seconds: float) -> None:
    print(f"\nTwenty threads on four connections for {seconds:g} s, one SELECT each time, no pause\n")
    rows = [
        [name, f"{each['least']:,} - {each['most']:,}", str(each["given_up"])] for name, each in found.items()
    ]
    print(table(["", "turns of a thread", "gave up after 5 s"], rows))


def print_turns(found: dict[str, dict[str, dict[str, float]]], rounds: int, seconds: float) -> None:
    print(
        f"\nWhat a turn costs on four connections, without a pause: microseconds of the process, in {rounds}"
        f"\nrounds of {seconds:g} s, each way in its turn. How many times SQLAlchemy's of the same round.\n"
    )
    for work, ways in found.items():
        rows = [
            [
                name,
                f"{each['process']:.1f}",
                f"{each['ratio']:.2f}",
                f"{each['least_ratio']:.2f} - {each['most_ratio']:.2f}",
            ]
            for name, each in ways.items()
        ]
        print(table([work, "us", "x SQLAlchemy's", "spread"], rows) + "\n")


def print_spike(found: dict[str, Any]) -> None:
    print("\nFifty requests of 2 ms at once on five idle sessions; connecting takes 150 ms\n")
    rows = [
        [name, str(each["opened"]), f"{each['median'] * 1e3:.0f}", f"{each['most'] * 1e3:.0f}"]
        for name, each in found.items()
    ]
    print(table(["", "sessions opened, with those", "median ms", "most ms"], rows))


def print_waiting(found: dict[str, Any], seconds: float) -> None:
    print(
        f"\nRequests of 20 ms, twice as many as four connections can bear, for {seconds:g} s: ms of waiting\n"
    )
    rows = [
        [
            name,
            *(f"{each[key] * 1e3:.0f}" for key in ("median", "p99", "most", "ideal_p99")),
            f"{each['ratio']:.2f}",
        ]
        for name, each in found.items()
    ]
    print(table(["", "median", "p99", "most", "ideal queue's p99", "x ideal"], rows))


def print_outage(found: dict[str, Any], seconds: float) -> None:
    print(
        f"\nA server that is away for {seconds:g} s, twenty clients, each a hundred times a second at most\n"
    )
    rows = [
        [
            name,
            f"{each['requests']:,}",
            str(each["attempts"]),
            str(each["most_attempts"]),
            f"{each['longest'] * 1e3:.0f}",
            f"{each['first']:.1f}",
        ]
        for name, each in found.items()
    ]
    heads = ["", "requests", "attempts to connect", "most in a second", "longest ms", "well again after s"]
    print(table(heads, rows))


def environment(peers: Sequence[Peer], server: MariaDB) -> dict[str, str]:
    packages = sorted({"Django", *(package for peer in peers for package in peer.packages)})
    return {
        "Python": platform.python_version(),
        "server": str(server.execute("SELECT VERSION()")[0][0]),
        **{package: version(package) for package in packages},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the timing (15)")
    parser.add_argument("--cycles", type=int, default=1000, help="cycles of each round (1000)")
    parser.add_argument("--memory", type=int, default=20_000, help="cycles of the memory's course (20000)")
    parser.add_argument("--only", help="measure only the peer of that name, or those that have it in theirs")
    parser.add_argument(
        "--parts",
        default=PARTS,
        help=f"which parts, separated by commas ({PARTS})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="of the crowd on few connections and of the outage; a tenth of it for the queue, a fortieth for"
        " each round of turns (20)",
    )
    return parser.parse_args()


def named(name: str | None) -> list[Peer]:
    """All of them, or the one of that name, or those that have it in theirs."""
    exactly = [peer for peer in PEERS if peer.name == name]
    return exactly or [peer for peer in PEERS if name is None or name in peer.name]


def main() -> None:
    options = arguments()
    chosen = named(options.only)
    missing = {peer.name: package for peer in chosen if (package := peer.missing())}
    peers = [peer for peer in chosen if peer.name not in missing]
    # Unencrypted, or the packets could not be counted.
    with MariaDB(options=["--skip-ssl"]) as server:
        bench = Bench(server, peers)
        versions = environment(peers, server)
        found: dict[str, Any] = {"versions": versions, "missing": missing}
        if not options.json:
            print(", ".join(f"{name} {number}" for name, number in versions.items()))
            for name, package in missing.items():
                print(f"MISSING: {name}: {package} is not installed, so it was not measured")
        parts: dict[str, Any] = {
            "round_trips": (bench.round_trips, (), print_round_trips, ()),
            "leaks": (bench.leaks, (), print_leaks, ()),
            "cycles": (
                bench.cycles,
                (options.rounds, options.cycles),
                print_cycles,
                (options.rounds, options.cycles),
            ),
            "memory": (bench.memory, (options.memory,), print_memory, ()),
            "fair": (bench.pressure, ("fair", options.seconds), print_fair, (options.seconds,)),
            "turns": (
                bench.turns,
                (options.rounds, options.seconds / 40),
                print_turns,
                (options.rounds, options.seconds / 40),
            ),
            "spike": (bench.pressure, ("spike",), print_spike, ()),
            "waiting": (
                bench.pressure,
                ("waiting", options.seconds / 10),
                print_waiting,
                (options.seconds / 10,),
            ),
            "outage": (bench.pressure, ("outage", options.seconds), print_outage, (options.seconds,)),
        }
        for part in filter(None, options.parts.split(",")):
            measure, how, tell, about = parts[part]
            found[part] = measure(*how)
            if not options.json:
                tell(found[part], *about)
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
