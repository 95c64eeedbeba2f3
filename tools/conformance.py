"""Run Django's own test suite with Django's backend and with poollife's, and report the difference.

It runs with MySQL and PostgreSQL, on private servers, and with SQLite, in files: a database in memory is not
pooled.

The suite is that of the installed Django: pip downloads its source distribution into .cache. The outcomes of
a run with Django's backend are kept there, too, if nothing failed: they are the same until another version of
a package or of the server is installed.

The exit status is 0 if no test failed with poollife's backend only, and all tests that ran with Django's ran
with poollife's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

import django

from servers import MariaDB, PostgreSQL
from tools.conformance_databases import DATABASES, Databases

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "conformance"
MIDDLEWARE = ("poollife.middleware.PoolMiddleware",)

#: The parts of the suite that open, share, close, fork or break connections.
LIFE_CYCLE = (
    *("backends", "db_utils", "dbshell", "introspection", "multiple_database"),
    *("transactions", "transaction_hooks", "select_for_update", "get_or_create", "basic"),
    *("handlers", "middleware", "wsgi", "asgi", "async", "servers"),
    *("test_runner", "test_utils", "test_client"),
    *("sessions_tests", "migrate_signals", "contenttypes_tests", "migrations.test_multidb"),
    "cache.tests.CreateCacheTableForDBCacheTests",
)

#: Tests that poollife fails by design. The value: the reason, and the page of docs/ that describes it.
KNOWN: dict[str, str] = {
    f"backends.postgresql.tests.Tests.{test}": "tests Django's own pool (docs/postgresql.md)"
    for test in (
        "test_connect_pool",
        "test_connect_pool_set_to_true",
        "test_connect_pool_with_timezone",
        "test_connect_pool_setting_ignored_for_psycopg2",
        "test_cannot_open_new_connection_in_atomic_block",
        "test_pooling_health_checks",
        "test_pooling_not_support_persistent_connections",
    )
} | {
    "backends.postgresql.tests.Tests.test_bypass_timezone_configuration": (
        "the time zone is a part of the login, so RESET TIMEZONE leads to Django's (docs/postgresql.md)"
    )
}

#: Tests that fail by design with ``POOL["lazy_begin"]``, which changes what is sent. The value: the reason.
KNOWN_WITH_LAZY_BEGIN = {
    "backends.postgresql.tests.Tests.test_connect_server_side_binding": (
        "refused with lazy_begin (docs/settings.md)"
    ),
}
#: The kinds of databases whose transactions begin by a statement.
LAZY_KINDS = ("mysql", "postgresql")
#: Runs a script without a module: its arguments are the module, and the script with its own.
WITHOUT = (
    "import runpy, sys; sys.modules[sys.argv[1]] = None; del sys.argv[:2]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

#: The longest time of a run, in seconds: after the death of a test worker Django's runner waits for ever.
PATIENCE = 1200.0
PATIENCE_FOR_ALL = 6 * 3600.0


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one run of the suite, as ids of tests."""

    seconds: float
    finished: bool
    failed: frozenset[str]
    ran: frozenset[str]
    #: The tests that were skipped, with the reasons.
    skipped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, seconds: float, finished: bool) -> Outcomes:
        """Read the file of ``RecordingResult``. A test can fail several times: in its subtests."""
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        failed = frozenset(test for outcome, test, _ in lines if outcome == "failed")
        passed = frozenset(test for outcome, test, _ in lines if outcome == "passed")
        skipped = {test: reason for outcome, test, reason in lines if outcome == "skipped"}
        return cls(seconds, finished, failed, failed | passed, skipped)

    def keep(self, file: Path) -> None:
        """Write those of a run in which nothing failed."""
        file.parent.mkdir(parents=True, exist_ok=True)
        # In one step: another process may read it.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:
            json.dump({"seconds": self.seconds, "ran": sorted(self.ran)}, new)
        Path(new.name).replace(file)

    @classmethod
    def load(cls, file: Path) -> Outcomes:
        """Read what ``keep()`` wrote."""
        kept = json.loads(file.read_text())
        return cls(kept["seconds"], True, frozenset(), frozenset(kept["ran"]))


@dataclass(frozen=True)
class Difference:
    """The difference between the outcomes with Django's backend and with poollife's."""

    #: The kind of databases: a key of DATABASES.
    kind: str
    parallel: int
    stock: Outcomes
    pooled: Outcomes
    #: The tests that may fail with poollife's backend, and why.
    reasons: Mapping[str, str] = field(default_factory=lambda: KNOWN)

    @property
    def new_failures(self) -> list[str]:
        """The tests that failed with poollife's backend only, without the known differences."""
        return sorted(self.pooled.failed - self.stock.failed - self.reasons.keys())

    @property
    def known(self) -> list[str]:
        return sorted((self.pooled.failed - self.stock.failed) & self.reasons.keys())

    @property
    def never_ran(self) -> list[str]:
        """The tests that ran with Django's backend only, and why they were skipped, if they were."""
        return [
            f"{test} (skipped: {reason})" if (reason := self.pooled.skipped.get(test)) else test
            for test in sorted(self.stock.ran - self.pooled.ran)
        ]

    @property
    def ran_more(self) -> list[str]:
        return sorted(self.pooled.ran - self.stock.ran)

    @property
    def fine(self) -> bool:
        finished = self.stock.finished and self.pooled.finished
        return finished and bool(self.stock.ran) and not self.new_failures and not self.never_ran


class Suite:
    """Django's tests, and the runs of them."""

    def __init__(
        self,
        tests: Path,
        labels: Sequence[str],
        patience: float,
        *,
        anew: bool = False,
        pool: dict[str, Any] | None = None,
        without: str | None = None,
    ) -> None:
        """Take the tests.

        :param anew: run it with Django's backend, whatever an earlier run came to.
        :param pool: poollife's options.
        :param without: a module that can't be imported, with either backend.
        """
        self.anew = anew
        self.pool = {"POOL": pool} if pool else {}
        self.reasons = {**KNOWN, **(KNOWN_WITH_LAZY_BEGIN if pool and pool.get("lazy_begin") else {})}
        self.without = without
        self.tests = tests
        self.labels = labels
        self.patience = patience
        # A folder for each run: a run that was stopped may go on writing for a while.
        self.files = CACHE / "runs" / f"django-{django.__version__}-{os.getpid()}"

    def compare(self, kind: str, databases: Databases, engine: str, parallel: int) -> Difference:
        """Run the suite with both backends at the same time: it sleeps for a good part of its time.

        :param engine: the ENGINE to compare with Django's.
        """
        name = f"{kind}_{parallel}".replace("-", "_")
        with ThreadPoolExecutor() as executor:
            stock = executor.submit(self.run_stock, databases, parallel, f"stock_{name}")
            pooled = executor.submit(
                self.run, databases, engine, parallel, f"pooled_{name}", MIDDLEWARE, self.pool
            )
        return Difference(kind, parallel, stock.result(), pooled.result(), self.reasons)

    def run_stock(self, databases: Databases, parallel: int, name: str) -> Outcomes:
        """Return what an earlier run with Django's backend came to, or run it, and keep it for later."""
        kept = CACHE / "stock" / f"{name}-{self._key(databases)}.json"
        if kept.exists() and not self.anew:
            print(f"{databases.stock}, --parallel {parallel}: kept from an earlier run", flush=True)
            return Outcomes.load(kept)
        outcomes = self.run(databases, databases.stock, parallel, name)
        if outcomes.finished and outcomes.ran and not outcomes.failed:
            outcomes.keep(kept)
        return outcomes

    def _key(self, databases: Databases) -> str:
        """Return a name for all that a run with Django's backend depends on."""
        packages = sorted(
            f"{each.name} {each.version}" for each in distributions() if each.name != "poollife"
        )
        servers = [server for server in (MariaDB.find(), PostgreSQL.find()) if server]
        versions = [
            subprocess.run([server, "--version"], capture_output=True, text=True).stdout for server in servers
        ]
        everything = [sys.version, packages, versions, list(self.labels), databases.skipped, self.without]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]

    def run(
        self,
        databases: Databases,
        engine: str,
        parallel: int,
        name: str,
        middleware: Sequence[str] = (),
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> Outcomes:
        """Run the suite once, and write its output to a file of that name.

        :param more: more keys of the entries in ``DATABASES``.
        """
        self.files.mkdir(parents=True, exist_ok=True)
        outcomes = self.files / f"{name}.jsonl"
        outcomes.write_text("")
        entries = {
            alias: {"ENGINE": engine, **databases.settings(database), **more}
            for alias, database in (("default", name), ("other", f"{name}_other"))
        }
        environment = {
            **os.environ,
            "CONFORMANCE_DATABASES": json.dumps(entries),
            "CONFORMANCE_MIDDLEWARE": json.dumps(middleware),
            "CONFORMANCE_OUTCOMES": str(outcomes),
            "CONFORMANCE_SKIPPED": json.dumps(databases.skipped),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, *(["-c", WITHOUT, self.without] if self.without else [])]
        command += ["runtests.py", "--settings=tools.conformance_settings", "--noinput"]
        command += [f"--parallel={parallel}", *self.labels]
        print(f"{engine}, --parallel {parallel} ...", flush=True)
        began = monotonic()
        with (self.files / f"{name}.log").open("wb") as log:
            finished = finishes(command, self.patience, cwd=self.tests, env=environment, stdout=log)
        return Outcomes.read(outcomes, monotonic() - began, finished)


def finishes(command: Sequence[str], patience: float, **popen: Any) -> bool:
    """Run a command, and return whether it came to its end, with or without failures."""
    with subprocess.Popen(command, stderr=subprocess.STDOUT, **popen) as process:
        try:
            return process.wait(patience) in (0, 1)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # Django's runner ends its workers
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            return False


def tests_of_django() -> Path:
    """Return the folder of the installed Django's tests, and download it if it is missing."""
    name = f"django-{django.__version__}"
    if not (CACHE / name).is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            download(f"django=={django.__version__}", Path(folder))
            (Path(folder) / name).rename(CACHE / name)
    return CACHE / name / "tests"


def download(requirement: str, folder: Path) -> None:
    """Have pip download a source distribution, and unpack it."""
    print(f"Downloading the source of {requirement} ...", flush=True)
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-binary=django", f"--dest={folder}"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            # An attribute, because extractall() of Python 3.11.3 and older has no argument for the filter.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder)


def report(difference: Difference) -> None:
    """Print one table."""
    print(
        f"\n{difference.kind}, "
        + (f"--parallel {difference.parallel}" if difference.parallel > 1 else "serial")
    )
    print(f"{'':10}{'ran':>8}{'failed':>8}{'seconds':>9}")
    for name, outcomes in (("stock", difference.stock), ("poollife", difference.pooled)):
        end = "" if outcomes.finished else "  did not come to its end"
        print(f"{name:10}{len(outcomes.ran):8}{len(outcomes.failed):8}{outcomes.seconds:9.0f}{end}")
    lists = {
        "new failures": difference.new_failures,
        "ran with stock only": difference.never_ran,
        "ran with poollife only": difference.ran_more,
        "known differences": difference.known,
    }
    for title, tests in lists.items():
        print(f"{title}: {len(tests)}")
        for test in tests:
            print(f"  {test}" + (f" ({reason})" if (reason := difference.reasons.get(test)) else ""))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", nargs="+", default=LIFE_CYCLE, help="what runtests.py calls labels")
    parser.add_argument("--all", action="store_true", help="the whole suite: hours")
    parser.add_argument("--parallel", type=int, action="append", help="only with so many processes")
    parser.add_argument(
        "--database",
        choices=DATABASES,
        action="append",
        help="only with this kind (mysql, postgresql and sqlite)",
    )
    parser.add_argument("--anew", action="store_true", help="take nothing from an earlier run with Django's")
    parser.add_argument("--engine", help="what to compare with Django's (poollife's)")
    parser.add_argument("--pool", type=json.loads, help='POOL, as JSON: \'{"reset": "always"}\'')
    parser.add_argument(
        "--lazy-begin", action="store_true", help="with POOL['lazy_begin'], on MySQL and PostgreSQL"
    )
    parser.add_argument(
        "--without", metavar="MODULE", help="hide a module: without psycopg, Django takes psycopg2"
    )
    given = parser.parse_args()
    if given.lazy_begin:
        given.pool = {**(given.pool or {}), "lazy_begin": True}
        given.database = given.database or LAZY_KINDS
    return given


def main() -> int:
    """Compare the backends, and print the differences."""
    given = arguments()
    labels, patience = ([], PATIENCE_FOR_ALL) if given.all else (given.labels, PATIENCE)
    tests = tests_of_django()
    print(f"Django {django.__version__}, its suite: {' '.join(labels) or 'all'}")
    suite = Suite(tests, labels, patience, anew=given.anew, pool=given.pool, without=given.without)
    differences = []
    for kind in given.database or ("mysql", "postgresql", "sqlite"):
        with DATABASES[kind].running() as databases:
            for test, reason in databases.skipped.items():
                print(f"Not run with {kind}: {test} ({reason})")
            differences += [
                suite.compare(kind, databases, given.engine or databases.pooled, parallel)
                for parallel in given.parallel or (1, 2)
            ]
    for difference in differences:
        report(difference)
    print(f"\nWhat the runs printed is in {suite.files.relative_to(ROOT)}.")
    return 0 if all(difference.fine for difference in differences) else 1


if __name__ == "__main__":
    sys.exit(main())
