"""A worker for RQ that does all jobs by itself, as in docs/tasks.md, and notes what they leave."""

from __future__ import annotations

from typing import Any

import django

django.setup()

from rq import SimpleWorker  # noqa: E402  # Django first

from poollife import auto_close_db  # noqa: E402
from tests.support.celery_site.notes import held_here, note  # noqa: E402


class StayingWorker(SimpleWorker):
    perform_job = auto_close_db(SimpleWorker.perform_job)

    def execute_job(self, *arguments: Any) -> None:
        super().execute_job(*arguments)
        note("over", held=held_here())
