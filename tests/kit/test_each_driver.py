"""The kit names no driver, and runs with each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.backends import BACKENDS, POSTGRESQL
from tests.support import ROOT

#: Names that no test of the kit may have in it.
DRIVERS = re.compile(r"mysqlclient|pymysql|psycopg|sqlite|MySQLdb|mariadb|postgres", re.IGNORECASE)
#: Runs pytest without a module.
WITHOUT = "import sys; sys.modules[sys.argv[1]] = None; import pytest; sys.exit(pytest.main(sys.argv[2:]))"


@pytest.mark.parametrize("module", ["test_isolation", "test_pool", "test_forks", "forks"])
def test_module_of_the_kit_names_no_driver(module: str) -> None:
    text = Path(__file__).with_name(f"{module}.py").read_text()
    assert [line for line in text.splitlines() if DRIVERS.search(line)] == []


def test_drivers_of_this_process() -> None:
    assert [backend.name for backend in BACKENDS] == ["mysqlclient", "PyMySQL", POSTGRESQL, "sqlite3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "missing", "environment"),
    [
        pytest.param("psycopg2", "psycopg", {}, id="psycopg2"),
        # In Python, on the C library by ctypes; a test in this process has the compiled one.
        pytest.param("psycopg", "psycopg2", {"PSYCOPG_IMPL": "python"}, id="psycopg in Python"),
    ],
)
def test_drivers_that_need_a_process_of_their_own(
    name: str, missing: str, environment: dict[str, str]
) -> None:
    """Django chooses a driver when it is loaded, and psycopg its implementation when it is imported."""
    arguments = ["-q", "-p", "no:cacheprovider", "tests/kit/test_isolation.py", "tests/kit/test_pool.py"]
    if name != "psycopg":  # forks of psycopg's are tested in this process's implementation
        arguments.append("tests/kit/test_forks.py")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, "POOLLIFE_KIT": name},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert re.search(r"\b[3-9]\d passed", done.stdout), done.stdout[-400:]
