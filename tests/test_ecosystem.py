"""What people build around a Django site: test frameworks, composed ENGINEs, tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB

ROOT = Path(__file__).parent.parent
STOCK, POOLED = "django.db.backends.mysql", "poollife.backends.mysql"
USER = "ecosystem"
#: Seconds for a whole program.
LIMIT = 120


def wait_until(condition: Callable[[], object]) -> None:
    """For what a server does a moment after its client has gone."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# --- a site, and its database -----------------------------------------------------------------------------


@dataclass
class Site:
    """The project in tests/ecosystem_site, with a database that has two tickets."""

    server: MariaDB
    name: str

    def entry(self, engine: str = POOLED, **more: Any) -> dict[str, Any]:
        """For ``DATABASES``."""
        return {"ENGINE": engine, **self.server.database(self.name), "USER": USER, **more}

    def run(
        self,
        *command: str,
        settings: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python program with this site's settings."""
        site = {"DATABASES": {"default": self.entry()}, **(settings or {})}
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.ecosystem_site.settings",
                "ECOSYSTEM_SITE": json.dumps(site),
                **(env or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(stdin, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"{command} hung:\n{output}") from None
        return subprocess.CompletedProcess(command, process.returncode, output)

    def manage(self, *arguments: str, **more: Any) -> str:
        """Run a management command, and return what it prints."""
        done = self.run("-W", "error", "-m", "django", *arguments, **more)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def content(self) -> dict[str, Any]:
        """Each table's rows and definition, whose AUTO_INCREMENT tells of rolled back inserts too."""
        return {
            table: (
                sorted(self.server.execute(f"SELECT * FROM `{self.name}`.`{table}`")),
                self.server.execute(f"SHOW CREATE TABLE `{self.name}`.`{table}`")[0][1],
            )
            for (table,) in self.server.execute(f"SHOW TABLES FROM `{self.name}`")
        }

    def test_databases(self) -> list[str]:
        found = self.server.execute("SHOW DATABASES LIKE %s", f"test\\_{self.name}%")
        return sorted(name for (name,) in found)


@pytest.fixture(scope="module")
def site(mariadb: MariaDB) -> Iterator[Site]:
    """A migrated one, for a user that nobody else uses."""
    site = Site(mariadb, "ecosystem")
    for host in ("%", "localhost"):
        mariadb.execute(f"CREATE USER '{USER}'@'{host}' IDENTIFIED BY '{mariadb.password}'")
        mariadb.execute(f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'{host}'")
    mariadb.create_database(site.name)
    site.manage("migrate", "-v", "0")
    yield site
    for name in [site.name, *site.test_databases()]:
        mariadb.execute(f"DROP DATABASE `{name}`")
    for host in ("%", "localhost"):
        mariadb.execute(f"DROP USER '{USER}'@'{host}'")


@pytest.fixture
def untouched(site: Site) -> Iterator[None]:
    """The test leaves the site's own database alone, and no session behind."""
    before = site.content()
    assert len(before["desk_ticket"][0]) == 2
    yield
    assert site.content() == before
    wait_until(lambda: site.server.sessions(USER) == [])


# --- test frameworks --------------------------------------------------------------------------------------


@dataclass
class Run:
    """What became of each test, and how many sessions all that took."""

    outcomes: dict[str, str]
    sessions: int

    @property
    def failed(self) -> set[str]:
        """Where: the class or the module of each."""
        bad = ("failed", "failure", "error")
        return {test.split(".")[-2] for test, outcome in self.outcomes.items() if outcome in bad}


Test = Callable[..., Run]


@pytest.fixture
def django_tests(site: Site, tmp_path: Path, untouched: None) -> Test:
    """A function that runs the site's tests with ``manage.py test``."""

    def test(engine: str, *options: str) -> Run:
        outcomes = tmp_path / "outcomes"
        outcomes.write_text("")
        before = site.server.status("Connections")
        done = site.run(
            *("-W", "error", "-W", "ignore:This process:DeprecationWarning"),
            *("-m", "django", "test", "tests.ecosystem_site.desk.tests", "--noinput", *options),
            settings={
                "DATABASES": {"default": site.entry(engine)},
                "TEST_RUNNER": "tools.conformance_runner.RecordingRunner",
            },
            env={"CONFORMANCE_OUTCOMES": str(outcomes), "CONFORMANCE_MIDDLEWARE": "[]"},
        )
        sessions = site.server.status("Connections") - before
        found = [json.loads(line) for line in outcomes.read_text().splitlines()]
        # One of those found is a class that never began.
        assert f"Ran {len(found) - 1} tests in" in done.stdout, done.stdout
        assert "Exception ignored" not in done.stdout, done.stdout
        return Run({test: outcome for outcome, test in found}, sessions)

    return test


@pytest.fixture
def pytest_tests(site: Site, tmp_path: Path, untouched: None) -> Test:
    """A function that runs the same and more with pytest-django."""

    def test(engine: str, *options: str) -> Run:
        report = tmp_path / "report.xml"
        report.unlink(missing_ok=True)
        folder = "tests/ecosystem_site"
        before = site.server.status("Connections")
        done = site.run(
            *("-m", "pytest", "-c", f"{folder}/pytest.ini", f"--junitxml={report}", *options),
            *(f"{folder}/desk/tests.py", f"{folder}/desk/pytests.py"),
            settings={"DATABASES": {"default": site.entry(engine)}},
        )
        sessions = site.server.status("Connections") - before
        assert report.exists(), done.stdout
        assert "Exception ignored" not in done.stdout, done.stdout
        cases = ElementTree.parse(report).iter("testcase")
        outcomes = {f"{case.get('classname')}.{case.get('name')}": outcome_of(case) for case in cases}
        return Run(outcomes, sessions)

    return test


def outcome_of(case: ElementTree.Element) -> str:
    """What JUnit's format says about a test."""
    return " and ".join(sorted(part.tag for part in case)) or "passed"


def compare(site: Site, test: Test, runs: list[tuple[str, ...]]) -> list[Run]:
    """Run the tests with both engines: every outcome is the same, with fewer sessions."""
    seen = {}
    for engine in (STOCK, POOLED):
        seen[engine] = [test(engine, *options) for options in runs]
        kept = {"--keepdb", "--reuse-db"}.intersection(*runs)
        assert bool(site.test_databases()) == bool(kept)
        for name in site.test_databases():
            site.server.execute(f"DROP DATABASE `{name}`")
    for stock, pooled in zip(*seen.values(), strict=True):
        assert pooled.outcomes == stock.outcomes
        assert pooled.sessions < stock.sessions
    return seen[POOLED]


def name_of_runs(runs: list[tuple[str, ...]]) -> str:
    return " ".join(runs[0]) or "serial"


@pytest.mark.parametrize(
    "runs",
    [[()], [("--reverse",)], [("--parallel", "2")], [("--keepdb",), ("--keepdb",)]],
    ids=name_of_runs,
)
def test_djangos_test_cases(django_tests: Test, site: Site, runs: list[tuple[str, ...]]) -> None:
    for run in compare(site, django_tests, runs):
        assert len(run.outcomes) == 38
        # The class that never began counts for the module.
        assert run.failed == {"Failing", "FailingLater", "tests"}


@pytest.mark.parametrize(
    "runs", [[()], [("-n", "2", "--reuse-db"), ("-n", "2", "--reuse-db")]], ids=name_of_runs
)
def test_pytest_django(pytest_tests: Test, site: Site, runs: list[tuple[str, ...]]) -> None:
    for run in compare(site, pytest_tests, runs):
        assert len(run.outcomes) == 56
        assert run.failed == {"Failing", "FailingLater", "FailingSetUp", "pytests"}
