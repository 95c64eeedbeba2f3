"""A fixture for the tests of a project: ``pytest_plugins = ["poollife.pytest"]`` in its ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poollife import testing


@pytest.fixture
def gives_back() -> Iterator[None]:
    """Fail a test that does not return a session that it borrowed.

    Sessions in ``django.db.connections`` of the test's own thread do not count, as in
    ``poollife.testing.GivesBackMixin``.
    """
    with testing.gives_back():
        yield
