"""A fixture for users' own tests; ``pytest_plugins = ["poollife.pytest"]`` in ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poollife import testing


@pytest.fixture
def gives_back() -> Iterator[None]:
    """Fail a test that leaves a connection out: see ``poollife.testing.GivesBackMixin``."""
    with testing.gives_back():
        yield
