"""The part ``throughput``: requests per second under gunicorn, with stock Django and with its peers.

In each scenario the sites of all contenders run at the same time, on the same database server. A load
generator asks one site after the other, in short rounds whose order changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.dialects import Dialect
from benchmarks.items import create_items
from benchmarks.peers import LAZY, SITES, Peer
from benchmarks.process import Failed, Process, first_line
from benchmarks.summaries import quartiles
from benchmarks.web_server import WebServer
from poollife.conf import PoolOptions
from servers import Certificates

DATABASE = "throughput"
#: Connections of the load generator for each thread of gunicorn, so that no thread waits for a request.
CLIENTS_PER_THREAD = 2
#: Seconds that a packet to or from the database server takes where there is a delay.
DELAY = 0.001
#: Seconds for which each site is asked before the first round.
WARM_UP = 0.2

T = TypeVar("T")

STOCK = "stock, CONN_MAX_AGE=None"
STOCK_NEW = "stock, CONN_MAX_AGE=0"
#: The peers that keep a connection until the request ends.
FOR_REQUEST = ("Django's own pool", "django-db-connection-pool", "django-db-geventpool")


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
    #: Connections that a pool may have.
    size: int = 8
    #: More keys for the ``POOL`` of poollife.
    pool: dict[str, Any] = field(default_factory=dict)
    #: The names of the peers that are not measured.
    without: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Return why the scenario can't be measured here, or None."""
        unknown = sorted(self.pool.keys() - {option.name for option in fields(PoolOptions)})
        if unknown:
            return f"this version of poollife has no POOL[{unknown[0]!r}]"
        packages = ["gunicorn", "trustme"] if self.tls else ["gunicorn"]
        return next((f"{each} is not installed" for each in packages if not find_spec(each)), None)

    def peers(self, dialect: Dialect) -> list[Peer]:
        """Return the contenders."""
        without = self.without if self.view == "atomic_update" else (*self.without, LAZY)
        return [peer for peer in SITES[dialect.name] if peer.name not in without and not peer.missing()]


SCENARIOS = {
    "direct": Scenario("an ORM get"),
    "delay": Scenario("an ORM get, 1 ms each way", delay=DELAY),
    "tls": Scenario("an ORM get, TLS", tls=True),
    "tls_delay": Scenario("an ORM get, TLS, 1 ms each way", tls=True, delay=DELAY),
    "atomic": Scenario("an atomic get and update", "atomic_update", without=(STOCK_NEW,)),
    "atomic_delay": Scenario(
        "an atomic get and update, 1 ms each way", "atomic_update", delay=DELAY, without=(STOCK_NEW,)
    ),
    # The time of a request: no other thread uses the core while it waits.
    "atomic_delay_one": Scenario(
        "an atomic get and update, 1 ms each way, one thread",
        "atomic_update",
        delay=DELAY,
        threads=1,
        size=1,
        without=(STOCK_NEW,),
    ),
    "half": Scenario(
        "an ORM get, 1 ms each way; a pool has 4 connections for 8 threads",
        delay=DELAY,
        size=4,
        without=(STOCK_NEW,),
    ),
    # A request that waits holds no connection then.
    "statement": Scenario(
        'one query, then 100 ms without any; a pool has 2 connections for 16 threads, release "statement"',
        "wait",
        threads=16,
        size=2,
        pool={"release": "statement"},
        without=(STOCK_NEW, *FOR_REQUEST),
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

    def __init__(self, dialect: Dialect, server: Any, failed: dict[str, str]) -> None:
        """Prepare the run.

        :param dialect: the kind of the server.
        :param server: a server without TLS. One with TLS is started when it is needed.
        :param failed: the errors by the name of the peer; the run adds to them.
        """
        self._dialect = dialect
        self._plain = server
        self._failed = failed
        self._prepared: set[Any] = set()
        self._stack = ExitStack()
        self._tls: Any = None

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
        for peer in SITES[self._dialect.name]:
            if reason := peer.missing():
                self._failed[peer.name] = reason
        return {name: self._measure(name, rounds, seconds) for name in names}

    def _measure(self, name: str, rounds: int, seconds: float) -> dict[str, Any]:
        scenario = SCENARIOS[name]
        if reason := scenario.missing():
            return {"title": scenario.title, "left_out": reason}
        figures: dict[str, Figures] = {}
        with self._sites(scenario) as sites:
            for number in range(-1, rounds):  # the first is the warm-up
                for site in in_turn(sites, number):
                    try:
                        took = self._turn(scenario, site, seconds if number >= 0 else WARM_UP)
                    except (Failed, OSError) as error:
                        sites.remove(site)
                        figures.pop(site.name, None)
                        self._failed[f"{site.name}, {name}"] = first_line(error)
                        continue
                    if number >= 0:
                        each = figures.setdefault(site.name, Figures())
                        each.per_second.append(took[0])
                        each.cpu.append(took[1])
        order = [peer.name for peer in scenario.peers(self._dialect)]
        found = {name: figures[name] for name in order if name in figures}
        if STOCK not in found:
            return {"title": scenario.title, "left_out": "stock Django has failed"}
        return {"title": scenario.title, "left_out": None, "contenders": compare(found)}

    def _turn(self, scenario: Scenario, site: WebServer, seconds: float) -> tuple[float, float]:
        """Return the requests per second, and the microseconds of the worker's CPU for one request."""
        before = site.wait_until_ready()
        requests, took = self._load.drive(
            site.port, f"/default/{scenario.view}", scenario.threads * CLIENTS_PER_THREAD, seconds
        )
        return requests / took, (site.cpu() - before) / requests * 1e6

    @contextmanager
    def _sites(self, scenario: Scenario) -> Iterator[list[WebServer]]:
        with ExitStack() as stack:
            entry = self._database(scenario, stack)
            sites = [
                stack.enter_context(
                    WebServer(
                        peer.name,
                        scenario.threads,
                        settings_of(peer, entry, scenario),
                        self._folder / f"{number}.log",
                        worker="gevent" if peer.gevent else "gthread",
                    )
                )
                for number, peer in enumerate(scenario.peers(self._dialect))
            ]
            yield sites

    def _database(self, scenario: Scenario, stack: ExitStack) -> dict[str, Any]:
        """Return the entry for ``DATABASES``; a relay in front of the server ends with the stack."""
        server = self._tls_server() if scenario.tls else self._plain
        if server not in self._prepared:
            server.create_database(DATABASE)
            create_items(self._dialect, server, DATABASE)
            self._prepared.add(server)
        entry: dict[str, Any] = server.database(DATABASE, via="tls" if scenario.tls else "tcp")
        if scenario.delay:
            beginning = {"host": server.host, "port": server.port, "delay": scenario.delay}
            relay = stack.enter_context(Process("the relay", "benchmarks.relay", beginning))
            entry["PORT"] = str(relay.greeting)
        return entry

    def _tls_server(self) -> Any:
        if self._tls is None:
            certificates = Certificates(self._folder / "certificates")
            self._tls = self._stack.enter_context(self._dialect.server(certificates))
        return self._tls


def in_turn(sites: list[T], number: int) -> list[T]:
    """Return the order of a round, in which each site comes at each place as often as the others.

    :param number: the number of the round.
    """
    first = number % len(sites) if sites else 0
    order = sites[first:] + sites[:first]
    return order[::-1] if sites and number // len(sites) % 2 else order


def settings_of(peer: Peer, entry: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """Return the settings that a contender's site has for itself."""
    return {
        "DATABASES": {"default": peer.database(entry, scenario.size, **scenario.pool)},
        "MIDDLEWARE": peer.middleware,
        "INSTALLED_APPS": peer.apps,
    }


def compare(figures: dict[str, Figures]) -> dict[str, dict[str, dict[str, float]]]:
    """Return quartiles by contender; the ratio is to stock Django's turn in the same round."""
    first = figures[STOCK].per_second
    return {
        name: {
            "per_second": quartiles(each.per_second),
            "cpu_us": quartiles(each.cpu),
            "ratio": quartiles([one / other for one, other in zip(each.per_second, first, strict=True)]),
        }
        for name, each in figures.items()
    }
