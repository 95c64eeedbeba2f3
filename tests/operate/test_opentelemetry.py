"""The instruments of OpenTelemetry: names and numbers, and exports of workers that come and go."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from poollife import auto_close_db, pool_stats
from poollife.errors import PoolTimeout
from poollife.monitoring.opentelemetry import instrument
from poollife.monitoring.opentelemetry_histograms import ExporterWithHistograms
from poollife.pools.registry import registry
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.invariants.inv1_fork.test_gunicorn_forks import get, gunicorn
from tests.support.web_server import eventually

POOL_NAME, STATE = "db.client.connection.pool.name", "db.client.connection.state"
REQUESTS, CLIENTS = 120, 4
PREFIX = "db.client.connection"


class Points:
    """The data points of one alias, by metric."""

    def __init__(self, exported: dict[str, Any], alias: str) -> None:
        """
        :param exported: one export, as the SDK writes it as JSON.
        """
        self._points = {
            (metric["name"], point["attributes"].get(STATE)): point
            for resource in exported["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
            for point in metric["data"]["data_points"]
            if point["attributes"][POOL_NAME] == alias
        }
        self.names = {name for name, _ in self._points}

    def value(self, name: str, state: str | None = None) -> int | None:
        """Return the value of a metric; None: there is no such metric."""
        point = self._points.get((name, state))
        return point and point["value"]

    def histogram(self, name: str) -> dict[str, Any]:
        """Return the data point of a histogram."""
        point: dict[str, Any] = self._points[name, None]
        return point


class Kept(MetricExporter):
    """An exporter that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.exports: list[MetricsData] = []
        self.ended = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        self.exports.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.ended = True


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(provider)
    yield reader
    provider.shutdown()


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    """A pool of one connection."""
    return make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.1, "stats": True})


def points(reader: InMemoryMetricReader, alias: str) -> Points:
    found = reader.get_metrics_data()
    assert found
    return Points(json.loads(found.to_json()), alias)


@auto_close_db
def wait_in_vain(alias: str) -> None:
    with pytest.raises(PoolTimeout):
        connections[alias].ensure_connection()


def test_points_are_the_numbers_of_the_pool(alias: str, reader: InMemoryMetricReader) -> None:
    connections[alias].ensure_connection()
    thread = threading.Thread(target=wait_in_vain, args=[alias])
    thread.start()
    eventually("it waits", lambda: points(reader, alias).value(f"{PREFIX}.pending_requests") == 1)
    thread.join()
    found = points(reader, alias)
    assert (found.value(f"{PREFIX}.count", "used"), found.value(f"{PREFIX}.count", "idle")) == (1, 0)
    connections[alias].close()
    found, stats = points(reader, alias), pool_stats()[alias]
    assert (found.value(f"{PREFIX}.count", "used"), found.value(f"{PREFIX}.count", "idle")) == (0, 1)
    assert found.value(f"{PREFIX}.pending_requests") == 0
    assert found.value(f"{PREFIX}.limit") == 1
    assert found.value(f"{PREFIX}.timeouts") == 1
    counters: dict[str, int] = {**stats, "replaced": sum(stats["replaced"].values())}  # type: ignore[dict-item]
    for key in ("checkouts", "opened", "closed", "connect_errors", "resets", "replaced"):
        assert found.value(f"poollife.{key}") == counters[key], key


def test_kinds_and_units_are_those_of_the_conventions(alias: str, reader: InMemoryMetricReader) -> None:
    connections[alias].ensure_connection()
    data = reader.get_metrics_data()
    assert data
    metrics = {
        each.name: (each.unit, getattr(each.data, "is_monotonic", None))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for each in scope.metrics
    }
    assert {name: kind for name, kind in metrics.items() if name.startswith(PREFIX)} == {
        f"{PREFIX}.count": ("{connection}", False),
        f"{PREFIX}.limit": ("{connection}", False),
        f"{PREFIX}.pending_requests": ("{request}", False),
        f"{PREFIX}.timeouts": ("{timeout}", True),
    }
    assert {monotonic for name, (_, monotonic) in metrics.items() if not name.startswith(PREFIX)} == {True}


def test_limit_has_its_former_name_on_request(alias: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(provider, with_max=True)
    connections[alias].ensure_connection()
    found = points(reader, alias)
    assert found.value(f"{PREFIX}.max") == found.value(f"{PREFIX}.limit") == 1
    provider.shutdown()


def test_alias_without_a_limit_has_none(make_alias: MakeAlias, reader: InMemoryMetricReader) -> None:
    alias = make_alias(POOL=False)
    connections[alias].ensure_connection()
    found = points(reader, alias)
    assert (found.value(f"{PREFIX}.limit"), found.value(f"{PREFIX}.count", "used")) == (None, 1)


def test_counters_go_on_where_a_pool_is_replaced(alias: str, reader: InMemoryMetricReader) -> None:
    for number in (1, 2, 3):
        connections[alias].ensure_connection()
        connections[alias].close()
        assert points(reader, alias).value("poollife.checkouts") == number
        registry.dispose(alias, "a test")
        gc.collect()
        assert points(reader, alias).value("poollife.checkouts") == number


def test_histograms_are_added_to_an_export(alias: str) -> None:
    exporter = Kept()
    provider = MeterProvider(
        [PeriodicExportingMetricReader(ExporterWithHistograms(exporter), 3_600_000)], shutdown_on_exit=False
    )
    instrument(provider)
    for _ in range(3):
        connections[alias].ensure_connection()
        connections[alias].close()
    provider.force_flush()
    found = Points(json.loads(exporter.exports[-1].to_json()), alias)
    stats: dict[str, Any] = {**pool_stats()[alias]}
    assert found.value("poollife.checkouts") == 3
    for name in ("wait_time", "create_time", "use_time"):
        point, numbers = found.histogram(f"{PREFIX}.{name}"), stats[name]
        assert point["bucket_counts"] == numbers["counts"], name
        assert point["explicit_bounds"] == numbers["bounds"], name
        assert (point["count"], point["sum"]) == (numbers["count"], pytest.approx(numbers["sum"])), name
        assert point["start_time_unix_nano"] <= point["time_unix_nano"], name
    provider.shutdown()
    assert exporter.ended


def test_uses_that_are_not_observed_are_not_exported(make_alias: MakeAlias) -> None:
    alias, exporter = make_alias(), Kept()
    reader = PeriodicExportingMetricReader(ExporterWithHistograms(exporter), 3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(provider)
    connections[alias].ensure_connection()
    connections[alias].close()
    provider.shutdown()
    names = Points(json.loads(exporter.exports[-1].to_json()), alias).names
    assert f"{PREFIX}.wait_time" in names
    assert f"{PREFIX}.use_time" not in names


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize(
    ("begin", "board"),
    [("master", True), ("worker", True), ("worker", False)],
    ids=["master", "worker", "no board"],
)
def test_sums_over_all_processes_are_the_requests(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: str,
    board: bool,
) -> None:
    """Exports begin in gunicorn's master, or in each worker. A worker's numbers begin at 0 either way."""
    exports = tmp_path / "exports"
    exports.mkdir()
    monkeypatch.setenv("METRICS_SITE_EXPORTS", str(exports))
    monkeypatch.setenv("METRICS_SITE_EXPORTS_BEGIN", begin)
    monkeypatch.setenv("POOLLIFE_RUN_DIR", str(tmp_path / "run") if board else "")
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    options = ("--worker-class", "gthread", "--threads", "3", "tests.support.metrics_site.wsgi")
    with (
        gunicorn(tmp_path, database, *options) as port,
        ThreadPoolExecutor(CLIENTS) as crowd,
    ):
        answers = list(crowd.map(lambda number: get(port, f"/echo/{number}/"), range(REQUESTS)))
    workers = {str(answer["pid"]) for answer in answers}
    assert len(workers) > 2
    checkouts = counts = 0
    for file in exports.iterdir():
        found = [Points(json.loads(line), "default") for line in file.read_text().splitlines()]
        series = [each.value("poollife.checkouts") or 0 for each in found]
        assert series == sorted(series)
        if file.stem in workers:
            checkouts += series[-1]
            counts += found[-1].histogram(f"{PREFIX}.wait_time")["count"]
    assert (checkouts, counts) == (REQUESTS, REQUESTS)
    assert workers <= {file.stem for file in exports.iterdir()}
