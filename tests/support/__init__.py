"""Shared code of the tests: helpers, stubs, sites for real servers, and programs that tests run."""

from __future__ import annotations

from pathlib import Path

#: The folder of the project.
ROOT = Path(__file__).resolve().parent.parent.parent
