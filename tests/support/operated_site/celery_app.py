"""Its Celery application, with the tasks."""

from __future__ import annotations

from celery import Celery

from tests.support.operated_site import works
from tests.support.operated_site.settings import SITE

app = Celery("tests.support.operated_site.celery_app")
app.conf.broker_url = app.conf.result_backend = SITE["redis"]
for work in (works.echo, works.hold, works.pay):
    app.task(work, name=work.__name__)
