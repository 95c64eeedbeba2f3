"""The parts of ``make bench``: the comparison of the peers, and the comparison of queues."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks import leaks
from benchmarks.items import create_items
from benchmarks.peers import BARE, POOLLIFE, Peer
from benchmarks.process import Process
from benchmarks.summaries import costs, summary
from benchmarks.throughput import Throughput
from benchmarks.wiretap import Wiretap
from servers import MariaDB

NAME = "bench"
VIEWS = {
    "one SELECT": ("read", False, 1),
    "ATOMIC_REQUESTS, SELECT and UPDATE": ("write", True, 2),
}


def worker(peer: Peer, entry: dict[str, Any]) -> Process:
    """Start the process of one peer.

    :param entry: the entry of ``DATABASES``, without the keys that the peer adds.
    """
    beginning = {
        "entry": {**entry, **peer.entry, "ENGINE": peer.engine},
        "middleware": peer.middleware,
        "persistent": peer.persistent,
    }
    return Process(peer.name, "benchmarks.worker", beginning)


class Bench:
    """A run, with a method for each part."""

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
                    worker(peer, {**self._server.database(NAME), **entry, **(peer.alone if alone else {})})
                )
                for peer in peers
            ]

    def round_trips(self) -> dict[str, Any]:
        """Return the round trips of a warm request beside the view's own, by peer and view."""
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
                    found.setdefault(process.name, {})[name] = extra
        return found

    def leaks(self) -> dict[str, dict[str, str]]:
        """Return the session state that the next borrower sees, by kind and peer."""
        found: dict[str, dict[str, str]] = {}
        with self._processes(self._peers, alone=True) as processes:
            for name, kind in leaks.KINDS.items():
                change, look = (statement.format(name=NAME) for statement in kind)
                for process in processes:
                    verdict = self._verdict(process, name, change, look)
                    found.setdefault(name, {})[process.name] = verdict
        return found

    def _verdict(self, process: Process, name: str, change: str, look: str) -> str:
        self._renew(process)
        new = process.ask(look)
        self._renew(process)
        changed = process.ask_twice(change, look)
        self._renew(process)
        process.ask(change)
        next_ = process.ask(look)
        if next_ != new:
            return "LEAKS"
        return "-" if changed != new or name in leaks.HARMS_OTHERS_ONLY else "shows nothing"

    def _renew(self, process: Process) -> None:
        """Give a process new sessions: the statement that looks may itself change a session."""
        process.forget()
        for session in self._server.sessions():
            self._server.execute(f"KILL {session.id}")
        while self._server.sessions():
            time.sleep(0.005)
        process.renew()

    def cycles(self, rounds: int, cycles: int) -> dict[str, dict[str, float]]:
        """Return the microseconds of a checkout and a checkin, and the multiple of SQLAlchemy's cycle."""
        times: dict[str, list[list[float]]] = {}
        with self._processes([BARE, *self._peers]) as processes:
            for process in processes:
                process.cycles(cycles // 10)
            for _ in range(rounds):
                for process in processes:
                    times.setdefault(process.name, []).append(process.cycles(cycles))
        return {name: summary(each, times[BARE.name]) for name, each in times.items()}

    def pressure(self, part: str, *arguments: float) -> dict[str, Any]:
        """Return the figures of a part of ``benchmarks.pressure``, which runs in a process of its own."""
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
        """Return the figures of ``cycles()`` for the turns of many threads, by the work of a turn.

        The figures are multiples of SQLAlchemy's queue, which is the first.
        """
        found = self.pressure("turns", rounds, seconds)
        return {
            work: {name: summary(times, next(iter(ways.values()))) for name, times in ways.items()}
            for work, ways in found.items()
        }

    def memory(self, cycles: int) -> dict[str, list[dict[str, int]]]:
        """Return the memory and the objects of each peer after each quarter of so many cycles."""
        found: dict[str, list[dict[str, int]]] = {}
        with self._processes(self._peers) as processes:
            for process in processes:
                process.cycles(1000)
                for quarter in range(5):
                    if quarter:
                        process.cycles(cycles // 4)
                    resident, objects = process.memory()
                    found.setdefault(process.name, []).append(
                        {"cycles": quarter * (cycles // 4), "bytes": resident, "objects": objects}
                    )
        return found

    def cpu(self, rounds: int, requests: int) -> dict[str, Any]:
        """Return the quartiles of the CPU of a request, by kind and contender; see ``benchmarks.cpu``."""
        create_items(self._server, NAME)
        with Process("the part cpu", "benchmarks.cpu", self._server.database(NAME)) as process:
            return {kind: costs(figures) for kind, figures in process.measure(rounds, requests).items()}

    def throughput(self, scenarios: Sequence[str], rounds: int, seconds: float) -> dict[str, Any]:
        """Return the figures of each scenario; see ``benchmarks.throughput``."""
        with Throughput(self._server) as throughput:
            return throughput.measure(scenarios, rounds, seconds)
