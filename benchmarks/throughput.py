"""The part ``throughput``: requests per second under gunicorn, with stock Django and with poollife.

In each scenario the sites of all contenders run at the same time, on the same database server. A load
generator asks one site after the other, in short rounds whose order changes.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.items import create_items
from benchmarks.process import Process
from benchmarks.summaries import quartiles
from benchmarks.web_server import WebServer
from poollife.conf import PoolOptions
from servers import Certificates, MariaDB

DATABASE = "throughput"
#: Connections of the load generator for each thread of gunicorn, so that no thread waits for a request.
CLIENTS_PER_THREAD = 2
#: Seconds that a packet to or from the database server takes where there is a delay.
DELAY = 0.001
#: Seconds for which each site is asked before the first round.
WARM_UP = 0.2

STOCK = "stock, CONN_MAX_AGE=None"
STOCK_NEW = "stock, CONN_MAX_AGE=0"
POOLLIFE = "poollife"
AGES = {STOCK: None, STOCK_NEW: 0}


@dataclass(frozen=True)
class Scenario:
    """The requests of a scenario, and their conditions."""

    title: str
    view: str = "orm_get"
    #: Seconds that a packet takes in either direction.
    delay: float = 0.0
    tls: bool = False
    #: Threads of gunicorn's worker. Stock Django has as many connections.
    threads: int = 8
    #: The ``POOL`` of poollife.
    pool: dict[str, Any] = field(default_factory=lambda: {"pool_size": 8, "max_overflow": 0})
    contenders: tuple[str, ...] = (STOCK, STOCK_NEW, POOLLIFE)

    def missing(self) -> str | None:
        """Return why the scenario can't be measured here, or None."""
        unknown = sorted(self.pool.keys() - {option.name for option in fields(PoolOptions)})
        if unknown:
            return f"this version of poollife has no POOL[{unknown[0]!r}]"
        packages = ["gunicorn", "trustme"] if self.tls else ["gunicorn"]
        return next((f"{each} is not installed" for each in packages if not find_spec(each)), None)


BOTH = (STOCK, POOLLIFE)
HALF = {"pool_size": 4, "max_overflow": 0}
SCENARIOS = {
    "direct": Scenario("an ORM get"),
    "delay": Scenario("an ORM get, 1 ms each way", delay=DELAY),
    "tls": Scenario("an ORM get, TLS", tls=True),
    "tls_delay": Scenario("an ORM get, TLS, 1 ms each way", tls=True, delay=DELAY),
    "atomic": Scenario("an atomic get and update", "atomic_update", contenders=BOTH),
    "atomic_delay": Scenario(
        "an atomic get and update, 1 ms each way", "atomic_update", delay=DELAY, contenders=BOTH
    ),
    "half": Scenario(
        "an ORM get, 1 ms each way; poollife has 4 connections for 8 threads",
        delay=DELAY,
        pool=HALF,
        contenders=BOTH,
    ),
    # A request that waits holds no connection then.
    "statement": Scenario(
        'one query, then 100 ms without any; poollife has 2 connections for 16 threads, release "statement"',
        "wait",
        threads=16,
        pool={"pool_size": 2, "max_overflow": 0, "release": "statement"},
        contenders=BOTH,
    ),
}


@dataclass
class Figures:
    """The figures of one contender, one for each round."""

    per_second: list[float] = field(default_factory=list)
    #: Microseconds of the worker's CPU for one request.
    cpu: list[float] = field(default_factory=list)


class Throughput:
    """A run of the part: the database servers and the load generator."""

    def __init__(self, server: MariaDB) -> None:
        """Prepare the run.

        :param server: a server without TLS. One with TLS is started when it is needed.
        """
        self._plain = server
        self._prepared: set[MariaDB] = set()
        self._stack = ExitStack()
        self._tls: MariaDB | None = None

    def __enter__(self) -> Throughput:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="poollife-")))
        self._load = self._stack.enter_context(Process("the load generator", "benchmarks.load", None))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, names: Sequence[str], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
        """Return the figures of the scenarios with these names, or the reason why one is left out.

        :param rounds: how often each site has its turn.
        :param seconds: of one turn.
        """
        return {name: self._measure(SCENARIOS[name], rounds, seconds) for name in names}

    def _measure(self, scenario: Scenario, rounds: int, seconds: float) -> dict[str, Any]:
        if reason := scenario.missing():
            return {"title": scenario.title, "left_out": reason}
        figures = {name: Figures() for name in scenario.contenders}
        with self._sites(scenario) as sites:
            for site in sites:
                self._turn(scenario, site, WARM_UP)
            orders = list(itertools.permutations(sites))
            for number in range(rounds):
                for site in orders[number % len(orders)]:
                    per_second, cpu = self._turn(scenario, site, seconds)
                    figures[site.name].per_second.append(per_second)
                    figures[site.name].cpu.append(cpu)
        return {"title": scenario.title, "left_out": None, "contenders": compare(figures)}

    def _turn(self, scenario: Scenario, site: WebServer, seconds: float) -> tuple[float, float]:
        """Return the requests per second, and the microseconds of the worker's CPU for one request."""
        before = site.cpu()
        try:
            requests, took = self._load.drive(
                site.port, f"/default/{scenario.view}", scenario.threads * CLIENTS_PER_THREAD, seconds
            )
        except RuntimeError as error:
            raise RuntimeError(f"{scenario.title}: {site.name}\n{error}\n{site.log}") from error
        return requests / took, (site.cpu() - before) / requests * 1e6

    @contextmanager
    def _sites(self, scenario: Scenario) -> Iterator[list[WebServer]]:
        with ExitStack() as stack:
            entry = self._database(scenario, stack)
            sites = [
                stack.enter_context(
                    WebServer(
                        name,
                        scenario.threads,
                        settings_of(name, entry, scenario.pool),
                        self._folder / f"{number}.log",
                    )
                )
                for number, name in enumerate(scenario.contenders)
            ]
            for site in sites:
                site.wait_until_ready()
            yield sites

    def _database(self, scenario: Scenario, stack: ExitStack) -> dict[str, Any]:
        """Return the entry for ``DATABASES``; a relay in front of the server ends with the stack."""
        server = self._tls_server() if scenario.tls else self._plain
        if server not in self._prepared:
            server.create_database(DATABASE)
            create_items(server, DATABASE)
            self._prepared.add(server)
        entry = server.database(DATABASE, via="tls" if scenario.tls else "tcp")
        if scenario.delay:
            beginning = {"host": server.host, "port": server.port, "delay": scenario.delay}
            relay = stack.enter_context(Process("the relay", "benchmarks.relay", beginning))
            entry["PORT"] = str(relay.greeting)
        return entry

    def _tls_server(self) -> MariaDB:
        if self._tls is None:
            certificates = Certificates(self._folder / "certificates")
            self._tls = self._stack.enter_context(MariaDB(certificates=certificates))
        return self._tls


def settings_of(contender: str, entry: dict[str, Any], pool: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a contender's site has for itself."""
    if contender == POOLLIFE:
        return {
            "DATABASES": {"default": {**entry, "ENGINE": "poollife.backends.mysql", "POOL": pool}},
            "MIDDLEWARE": ["poollife.middleware.PoolMiddleware"],
            "INSTALLED_APPS": ["poollife"],
        }
    stock = {"ENGINE": "django.db.backends.mysql", "CONN_MAX_AGE": AGES[contender]}
    return {"DATABASES": {"default": {**entry, **stock}}, "MIDDLEWARE": [], "INSTALLED_APPS": []}


def compare(figures: dict[str, Figures]) -> dict[str, dict[str, dict[str, float]]]:
    """Return quartiles by contender; the ratio is to the first contender's turn in the same round."""
    first = next(iter(figures.values())).per_second
    return {
        name: {
            "per_second": quartiles(each.per_second),
            "cpu_us": quartiles(each.cpu),
            "ratio": quartiles([one / other for one, other in zip(each.per_second, first, strict=True)]),
        }
        for name, each in figures.items()
    }
