"""A worker for RQ that forks for each job, as in docs/tasks.md. Its parent queries when it is imported."""

from __future__ import annotations

from typing import Any

import django

django.setup()

from rq import Worker  # noqa: E402  # Django first

from poollife import close_pool  # noqa: E402
from tests.support.celery_site.notes import note  # noqa: E402
from tests.support.programs import sockets  # noqa: E402
from tests.support.programs.databases import session  # noqa: E402

parents = session()
parents_sockets = list(sockets.held().values())


class ForkingWorker(Worker):
    def perform_job(self, *arguments: Any) -> bool:
        note("inherited", sockets=[where for where in sockets.held().values() if where in parents_sockets])
        try:
            return super().perform_job(*arguments)
        finally:
            close_pool()

    def teardown(self) -> None:
        note("parent", same=session() == parents)
        super().teardown()
