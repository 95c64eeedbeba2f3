"""The collector for Prometheus: names and numbers, and the metrics of a site whose workers come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import pytest
from django.db import connections
from django.test.utils import override_settings
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from poollife import auto_close_db, pool_stats
from poollife.errors import PoolTimeout
from poollife.monitoring.prometheus import PoolCollector, register
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.invariants.inv1_fork.test_gunicorn_forks import get, gunicorn
from tests.support.web_server import eventually, fetch

#: A metric with its labels, without that of the alias.
Sample = tuple[str, tuple[tuple[str, str], ...]]
Numbers = dict[Sample, float]
REQUESTS, CLIENTS = 120, 4
OPTIONS = ("--worker-class", "gthread", "--threads", "3", "tests.support.metrics_site.wsgi")
POOL_NAME, STATE = "db_client_connection_pool_name", "db_client_connection_state"


def numbers(families: list[Metric], alias: str) -> Numbers:
    """Return the samples of one alias."""
    return {
        (
            sample.name,
            tuple(sorted((key, text) for key, text in sample.labels.items() if key != POOL_NAME)),
        ): (sample.value)
        for family in families
        for sample in family.samples
        if sample.labels.get(POOL_NAME) == alias
    }


def scrape(alias: str) -> Numbers:
    return numbers(list(PoolCollector().collect()), alias)


def of(found: Numbers, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def count(found: Numbers, state: str) -> float | None:
    return of(found, "db_client_connection_count", **{STATE: state})


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    """A pool of one connection."""
    return make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0.1, "stats": True})


@auto_close_db
def wait_in_vain(alias: str) -> None:
    with pytest.raises(PoolTimeout):
        connections[alias].ensure_connection()


def test_metrics_are_the_numbers_of_the_pool(alias: str) -> None:
    connections[alias].ensure_connection()
    thread = threading.Thread(target=wait_in_vain, args=[alias])
    thread.start()
    eventually("it waits", lambda: of(scrape(alias), "db_client_connection_pending_requests") == 1)
    thread.join()
    found = scrape(alias)
    assert (count(found, "used"), count(found, "idle")) == (1, 0)
    connections[alias].close()
    found, stats = scrape(alias), pool_stats()[alias]
    assert (count(found, "used"), count(found, "idle")) == (0, 1)
    assert of(found, "db_client_connection_limit") == 1
    assert of(found, "db_client_connection_pending_requests") == 0
    assert of(found, "db_client_connection_timeouts_total") == 1
    assert of(found, "poollife_processes") == 1
    counters: dict[str, int] = {**stats, "replaced": sum(stats["replaced"].values())}  # type: ignore[dict-item]
    for key in ("checkouts", "opened", "closed", "connect_errors", "resets", "replaced"):
        assert of(found, f"poollife_{key}_total") == counters[key], key


@pytest.mark.parametrize("name", ["wait_time", "create_time", "use_time"])
def test_histograms_have_the_durations_of_the_pool(alias: str, name: str) -> None:
    for _ in range(3):
        connections[alias].ensure_connection()
        connections[alias].close()
    found, stats = scrape(alias), pool_stats()[alias][name]  # type: ignore[literal-required]
    metric = f"db_client_connection_{name}_seconds"
    bounds = [*map(str, stats["bounds"]), "+Inf"]
    buckets = [of(found, f"{metric}_bucket", le=bound) for bound in bounds]
    assert buckets == list(accumulate(stats["counts"]))
    assert of(found, f"{metric}_count") == stats["count"] == (1 if name == "create_time" else 3)
    assert of(found, f"{metric}_sum") == pytest.approx(stats["sum"])


def test_uses_that_are_not_observed_have_no_metric(make_alias: MakeAlias) -> None:
    alias = make_alias()
    connections[alias].ensure_connection()
    connections[alias].close()
    found = {name for name, _ in scrape(alias)}
    assert "db_client_connection_wait_time_seconds_count" in found
    assert [name for name in found if "use_time" in name] == []


def test_alias_without_a_limit_has_no_metric_of_it(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL=False)
    connections[alias].ensure_connection()
    found = scrape(alias)
    assert of(found, "db_client_connection_limit") is None
    assert count(found, "used") == 1


def test_labels_name_no_process(alias: str) -> None:
    connections[alias].ensure_connection()
    labels = {
        label for family in PoolCollector().collect() for each in family.samples for label in each.labels
    }
    assert labels == {POOL_NAME, STATE, "le"}


@pytest.mark.parametrize("generate", [generate_latest, generate_openmetrics], ids=["text", "openmetrics"])
def test_every_format_has_the_metrics(alias: str, generate: Callable[[CollectorRegistry], bytes]) -> None:
    connections[alias].ensure_connection()
    registry = CollectorRegistry()
    register(registry)
    lines = [line for line in generate(registry).decode().splitlines() if f'"{alias}"' in line]
    assert {line.partition("{")[0] for line in lines} >= {
        "db_client_connection_count",
        "poollife_checkouts_total",
    }
    assert len(lines) == len(scrape(alias))


def test_registry_takes_the_collector_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry(auto_describe=True)
    with override_settings(POOLLIFE_RUN_DIR=""):
        collector = register(registry)
        with pytest.raises(ValueError, match="db_client_connection_count"):
            register(registry)
        registry.unregister(collector)
        register(registry)
    # The board is not read for that.
    assert caplog.text == ""


def test_scrape_without_a_board_has_no_samples_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    collector = PoolCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    for folder, reason in (("", "POOLLIFE_RUN_DIR is empty"), (str(tmp_path), "has had a pool on this host")):
        caplog.clear()
        with override_settings(POOLLIFE_RUN_DIR=folder), caplog.at_level(logging.WARNING, "poollife"):
            assert [generate_latest(registry) for _ in range(2)] == [b"", b""]
        (record,) = caplog.records
        assert reason in record.getMessage()


def test_scrape_of_a_damaged_board_is_logged_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / f"1-{'0' * 16}-1.board").write_bytes(b"no board")
    collector = PoolCollector(tmp_path)
    with caplog.at_level(logging.WARNING, "poollife"):
        assert [len(list(collector.collect())) for _ in range(2)] == [len(list(collector.describe()))] * 2
    (record,) = caplog.records
    assert "-1.board" in record.getMessage()


# --- real workers ---------------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLLIFE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def scrape_site(port: int) -> list[Metric]:
    status, body = fetch(port, "/metrics")
    assert status == 200, body
    return list(text_string_to_metric_families(body.decode()))


def falls(scrapes: list[list[Metric]]) -> list[str]:
    """Return what fell, of those of poollife's samples that never do by their type."""
    highest: dict[tuple[str, str], float] = {}
    fallen = []
    for families in scrapes:
        for family in families:
            ours = [sample for sample in family.samples if POOL_NAME in sample.labels]
            for sample in ours if family.type in {"counter", "histogram"} else ():
                key = sample.name, str(sorted(sample.labels.items()))
                if sample.value < highest.get(key, 0):
                    fallen.append(f"{key}: {highest[key]} to {sample.value}")
                highest[key] = sample.value
    return fallen


@pytest.mark.slow
@pytest.mark.servers
def test_any_worker_answers_for_all_and_counters_never_fall(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    tmp_path: Path,
    run_dir: Path,
) -> None:
    """A scrape is a request as others: any worker answers it, and after six requests the worker ends."""
    pool = {"stats": True}
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql", "POOL": pool}
    with gunicorn(tmp_path, database, *OPTIONS) as port:
        begun = numbers(scrape_site(port), "default")
        scrapes, workers = [scrape_site(port)], set()
        with ThreadPoolExecutor(CLIENTS) as crowd:
            answers = [crowd.submit(get, port, f"/echo/{number}/") for number in range(REQUESTS)]
            while not all(answer.done() for answer in answers):
                scrapes.append(scrape_site(port))
            workers = {answer.result()["pid"] for answer in answers}
        scrapes.append(scrape_site(port))
        assert falls(scrapes) == []
        assert len(workers) > 2
        found = numbers(scrapes[-1], "default")
        for metric in ("poollife_checkouts_total", "db_client_connection_wait_time_seconds_count"):
            assert (of(found, metric) or 0) - (of(begun, metric) or 0) == REQUESTS, metric
        # The master keeps one for itself.
        assert count(found, "used") == 1
        assert of(found, "db_client_connection_use_time_seconds_count") == REQUESTS
    assert (tmp_path / "log").read_text().count("Metrics") == 0
    assert falls([*scrapes, list(PoolCollector(next(run_dir.iterdir())).collect())]) == []


@pytest.mark.slow
@pytest.mark.servers
def test_metrics_stand_beside_those_of_multiprocess_mode(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    tmp_path: Path,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No scrape while workers begin: prometheus_client can't read a file that one of them is making."""
    (tmp_path / "multiprocess").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "multiprocess"))
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    with gunicorn(tmp_path, database, *OPTIONS) as port:
        begun = of(numbers(scrape_site(port), "default"), "poollife_checkouts_total") or 0
        workers = {get(port, f"/echo/{number}/")["pid"] for number in range(20)}
        assert len(workers) > 2
        scraped = scrape_site(port)
    assert of(numbers(scraped, "default"), "poollife_checkouts_total") == begun + 20
    samples = {sample.name: sample.value for family in scraped for sample in family.samples}
    assert samples["site_pages_total"] == 20
