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


def start_exports() -> None:
    """Have each process export to a file. The environment says whether the master begins, or each worker.

    The SDK's reader holds a lock while it exports, and a child that is forked meanwhile never exports. So a
    master that begins exports at its end only.
    """
    if os.environ.get("METRICS_SITE_EXPORTS_BEGIN") == "master":
        _export_every(3_600_000)
    elif "METRICS_SITE_EXPORTS" in os.environ:
        os.register_at_fork(after_in_child=lambda: _export_every(50))


def _export_every(milliseconds: float) -> None:
    exporter = ExporterWithHistograms(Files(Path(os.environ["METRICS_SITE_EXPORTS"])))
    instrument(MeterProvider([PeriodicExportingMetricReader(exporter, milliseconds)]))
