"""Fixtures for the tests of invariant 2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.works import Runner


@pytest.fixture
def work(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """A function that runs a body in work of one kind; ``tests.support.works.each_of`` chooses the kinds."""
    with request.param() as runner:
        yield runner
