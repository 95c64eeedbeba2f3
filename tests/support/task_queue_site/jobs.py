"""What its jobs do, whoever runs them."""

from __future__ import annotations

import time

from django.db import transaction

from tests.support.celery_site.notes import note
from tests.support.programs.databases import ask, session


def job(number: int) -> int:
    """Each third one fails in the middle of a transaction."""
    with transaction.atomic():
        note("job", session=session(), right=ask("SELECT %s", number) == number)
        if number % 3 == 0:
            raise ValueError("as the test wants it")
    return number


def endless() -> None:
    """Until a time limit strikes."""
    with transaction.atomic():
        note("job", session=session(), right=True)
        time.sleep(600)
