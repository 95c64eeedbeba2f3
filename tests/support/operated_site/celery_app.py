"""Its Celery application, with the tasks."""

from __future__ import annotations

from celery import Celery
from django.conf import settings

from tests.support.operated_site import works

app = Celery("tests.support.operated_site.celery_app")
app.conf.broker_url = app.conf.result_backend = settings.SITE["redis"]
for work in (works.echo, works.hold, works.pay):
    app.task(work, name=work.__name__)
