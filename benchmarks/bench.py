"""The parts of ``make bench``: the comparison of the peers, and the comparison of queues."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from benchmarks import forks, leaks
from benchmarks.dialects import Dialect
from benchmarks.items import create_drawn, create_items
from benchmarks.peers import BARE, PATIENCE, PEERS, SHARED, TIMEOUT, Peer
from benchmarks.process import LIMIT, Crew, Failed, Process
from benchmarks.summaries import costs, summary
from benchmarks.throughput import Throughput

NAME = "bench"
#: The requests of the part ``round_trips``: the worker's view, ATOMIC_REQUESTS, and the view's statements.
VIEWS = {
    "one SELECT": ("read", False, 1),
    "ATOMIC_REQUESTS, one SELECT": ("read", True, 1),
    "ATOMIC_REQUESTS, SELECT and UPDATE": ("write", True, 2),
    "atomic() in ATOMIC_REQUESTS, UPDATE": ("nested", True, 1),
    "ATOMIC_REQUESTS, nothing": ("nothing", True, 0),
}
#: Sessions that a pool may have where nothing else is said.
SIZE = 5
#: Seconds after which the parent of a fork hangs; the words of a process that was killed for that.
FORK_LIMIT, KILLED = 60.0, "status -9"
#: The threads of the executor in the part ``last_ids``.
EXECUTOR = 8


class Bench:
    """A run, with a method for each part."""

    def __init__(self, dialect: Dialect, server: Any, peers: Sequence[Peer]) -> None:
        self._dialect = dialect
        self._server = server
        self._peers = peers
        #: The errors of the peers that failed in the present part.
        self.failed: dict[str, str] = {}
        server.create_database(NAME)
        dialect.execute(server, NAME, *leaks.SET_UP[dialect.name].strip().splitlines())
        create_drawn(dialect, server, NAME)

    def _worker(self, peer: Peer, entry: dict[str, Any], limit: float = LIMIT) -> Process:
        """Start the process of one peer.

        :param entry: the entry of ``DATABASES``.
        :param limit: seconds after which it is killed if it does not answer.
        """
        beginning = {
            "dialect": self._dialect.name,
            "entry": entry,
            "middleware": peer.middleware,
            "persistent": peer.persistent,
        }
        return Process(peer.name, "benchmarks.worker", beginning, patched=peer.gevent, limit=limit)

    @contextmanager
    def _crew(
        self, peers: Sequence[Peer], size: int = SIZE, timeout: int = PATIENCE, **entry: Any
    ) -> Iterator[Crew]:
        with ExitStack() as stack:
            processes = []
            for peer in peers:
                try:
                    own = peer.database({**self._server.database(NAME), **entry}, size, timeout)
                    processes.append(stack.enter_context(self._worker(peer, own)))
                except Failed as error:
                    self.failed[peer.name] = str(error)
            yield Crew(processes, self.failed)

    def round_trips(self) -> dict[str, Any]:
        """Return the round trips of a warm request beside the view's own, by peer and view."""
        found: dict[str, Any] = {}
        with (
            self._dialect.tap(self._server.host, self._server.port) as tap,
            self._crew(self._peers, PORT=str(tap.port)) as crew,
        ):

            def measure(process: Process) -> dict[str, Any]:
                views = {}
                for name, (view, atomic, own) in VIEWS.items():
                    for _ in range(3):
                        process.request(view, atomic)
                    with tap.listening() as heard:
                        process.request(view, atomic)
                    views[name] = {"own": own, "extra": len(heard) - own, "heard": list(heard)}
                return views

            found.update(crew.each(measure))
        return found

    def leaks(self) -> dict[str, dict[str, str]]:
        """Return the session state that the next borrower sees, by kind and peer."""
        found: dict[str, dict[str, str]] = {}
        with self._crew(self._peers, size=1) as crew:
            for name, kind in leaks.KINDS[self._dialect.name].items():
                change, look = (statement.format(name=NAME) for statement in kind)
                found[name] = dict(
                    crew.each(lambda process: self._verdict(process, name, change, look))  # noqa: B023
                )
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
            return "HANGS" if next_ == "hangs" else "LEAKS"
        return "-" if changed != new or name in leaks.HARMS_OTHERS_ONLY else "shows nothing"

    def _renew(self, process: Process) -> None:
        """Give a process new sessions: the statement that looks may itself change a session."""
        process.forget()
        # Again and again: some pools have threads that open a session in place of one that was killed.
        while sessions := self._server.sessions():
            for session in sessions:
                with suppress(Exception):  # it has ended by itself
                    self._server.kill(session.id)
        process.renew()

    def forks(self) -> dict[str, dict[str, str]]:
        """Return what becomes of parent and child, by the session's state and the child's deed, and by peer.

        Each fork has a process of its own: one that hung may not show what the next one does.
        """
        found: dict[str, dict[str, str]] = {}
        for state, deed in itertools.product(forks.STATES, forks.DEEDS):
            verdicts = found[f"{state}, child {deed}"] = {}
            for peer in self._peers:
                own = peer.database(self._server.database(NAME), 1)
                try:
                    with self._worker(peer, own, FORK_LIMIT) as process:
                        verdicts[peer.name] = process.fork(state, deed)
                except Failed as error:
                    verdicts[peer.name] = "parent HANGS" if KILLED in str(error) else str(error)
        return found

    def cycles(self, rounds: int, cycles: int) -> dict[str, dict[str, float]]:
        """Return the microseconds of a checkout and a checkin, and the multiple of SQLAlchemy's cycle."""
        times: dict[str, list[list[float]]] = {}
        with self._crew([BARE, *self._peers]) as crew:
            list(crew.each(lambda process: process.cycles(cycles // 10)))
            for _ in range(rounds):
                for name, took in crew.each(lambda process: process.cycles(cycles)):
                    times.setdefault(name, []).append(took)
        return {name: summary(each, times[BARE.name]) for name, each in self._whole(times)}

    def _whole(self, found: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return the figures of the peers that have not failed."""
        return [(name, each) for name, each in found.items() if name not in self.failed]

    def fair(self, seconds: float) -> dict[str, Any]:
        """Return the turns of twenty threads on four sessions, of the queues alone and of each peer."""
        found = self.pressure("fair", seconds)
        with self._crew(self._peers, size=SHARED, timeout=TIMEOUT) as crew:
            found.update(crew.each(lambda process: process.fair(seconds)))
        return found

    def last_ids(self, jobs: int) -> dict[str, Any]:
        """Return how many answers to a question for the key drawn last were right, wrong and refused."""
        with self._crew(self._peers, size=SHARED) as crew:
            return dict(crew.each(lambda process: process.last_ids(EXECUTOR, jobs)))

    def pressure(self, part: str, *arguments: float) -> dict[str, Any]:
        """Return the figures of a part of ``benchmarks.pressure``, which runs in a process of its own."""
        poollife = next(peer for peer in PEERS[self._dialect.name] if peer.name == "poollife")
        entry = {**self._server.database(NAME), "ENGINE": poollife.engine}
        order = {"part": part, "dialect": self._dialect.name, "entry": entry, "arguments": arguments}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.pressure"],
            input=json.dumps(order),
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
        with self._crew(self._peers) as crew:

            def measure(process: Process) -> list[dict[str, int]]:
                process.cycles(1000)
                steps = []
                for quarter in range(5):
                    if quarter:
                        process.cycles(cycles // 4)
                    resident, objects = process.memory()
                    steps.append({"cycles": quarter * (cycles // 4), "bytes": resident, "objects": objects})
                return steps

            return dict(crew.each(measure))

    def cpu(self, rounds: int, requests: int) -> dict[str, Any]:
        """Return the quartiles of the CPU of a request, by kind and contender; see ``benchmarks.cpu``."""
        create_items(self._dialect, self._server, NAME)
        beginning = {"database": self._dialect.name, "entry": self._server.database(NAME)}
        with Process("the part cpu", "benchmarks.cpu", beginning) as process:
            return {kind: costs(figures) for kind, figures in process.measure(rounds, requests).items()}

    def throughput(self, scenarios: Sequence[str], rounds: int, seconds: float) -> dict[str, Any]:
        """Return the figures of each scenario; see ``benchmarks.throughput``."""
        with Throughput(self._dialect, self._server, self.failed) as throughput:
            return throughput.measure(scenarios, rounds, seconds)
