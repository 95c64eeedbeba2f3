"""Shared code of the tests: helpers, stubs, sites for real servers, and programs that tests run."""

from __future__ import annotations

from pathlib import Path

#: The folder of the project.
ROOT = Path(__file__).resolve().parent.parent.parent
#: A program that runs pytest without a module: its arguments are the module, and pytest's.
PYTEST_WITHOUT = (
    "import sys; sys.modules[sys.argv[1]] = None; import pytest; sys.exit(pytest.main(sys.argv[2:]))"
)
