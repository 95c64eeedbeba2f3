"""Metrics for Prometheus: the pools of all processes of this site on this host, by one collector.

The collector reads the board. So any process answers for all of them, and processes that have ended count on.
Names are those of OpenTelemetry's semantic conventions, in the form of Prometheus. Each alias has one sum: no
label names a process.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from poollife.board.folder import NoBoard
from poollife.board.reader import Board, read_board
from poollife.board.views import Pool
from poollife.pools.log import about
from poollife.pools.meters import BOUNDS

logger = logging.getLogger("poollife")

POOL_NAME = "db_client_connection_pool_name"
STATE = "db_client_connection_state"
#: Counters, by their names on the board: the metric without ``_total``, and its help.
COUNTERS = {
    "timeouts": ("db_client_connection_timeouts", "Checkouts that ended in a PoolTimeout."),
    "checkouts": ("poollife_checkouts", "Checkouts that got a connection."),
    "opened": ("poollife_opened", "Connections opened."),
    "closed": ("poollife_closed", "Connections closed."),
    "connect_errors": ("poollife_connect_errors", "Failed attempts to open a connection."),
    "resets": ("poollife_resets", "Returns that needed a reset."),
    "replaced": ("poollife_replaced", "Connections closed because they could not be kept."),
}
#: Histograms, by their names on the board: the metric, and its help.
HISTOGRAMS = {
    "wait_time": (
        "db_client_connection_wait_time_seconds",
        "Time until a checkout has a connection, the opening of one included.",
    ),
    "create_time": ("db_client_connection_create_time_seconds", "Time for opening a connection."),
    "use_time": (
        "db_client_connection_use_time_seconds",
        'Time from checkout to checkin, of processes with POOL["stats"].',
    ),
}
#: The upper bounds as Prometheus writes them.
_BOUNDS = (*map(str, BOUNDS), "+Inf")


def register(registry: CollectorRegistry = REGISTRY) -> PoolCollector:
    """Add the metrics of this site's pools to a registry. No file is read until the first scrape.

    :param registry: the registry that the site's scrape reads. Default: prometheus_client's own.
    :returns: the collector, for ``registry.unregister()``.
    :raises ValueError: the registry has these metrics already.
    """
    collector = PoolCollector()
    registry.register(collector)
    return collector


class PoolCollector(Collector):
    """A collector of the pools of all processes of a site on this host.

    Without a board it returns no metrics, and logs a warning: a scrape never fails because of it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """
        :param folder: the folder of the board. Default: None, the board of this site and user.
        """
        self._folder = folder
        #: The trouble that the last scrape had, which was logged; empty: it had none.
        self._logged = ""

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without numbers: for the registry, which compares names."""
        return _Families().all()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with the numbers of this moment."""
        try:
            board = read_board(self._folder)
        except (NoBoard, OSError) as error:
            self._log("There are no metrics of pools: %s", str(error))
            return []
        self._log("Metrics of pools may be incomplete: %s", "; ".join(board.unreadable))
        families = _Families()
        families.fill(board)
        return families.all()

    def _log(self, text: str, trouble: str) -> None:
        """Log a trouble, but not at each scrape again."""
        if trouble and trouble != self._logged:
            logger.warning(text, trouble, extra=about(None))
        self._logged = trouble


class _Families:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        self._count = GaugeMetricFamily(
            "db_client_connection_count", "Open connections now, by state.", labels=[POOL_NAME, STATE]
        )
        self._limit = _gauge("db_client_connection_limit", "The most connections that may be open.")
        self._pending = _gauge("db_client_connection_pending_requests", "Checkouts that wait now.")
        self._processes = _gauge("poollife_processes", "Processes with a pool of this alias.")
        self._counters = {
            name: CounterMetricFamily(metric, text, labels=[POOL_NAME])
            for name, (metric, text) in COUNTERS.items()
        }
        self._histograms = {
            name: HistogramMetricFamily(metric, text, labels=[POOL_NAME])
            for name, (metric, text) in HISTOGRAMS.items()
        }

    def all(self) -> list[Metric]:
        """Return all metrics."""
        gauges: list[Metric] = [self._count, self._limit, self._pending, self._processes]
        return [*gauges, *self._counters.values(), *self._histograms.values()]

    def fill(self, board: Board) -> None:
        """Add the numbers of a board."""
        # An alias whose processes have all ended has no pool, and counts on.
        pools: dict[str, list[Pool]] = {alias: [] for alias in board.totals}
        users: dict[str, int] = dict.fromkeys(board.totals, 0)
        for process in board.processes:
            for pool in process.pools:
                pools.setdefault(pool.alias, []).append(pool)
            for alias in {pool.alias for pool in process.pools}:
                users[alias] = users.get(alias, 0) + 1
        for alias, of_alias in pools.items():
            self._processes.add_metric([alias], users[alias])
            self._add_gauges(alias, of_alias)
        for alias, totals in board.totals.items():
            for name, number in totals.counters.items():
                self._counters[name].add_metric([alias], number)
            for name, (counts, seconds) in totals.histograms.items():
                # Without POOL["stats"] no use is observed: zeros would be a statement.
                if name != "use_time" or any(counts):
                    buckets = list(zip(_BOUNDS, itertools.accumulate(counts), strict=True))
                    self._histograms[name].add_metric([alias], buckets, seconds)

    def _add_gauges(self, alias: str, pools: list[Pool]) -> None:
        used = sum(pool.out for pool in pools)
        self._count.add_metric([alias, "idle"], sum(pool.idle for pool in pools))
        self._count.add_metric([alias, "used"], used)
        self._pending.add_metric([alias], sum(pool.waiting for pool in pools))
        limits = [pool.limit for pool in pools if pool.limit is not None]
        # No sample where there is no limit, and none where no process is left that could have one.
        if limits and len(limits) == len(pools):
            self._limit.add_metric([alias], sum(limits))


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[POOL_NAME])
