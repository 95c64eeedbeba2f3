"""Jobs for Django's tasks framework, or for the package that has it for older Djangos."""

from __future__ import annotations

from importlib import import_module

import django

from poollife import pool_stats
from poollife.work import current_work
from tests.support.celery_site.notes import note
from tests.support.programs.databases import session
from tests.support.task_queue_site.jobs import job

FRAMEWORK = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
task = import_module(FRAMEWORK).task


@task
def queued(number: int) -> int:
    """For a worker."""
    note("begun", checkouts=pool_stats()["default"]["checkouts"])
    return job(number)


@task(backend="at once")
def at_once() -> list[object]:
    """Within whatever enqueues it."""
    return [session(), str(current_work.get())]
