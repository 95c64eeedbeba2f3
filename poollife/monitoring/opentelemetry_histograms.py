"""Histograms for OpenTelemetry: an exporter around another one, which adds those of this process's pools.

OpenTelemetry's SDK for Python has histograms to record into, but none to observe. To record a duration costs
10 microseconds, which is most of a checkout. The pools have counted by the same bounds anyway, so that the
finished numbers can be added at an export.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from poollife import clock
from poollife.board.views import Totals
from poollife.monitoring.opentelemetry import POOL_NAME, SCOPE
from poollife.monitoring.own import own_totals
from poollife.pools.meters import BOUNDS

HISTOGRAMS = {
    "wait_time": "Time until a checkout has a connection, the opening of one included.",
    "create_time": "Time for opening a connection.",
    "use_time": "Time from checkout to checkin.",
}


class ExporterWithHistograms(MetricExporter):
    """An exporter that adds ``db.client.connection.wait_time``, ``create_time`` and ``use_time``.

    They are cumulative since the process began. ``use_time`` needs ``POOL["stats"]``. A reader exports
    nothing where no instrument has a number: call ``instrument()``, too.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        """
        :param exporter: gets all metrics, those of the pools included.
        """
        # A reader asks its exporter for both, by these attributes.
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        #: The process, and the begin of its numbers in nanoseconds since 1970.
        self._began = (os.getpid(), _now())

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export the metrics and the histograms."""
        scope = ScopeMetrics(InstrumentationScope(SCOPE), self._histograms(), schema_url="")
        resources = [
            dataclasses.replace(each, scope_metrics=[*each.scope_metrics, scope])
            for each in metrics_data.resource_metrics
        ]
        return self._exporter.export(MetricsData(resources), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have the other exporter export what it has."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _histograms(self) -> list[Metric]:
        now = _now()
        if self._began[0] != os.getpid():
            self._began = (os.getpid(), now)
        totals = own_totals()
        metrics = []
        for name, text in HISTOGRAMS.items():
            points = [self._point(alias, each, name, now) for alias, each in totals.items()]
            # Without POOL["stats"] no use is observed: zeros would be a statement.
            points = [point for point in points if point.count or name != "use_time"]
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
            if points:
                metrics.append(Metric(f"db.client.connection.{name}", text, "s", data))
        return metrics

    def _point(self, alias: str, totals: Totals, name: str, now: int) -> HistogramDataPoint:
        counts, seconds = totals.histograms[name]
        return HistogramDataPoint(
            attributes={POOL_NAME: alias},
            start_time_unix_nano=self._began[1],
            time_unix_nano=now,
            count=sum(counts),
            sum=seconds,
            bucket_counts=counts,
            explicit_bounds=BOUNDS,
            # The pools don't keep them. For OTLP, None leaves the field out: github.com/open-telemetry/
            # opentelemetry-python/issues/5570.
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )


def _now() -> int:
    """Return nanoseconds since 1970."""
    return int(clock.wall() * 1e9)
