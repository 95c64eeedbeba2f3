"""What many projects do with pytest-django's own fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A row for the whole session."""
    # Not above: whoever only looks for tests in this folder has other settings.
    from tests.support.ecosystem_site.desk.models import Customer

    with django_db_blocker.unblock():
        Customer.objects.get_or_create(name="of the session")
    yield
    with django_db_blocker.unblock():
        Customer.objects.filter(name="of the session").delete()
