"""Its views, a page for Prometheus, and an exporter of OpenTelemetry that writes a file per process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from poollife.monitoring.opentelemetry import instrument
from poollife.monitoring.opentelemetry_histograms import ExporterWithHistograms
from poollife.monitoring.prometheus import register
from tests.support.fork_site import views

#: A metric of the site's own.
PAGES = Counter("site_pages", "Requests to the site.")
#: Milliseconds between two exports.
INTERVAL = 50


def make_registry() -> CollectorRegistry:
    """Return the registry of a scrape, as docs/metrics.md has it."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    register(registry)
    return registry


if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    register()


def echo(request: HttpRequest, number: int) -> JsonResponse:
    """Answer as the view of fork_site, and count the request."""
    PAGES.inc()
    return views.echo(request, number)


def scrape(request: HttpRequest) -> HttpResponse:
    """Answer a scrape."""
    return HttpResponse(generate_latest(make_registry()))


class Files(MetricExporter):
    """An exporter that writes each export as a line of JSON into the file of its process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        with (self._folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(metrics_data.to_json(indent=None) + "\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


def start_exports(folder: str) -> None:
    """Have each process export to a file in this folder, from the master on; empty: none does."""
    if folder:
        exporter = ExporterWithHistograms(Files(Path(folder)))
        instrument(MeterProvider([PeriodicExportingMetricReader(exporter, INTERVAL)]))
