"""``POOL["lazy_begin"]`` with psycopg2, which Django takes only where psycopg is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import PYTEST_WITHOUT, ROOT

#: What runs there: the tests with a case for psycopg2, and those of its own.
MODULES = [f"tests/transactions/{name}.py" for name in ("test_lazy_begin", "test_packets", "psycopg2_calls")]
PROGRAMS = "tests/transactions/test_random_programs.py"


@pytest.mark.slow
def test_psycopg2_in_a_process_of_its_own() -> None:
    arguments = ["-q", "-p", "no:cacheprovider", "-k", "psycopg2", *MODULES, PROGRAMS]
    done = subprocess.run(
        [sys.executable, "-c", PYTEST_WITHOUT, "psycopg", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    # A selection of nothing would pass as well.
    assert done.stdout.splitlines()[-1].startswith("28 passed"), done.stdout[-300:]
