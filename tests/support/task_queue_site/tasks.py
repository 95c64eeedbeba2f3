"""Jobs for Huey, which looks for them in here; the consumer fills its own queue."""

from __future__ import annotations

from typing import Any

from huey.contrib.djhuey import HUEY, db_task, task

from poollife import auto_close_db
from tests.support.celery_site.notes import held_here, note
from tests.support.programs.databases import session
from tests.support.task_queue_site.jobs import job

JOBS = 12


@db_task()
def theirs(number: int) -> None:
    """Huey's own decorator closes connections that are too old."""
    job(number)


@task()
@auto_close_db
def ours(number: int) -> None:
    job(number)


@HUEY.post_execute()
def over(task: Any, value: Any, error: Any) -> None:
    note("over", held=held_here())


note("parent", session=session())
for number in range(JOBS):
    (ours if number % 2 else theirs)(number)
