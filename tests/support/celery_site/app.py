"""The Celery application. Who starts it configures it through the environment."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery, signals
from celery.apps.worker import Worker

from tests.support.celery_site.notes import note

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.celery_site.settings")
#: What it does beside the usual.
WITH: list[str] = json.loads(os.environ["CELERY_SITE_WITH"])


class BlockingWorker(Worker):  # type: ignore[misc]  # Celery has no types
    """Has no event loop, as it is with some brokers: threads look after its children."""

    def should_use_eventloop(self) -> bool:
        return False


class BlockingCelery(Celery):  # type: ignore[misc]
    """Makes such workers."""

    @property
    def Worker(self) -> Any:
        return self.subclass_with_self(BlockingWorker)


app = (BlockingCelery if "blocking" in WITH else Celery)(
    "tests.support.celery_site",
    include=["tests.support.celery_site.tasks"],
    loader="tests.support.celery_site.loader:Loader",
)
app.conf.update(json.loads(os.environ["CELERY_SITE_CONF"]))

if "install" in WITH:
    # The app does it, too, where it is installed.
    import poollife.celery

    poollife.celery.install()


def query(**_: object) -> None:
    """As sites do, in receivers of signals."""
    from tests.support.programs.databases import session

    note("receiver", session=session())


for name in WITH:
    if name.startswith("worker_"):
        getattr(signals, name).connect(query)
