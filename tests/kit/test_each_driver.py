"""The kit names no driver, and each of its tests runs with each."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit.backends import BACKENDS, EXAMPLE, JDBC, POSTGRESQL, SERVED, postgresql
from tests.kit.description import Backend
from tests.kit.table import PROPERTY, lines
from tests.support import PYTEST_WITHOUT, ROOT, needs
from tests.support.pages import page

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("test_inv*.py"))
#: Names that no module of the kit may have in it, and ways to leave a driver out.
UNWANTED = re.compile(
    r"mysqlclient|pymysql|psycopg|sqlite|MySQLdb|mariadb|postgres|oracle|jdbc|skip|xfail", re.IGNORECASE
)

#: psycopg_c is built from source.
WHERE_BUILT = pytest.mark.skipif(
    importlib.util.find_spec("psycopg_c") is None, reason="psycopg_c is not built"
)


@pytest.mark.parametrize("module", [*MODULES, "forks", "table", "description"])
def test_module_of_the_kit_names_no_driver_and_leaves_none_out(module: str) -> None:
    text = Path(__file__).with_name(f"{module}.py").read_text()
    assert [line for line in text.splitlines() if UNWANTED.search(line)] == []


def test_kit_has_each_invariant() -> None:
    assert [module[:9] for module in MODULES] == [f"test_inv{number}" for number in range(1, 9)]


def test_drivers_of_this_process() -> None:
    assert [backend.name for backend in SERVED] == ["mysqlclient", "PyMySQL", POSTGRESQL, "oracledb"]
    assert [backend.name for backend in BACKENDS] == [*(backend.name for backend in SERVED), "sqlite3"]


def expected(backend: Backend) -> Counter[tuple[str, ...]]:
    """Return what each test of the kit has to have said, and how often, with a driver that has a server."""
    found: Counter[tuple[str, ...]] = Counter()
    for module in MODULES:
        for name, test in vars(importlib.import_module(f"tests.kit.{module}")).items():
            if name.startswith("test_"):
                label = f"{module.removeprefix('test_')}: {name.removeprefix('test_')}"
                found[label, backend.name, "passed"] = cases(test, backend)
    return found


def cases(test: Callable[..., object], backend: Backend) -> int:
    """Return how many cases a test has with a driver."""
    number = 1
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, values = mark.args
            if names == ("backend", "kind"):
                number *= len(backend.leaves)
            elif names == ("backend", "how"):
                number *= len(backend.half_read)
            elif names != "backend":
                number *= len(values)
    return number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "missing", "environment"),
    [
        pytest.param("psycopg2", "psycopg", {}, id="psycopg2"),
        # In Python, on the C library by ctypes.
        pytest.param("psycopg_python", "psycopg2", {"PSYCOPG_IMPL": "python"}, id="psycopg in Python"),
        pytest.param("psycopg_c", "psycopg2", {"PSYCOPG_IMPL": "c"}, id="psycopg in C", marks=WHERE_BUILT),
    ],
)
def test_each_test_runs_with_a_driver_that_needs_a_process_of_its_own(
    name: str,
    missing: str,
    environment: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Django chooses a driver when it is loaded, and psycopg its implementation when it is imported."""
    more = ["tests/compatibility/test_gis.py", "-k", "not mysql_gis"] if name == "psycopg2" else []
    found = run_kit(name, missing, environment, tmp_path, more)
    record_property(PROPERTY, found)
    assert Counter(map(tuple, found)) == expected(postgresql(name))


@pytest.mark.slow
@pytest.mark.parametrize("backend", JDBC, ids=str)
def test_each_test_runs_with_a_driver_of_java_in_a_process_of_its_own(
    backend: Backend, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A process keeps its JVM, and is of another size with it."""
    found = run_kit(str(backend), "", needs.java(), tmp_path)
    record_property(PROPERTY, found)
    assert Counter(map(tuple, found)) == expected(backend)


@pytest.mark.slow
def test_each_test_runs_with_the_driver_of_the_guide(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """docs/new-backend.md shows a whole driver."""
    (shown,) = (block.text for block in page("docs/new-backend.md").blocks if block.language == "python")
    package = tmp_path / EXAMPLE.engine
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(shown)
    found = run_kit(str(EXAMPLE), "", {"PYTHONPATH": str(tmp_path)}, tmp_path)
    record_property(PROPERTY, found)
    assert Counter(map(tuple, found)) == expected(EXAMPLE)


def run_kit(
    name: str, missing: str, environment: dict[str, str], folder: Path, more: Sequence[str] = ()
) -> list[Any]:
    """Run the kit in a process of its own, and return its outcomes.

    :param name: the driver.
    :param missing: a module that the process does without; empty: none.
    :param more: further arguments of pytest.
    """
    path = folder / "outcomes"
    arguments = ["-q", "-p", "no:cacheprovider", *(f"tests/kit/{module}.py" for module in MODULES)]
    done = subprocess.run(
        [sys.executable, "-c", PYTEST_WITHOUT, missing, *arguments, *more],
        cwd=ROOT,
        env={**os.environ, **environment, "POOLLIFE_KIT": name, "POOLLIFE_KIT_OUTCOMES": str(path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found: list[Any] = json.loads(path.read_text())
    return found


def test_table_says_how_often_each_test_has_passed_with_each_driver() -> None:
    found = [("inv4: a", "one", "passed"), ("inv4: a", "one", "passed"), ("inv4: a", "one", "failed")]
    assert lines([*found, ("inv4: a", "two", "passed"), ("inv5: b", "two", "error")]) == [
        "         one          two",
        "inv4: a  2, 1 failed  1",
        "inv5: b  -            1 error",
    ]
