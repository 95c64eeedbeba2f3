"""The dashboard and the alerts in deploy/, and docs/metrics.md: they name the metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.db import connections

from poollife.monitoring.opentelemetry import COUNTERS
from poollife.monitoring.opentelemetry_histograms import HISTOGRAMS
from poollife.monitoring.prometheus import PoolCollector
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.pages import code, page

DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
#: Words of PromQL, and Grafana's function for the values of a variable.
WORDS = {"absent", "and", "by", "histogram_quantile", "ignoring", "increase", "label_values", "rate", "sum"}
#: Labels that Prometheus adds.
SCRAPED = {"instance"}


def dashboard_queries() -> Iterator[str]:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["query"]["query"] == variable["definition"]
            yield variable["definition"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def alert_queries() -> Iterator[str]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


QUERIES = [*dashboard_queries(), *alert_queries()]


def names_in(query: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the metrics of a query, and its labels with their values; "": the query names no value."""
    labels = {(label, value) for label, value in re.findall(r'(\w+)=~?"([^"]*)"', query)}
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", query)
    listed = re.findall(r"\b(?:by|ignoring) *\(([^)]*)\)", rest)
    listed += re.findall(r"label_values\([^,]*, (\w+)\)", rest)
    labels |= {(label, "") for labels_ in listed for label in re.findall(r"\w+", labels_)}
    rest = re.sub(r"\b(?:by|ignoring) *\([^)]*\)|, \w+(?=\)$)", " ", rest)
    return set(re.findall(r"\b[a-z_]\w*", rest)) - WORDS, labels


@pytest.fixture
def exposed(make_alias: MakeAlias) -> dict[str, set[tuple[str, str]]]:
    """The samples of the collector, with their labels."""
    alias = make_alias(POOL={"stats": True})
    connections[alias].ensure_connection()
    connections[alias].close()
    found: dict[str, set[tuple[str, str]]] = {}
    for family in PoolCollector().collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels.items())
    return found


def unknown(query: str, exposed: dict[str, set[tuple[str, str]]]) -> list[str]:
    """Return what a query asks for, and the collector does not have."""
    metrics, labels = names_in(query)
    assert metrics, query
    known = {pair for metric in metrics for pair in exposed.get(metric, ())}
    names = {name for name, _ in known} | SCRAPED
    missing = [metric for metric in metrics if metric not in exposed]
    missing += [name for name, _ in labels if name not in names]
    # A value with "$" is a variable of the dashboard.
    fixed = {(name, value) for name, value in labels if value and "$" not in value}
    return missing + [f"{name}={value}" for name, value in fixed if (name, value) not in known]


@pytest.mark.parametrize("query", QUERIES)
def test_collector_has_the_metrics_of_a_query(query: str, exposed: dict[str, set[tuple[str, str]]]) -> None:
    assert unknown(query, exposed) == []


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(poollife_checkout_total[5m])", ["poollife_checkout_total"]),
        ("sum by (pool) (poollife_processes)", ["pool"]),
        ('poollife_processes{pid="1"}', ["pid", "pid=1"]),
        (
            'db_client_connection_count{db_client_connection_state="out"}',
            ["db_client_connection_state=out"],
        ),
        ("label_values(poollife_processes, host)", ["host"]),
    ],
)
def test_wrong_names_are_found(
    query: str, wrong: list[str], exposed: dict[str, set[tuple[str, str]]]
) -> None:
    assert unknown(query, exposed) == wrong


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for query in dashboard_queries() for name in names_in(query)[0]}
    families = {
        {"counter": f"{family.name}_total", "histogram": f"{family.name}_bucket"}.get(
            family.type, family.name
        )
        for family in PoolCollector().describe()
    }
    assert shown == families


def test_documentation_names_every_metric() -> None:
    rows = page("docs/metrics.md").table("Prometheus | OpenTelemetry | type")
    prometheus = {code(row["Prometheus"]): row["type"] for row in rows}
    assert prometheus == {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in PoolCollector().describe()
    }
    observed = {
        f"db.client.connection.{name}" for name in ("count", "limit", "pending_requests", *HISTOGRAMS)
    }
    observed |= {name for name, _, _ in COUNTERS.values()}
    assert {row["OpenTelemetry"] for row in rows if row["OpenTelemetry"]} == observed
    # A rule makes one from the other.
    for row in rows:
        if name := row["OpenTelemetry"]:
            assert code(row["Prometheus"]).startswith(name.replace(".", "_")), name


def test_dashboard_names_its_panels_once() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert all(
        target["datasource"]["uid"] == "${datasource}" for panel in panels for target in panel["targets"]
    )


def test_every_alert_says_what_is_wrong() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["labels"]["severity"] and rule["annotations"]["summary"] for rule in rules)
