"""Metrics for OpenTelemetry: the pools of this process, by observable instruments.

In OpenTelemetry each process is an instance of its own, and sums are made where the metrics arrive. Names and
units are those of the semantic conventions for database clients. The callbacks run at an export: a checkout
does not know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from poollife.monitoring.own import own_totals
from poollife.monitoring.stats import PoolStats, pool_stats

#: The name of the meter.
SCOPE = "poollife"
POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
#: Counters by their names in ``own_totals()``: the instrument, its unit and its description.
COUNTERS = {
    "timeouts": ("db.client.connection.timeouts", "{timeout}", "Checkouts that ended in a PoolTimeout."),
    "checkouts": ("poollife.checkouts", "{checkout}", "Checkouts that got a connection."),
    "opened": ("poollife.opened", "{connection}", "Connections opened."),
    "closed": ("poollife.closed", "{connection}", "Connections closed."),
    "connect_errors": ("poollife.connect_errors", "{error}", "Failed attempts to open a connection."),
    "resets": ("poollife.resets", "{reset}", "Returns that needed a reset."),
    "replaced": ("poollife.replaced", "{connection}", "Connections closed because they could not be kept."),
}

Callback = Callable[[CallbackOptions], Iterable[Observation]]


def instrument(meter_provider: MeterProvider | None = None, *, with_max: bool = False) -> None:
    """Have the pools of this process observed at each export. Call it once, before or after a fork.

    :param meter_provider: makes the instruments. Default: None, the global provider, even if that is set
        later.
    :param with_max: whether ``db.client.connection.max`` is observed, too: the name that
        ``db.client.connection.limit`` had before September 2026. Default: False.
    """
    meter = get_meter(SCOPE, meter_provider=meter_provider)
    _observe(meter, "count", "{connection}", "Open connections, by state.", _count)
    limits = ["limit", "max"] if with_max else ["limit"]
    for name in limits:
        _observe(meter, name, "{connection}", "The most connections that may be open.", _limit)
    _observe(meter, "pending_requests", "{request}", "Checkouts that wait.", _pending)
    for name, (metric, unit, text) in COUNTERS.items():
        meter.create_observable_counter(metric, [_counter(name)], unit, text)


def _observe(
    meter: Meter,
    name: str,
    unit: str,
    text: str,
    observe: Callable[[str, PoolStats], Iterator[Observation]],
) -> None:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [found for alias, stats in pool_stats().items() for found in observe(alias, stats)]

    meter.create_observable_up_down_counter(f"db.client.connection.{name}", [callback], unit, text)


def _count(alias: str, stats: PoolStats) -> Iterator[Observation]:
    yield Observation(stats["idle"], {POOL_NAME: alias, STATE: "idle"})
    yield Observation(stats["out"], {POOL_NAME: alias, STATE: "used"})


def _limit(alias: str, stats: PoolStats) -> Iterator[Observation]:
    if stats["limit"] is not None:
        yield Observation(stats["limit"], {POOL_NAME: alias})


def _pending(alias: str, stats: PoolStats) -> Iterator[Observation]:
    yield Observation(stats["waiting"], {POOL_NAME: alias})


def _counter(name: str) -> Callback:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(totals.counters[name], {POOL_NAME: alias}) for alias, totals in own_totals().items()
        ]

    return callback
