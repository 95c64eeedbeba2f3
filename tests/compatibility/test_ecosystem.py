"""What people build around a Django site: test frameworks, composed ENGINEs, tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dj_database_url
import environ
import pytest
from django.core.checks import run_checks
from django.db import OperationalError, ProgrammingError, connections

from servers import MariaDB, PostgreSQL
from tests.conftest import MakeAlias, NewDatabase
from tests.support import ROOT, needs
from tests.support.counting import Content, Questions, content, pool_of
from tests.support.pages import page
from tests.support.programs import running
from tests.support.programs.databases import ask
from tests.support.web_server import eventually

pytestmark = pytest.mark.slow

STOCK, POOLED = "django.db.backends.mysql", "poollife.backends.mysql"
USER = "ecosystem"
#: Seconds for a whole program.
LIMIT = 120


# --- a site, and its database -----------------------------------------------------------------------------


@dataclass
class Site:
    """The project in tests/support/ecosystem_site, with a database that has two tickets."""

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
                "DJANGO_SETTINGS_MODULE": "tests.support.ecosystem_site.settings",
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

    def content(self) -> Content:
        return content(self.server, self.name)

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
    eventually("the site's sessions end", lambda: site.server.sessions(USER) == [])


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
        if "--parallel" in options:
            needs.client_programs()
        outcomes = tmp_path / "outcomes"
        outcomes.write_text("")
        before = site.server.status("Connections")
        done = site.run(
            *("-W", "error", "-W", "ignore:This process:DeprecationWarning"),
            *("-m", "django", "test", "tests.support.ecosystem_site.desk.tests", "--noinput", *options),
            settings={
                "DATABASES": {"default": site.entry(engine)},
                "LOOK_EARLY": True,
                "TEST_RUNNER": "tools.conformance_runner.RecordingRunner",
            },
            env={"CONFORMANCE_OUTCOMES": str(outcomes), "CONFORMANCE_MIDDLEWARE": "[]"},
        )
        sessions = site.server.status("Connections") - before
        found = [json.loads(line) for line in outcomes.read_text().splitlines()]
        # One of those found is a class that never began.
        assert f"Ran {len(found) - 1} tests in" in done.stdout, done.stdout
        assert "Exception ignored" not in done.stdout, done.stdout
        return Run({test: outcome for outcome, test, _ in found}, sessions)

    return test


@pytest.fixture
def pytest_tests(site: Site, tmp_path: Path, untouched: None) -> Test:
    """A function that runs the same and more with pytest-django."""

    def test(engine: str, *options: str) -> Run:
        report = tmp_path / "report.xml"
        report.unlink(missing_ok=True)
        folder = "tests/support/ecosystem_site"
        before = site.server.status("Connections")
        done = site.run(
            *("-m", "pytest", "-p", "pytest_django.plugin", "-p", "xdist.plugin"),
            *("-c", f"{folder}/pytest.ini", f"--junitxml={report}", *options),
            *(f"{folder}/desk/tests.py", f"{folder}/desk/pytests.py"),
            settings={"DATABASES": {"default": site.entry(engine)}, "LOOK_EARLY": True},
            # Loading every plugin that is installed takes each process more than a second.
            env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
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
    """Run the tests as stock once, then pooled: every outcome is the same, with fewer sessions."""
    stock = test(STOCK, *runs[0])
    drop_test_databases(site)
    pooled = [test(POOLED, *options) for options in runs]
    kept = {"--keepdb", "--reuse-db"}.intersection(*runs)
    assert bool(site.test_databases()) == bool(kept)
    drop_test_databases(site)
    for run in pooled:
        assert run.outcomes == stock.outcomes
        assert run.sessions < stock.sessions
    return pooled


def drop_test_databases(site: Site) -> None:
    for name in site.test_databases():
        site.server.execute(f"DROP DATABASE `{name}`")


def name_of_runs(runs: list[tuple[str, ...]]) -> str:
    return " ".join(runs[0]) or "serial"


@pytest.mark.parametrize(
    "runs",
    [[()], [("--reverse",)], [("--parallel", "2")], [("--keepdb",), ("--keepdb",)]],
    ids=name_of_runs,
)
def test_djangos_test_cases(django_tests: Test, site: Site, runs: list[tuple[str, ...]]) -> None:
    for run in compare(site, django_tests, runs):
        assert len(run.outcomes) == 40
        # The class that never began counts for the module.
        assert run.failed == {"Failing", "FailingLater", "tests"}


@pytest.mark.parametrize(
    "runs", [[()], [("-n", "2", "--reuse-db"), ("-n", "2", "--reuse-db")]], ids=name_of_runs
)
def test_pytest_django(pytest_tests: Test, site: Site, runs: list[tuple[str, ...]]) -> None:
    for run in compare(site, pytest_tests, runs):
        assert len(run.outcomes) == 58
        assert run.failed == {"Failing", "FailingLater", "FailingSetUp", "pytests"}


# --- composed ENGINEs -------------------------------------------------------------------------------------

#: On newer Pythons there is Django 6.1, which it does not allow, so it is not among what tests need there.
prometheus = pytest.mark.skipif(
    sys.version_info >= (3, 12) and not find_spec("django_prometheus"),
    reason="django-prometheus wants Django before 6.1",
)


def metric(name: str, alias: str, **labels: str) -> float:
    """What Prometheus would read."""
    from prometheus_client import REGISTRY

    vendor = connections[alias].vendor
    return REGISTRY.get_sample_value(name, {"alias": alias, "vendor": vendor, **labels}) or 0


@prometheus
def test_django_prometheus_counts(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """Each query, and a connection where one was really made; a warm checkout sends nothing of its own."""
    alias = make_alias("tests.support.engines.prometheus")
    ask("SELECT 1", using=alias)
    connections[alias].close()
    before = metric("django_db_execute_total", alias)
    with Questions(mariadb) as asked:
        for _ in range(10):
            ask("SELECT 1", using=alias)
            connections[alias].close()
    assert asked.count == 10
    assert metric("django_db_execute_total", alias) - before == 10
    assert metric("django_db_new_connections_total", alias) == 1
    assert (pool_of(alias).opened, pool_of(alias).checkouts) == (1, 11)


@prometheus
def test_django_prometheus_counts_errors(make_alias: MakeAlias) -> None:
    """Those of queries, and of connections that could not be made."""
    alias = make_alias("tests.support.engines.prometheus")
    with pytest.raises(ProgrammingError):
        ask("SELECT nothing FROM nowhere", using=alias)
    assert metric("django_db_errors_total", alias, type="ProgrammingError") == 1
    wrong = make_alias("tests.support.engines.prometheus", PASSWORD="wrong")
    with pytest.raises(OperationalError, match="Access denied"):
        ask("SELECT 1", using=wrong)
    assert metric("django_db_new_connection_errors_total", wrong) == 1
    assert (pool_of(alias).out, pool_of(wrong).out) == (1, 0)


@prometheus
def test_django_prometheus_counts_on_postgresql(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias("tests.support.engines.prometheus_postgresql", server=postgresql)
    for _ in range(10):
        ask("SELECT 1", using=alias)
        connections[alias].close()
    assert metric("django_db_execute_total", alias) == 10
    assert metric("django_db_new_connections_total", alias) == 1
    assert (pool_of(alias).opened, pool_of(alias).checkouts) == (1, 10)


@pytest.mark.parametrize("limits_set_calls", [False, True])
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("each_tenant_has_its_schema", {"found": [["one", "one"], ["two", "two"]], "opened": 1}),
        ("the_next_borrower_has_the_path_of_the_login", {"path": '"$user", public'}),
        ("a_tenant_keeps_its_schema_between_two_works", {"found": ["two"] * 3}),
    ],
)
def test_django_tenants(
    postgresql: PostgreSQL,
    new_database: NewDatabase,
    case: str,
    expected: dict[str, Any],
    limits_set_calls: bool,
) -> None:
    """The search_path of a tenant stays with its borrower, and each borrower has its own."""
    needs.django_tenants()
    entry = {
        **postgresql.database(new_database(postgresql)),
        "ENGINE": "tests.support.engines.schemas",
        "POOL": {"pool_size": 1, "max_overflow": 0},
    }
    assert running.run("schemas", case, entry, limits_set_calls) == expected


# --- settings from URLs and from the environment ------------------------------------------------------------


@pytest.fixture
def url(mariadb: MariaDB, new_database: Callable[[], str]) -> str:
    """A new database's."""
    return f"mysql://{mariadb.user}:{mariadb.password}@{mariadb.host}:{mariadb.port}/{new_database()}"


def read_by_dj_database_url(url: str) -> dict[str, Any]:
    return {**dj_database_url.parse(url, engine=POOLED)}


def read_by_django_environ(url: str) -> dict[str, Any]:
    return {**environ.Env.db_url_config(url, engine=POOLED)}


readers = pytest.mark.parametrize("read", [read_by_dj_database_url, read_by_django_environ])


def add(make_alias: MakeAlias, entry: dict[str, Any], **more: Any) -> str:
    """An alias of these settings."""
    return make_alias(entry["ENGINE"], **{key: entry[key] for key in entry if key != "ENGINE"}, **more)


@readers
def test_a_url(make_alias: MakeAlias, url: str, read: Callable[[str], dict[str, Any]]) -> None:
    """OPTIONS come from there too; POOL is merged in."""
    entry = read(f"{url}?charset=utf8mb4&connect_timeout=7")
    assert entry["OPTIONS"] == {"charset": "utf8mb4", "connect_timeout": 7}
    alias = add(make_alias, entry, POOL={"pool_size": 2, "max_overflow": 0})
    for _ in range(2):
        assert ask("SELECT DATABASE()", using=alias) == url.rpartition("/")[2]
        connections[alias].close()
    assert (pool_of(alias).opened, pool_of(alias).options.limit) == (1, 2)
    assert [issue for issue in run_checks(tags=["poollife"]) if alias in issue.msg] == []


def test_a_scheme_of_ones_own(make_alias: MakeAlias, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dj_database_url, "ENGINE_SCHEMES", dj_database_url.ENGINE_SCHEMES.copy())
    dj_database_url.register("pooled-mysql", POOLED)
    alias = add(make_alias, {**dj_database_url.parse(f"pooled-{url}")})
    ask("SELECT 1", using=alias)
    assert pool_of(alias).out == 1


@readers
def test_pool_options_in_a_url(
    make_alias: MakeAlias, url: str, read: Callable[[str], dict[str, Any]]
) -> None:
    """They are not the driver's: a system check says where they belong."""
    alias = add(make_alias, read(f"{url}?pool_size=3&max_overflow=0"))
    issues = [issue for issue in run_checks(tags=["poollife"]) if alias in issue.msg]
    assert [issue.id for issue in issues] == ["poollife.E004"]
    assert "'max_overflow', 'pool_size'" in issues[0].msg
    assert issues[0].hint == f"Move it to DATABASES[{alias!r}]['POOL']."
    # A web server runs no checks.
    with pytest.raises(TypeError, match="pool_size"):
        ask("SELECT 1", using=alias)


SHOW_POOL = """
import django, json
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT COUNT(*) FROM desk_ticket")
    print(json.dumps([cursor.fetchone()[0], connection.lease_pool.options.limit]))
"""


@pytest.mark.parametrize("reader", ["dj-database-url", "django-environ"])
def test_all_from_the_environment(site: Site, untouched: None, reader: str) -> None:
    entry = site.entry()
    address = f"{entry['USER']}:{entry['PASSWORD']}@{entry['HOST']}:{entry['PORT']}"
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.support.ecosystem_site.environment",
        "DATABASE_URL": f"mysql://{address}/{entry['NAME']}",
        "READER": reader,
    }
    for pool, limit in [("", 15), ('{"pool_size": 3, "max_overflow": 1}', 4)]:
        given = {**environment, "POOL": pool} if pool else environment
        done = site.run("-W", "error", "-c", SHOW_POOL, env=given)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout) == [2, limit]
    done = site.run("-m", "django", "check", env={**environment, "POOL": '{"pool_size": "3"}'})
    assert done.returncode == 1
    # A system check says so, or (Django asks MySQL for its version while it checks models) the attempt to.
    assert "DATABASES['default']: POOL['pool_size'] is '3'" in done.stdout
    assert "Traceback" not in done.stdout


# --- tools that look at ENGINE ----------------------------------------------------------------------------


def test_dbshell(site: Site, untouched: None) -> None:
    assert site.manage("dbshell", stdin="SELECT title FROM desk_ticket").split() == ["title", "one", "two"]


def documented_settings() -> dict[str, Any]:
    """Those that docs/tools.md tells of."""
    (block,) = [block for block in page("docs/tools.md").blocks if "DJANGO_EXTENSIONS" in block.text]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    return {name: scope[name] for name in scope if name.isupper()}


APPS = ["poollife", "tests.support.ecosystem_site.desk", "django_extensions"]
EXTENSIONS = {**documented_settings(), "INSTALLED_APPS": APPS}


def test_django_extensions(site: Site, untouched: None) -> None:
    """Commands that look their ENGINE up in a list."""
    printed = site.manage("sqldsn", settings=EXTENSIONS)
    assert f'db="{site.name}", user="{USER}"' in printed
    assert f"CREATE DATABASE {site.name}" in site.manage("sqlcreate", settings=EXTENSIONS)
    site.server.create_database(f"test_{site.name}")
    site.manage("drop_test_database", "--noinput", settings=EXTENSIONS)
    assert site.test_databases() == []


def test_django_extensions_without_the_setting(site: Site, untouched: None) -> None:
    """Nothing happens, and they say so."""
    apps = {"INSTALLED_APPS": APPS}
    assert "Unknown database, can't generate DSN" in site.manage("sqldsn", settings=apps)
    for command in (["drop_test_database", "--noinput"], ["reset_db", "--noinput"]):
        done = site.run("-m", "django", *command, settings=apps)
        assert done.returncode == 1
        assert f"CommandError: Unknown database engine {POOLED}" in done.stdout


def test_reset_db(site: Site, untouched: None, new_database: Callable[[], str]) -> None:
    name = new_database()
    site.server.execute(f"CREATE TABLE `{name}`.old (id INT)")
    databases = {"default": site.entry(NAME=name)}
    site.manage("reset_db", "--noinput", settings={**EXTENSIONS, "DATABASES": databases})
    assert site.server.execute(f"SHOW TABLES FROM `{name}`") == []


def test_sqldiff(site: Site, untouched: None) -> None:
    """It takes the last part of ENGINE."""
    assert site.manage("sqldiff", "desk", settings=EXTENSIONS) == "-- No differences\n"


LOOK_WITH_TOOLBAR = """
import django, re
django.setup()
from django.test import Client
from poollife import pool_stats
Client().get("/page")  # opens a session
for _ in range(2):
    page = Client().get("/page").content.decode()
    print(*re.findall(r"([0-9]+ quer(?:y|ies)) in", page))
stats = pool_stats()["default"]
print(stats["checkouts"], stats["opened"], stats["out"])
"""


def test_debug_toolbar(site: Site, untouched: None) -> None:
    """It counts the view's own query, and nothing comes to that on a warm checkout."""
    apps = ["poollife", "tests.support.ecosystem_site.desk", "django.contrib.staticfiles", "debug_toolbar"]
    pool = "poollife.middleware.PoolMiddleware"
    templates = {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
    settings = {
        "DEBUG": True,
        "INSTALLED_APPS": apps,
        "MIDDLEWARE": [pool, "debug_toolbar.middleware.DebugToolbarMiddleware"],
        "TEMPLATES": [templates],
        "ROOT_URLCONF": "tests.support.ecosystem_site.toolbar",
        "INTERNAL_IPS": ["127.0.0.1"],
    }
    done = site.run("-W", "error", "-c", LOOK_WITH_TOOLBAR, settings=settings)
    assert done.stdout.splitlines() == ["1 query", "1 query", "3 1 0"]
