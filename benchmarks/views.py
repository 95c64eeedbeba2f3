"""The views that the parts ``cpu`` and ``throughput`` ask for. Import it after ``django.setup()``.

A path begins with the alias of the connection that its view uses.
"""

from __future__ import annotations

import itertools
import sys
import time
from functools import cache
from typing import ClassVar

from django.db import connections, models, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.items import ROWS, TABLE
from benchmarks.process import first_line

#: Seconds for which ``wait()`` waits after its query.
WAIT = 0.1
_numbers = itertools.count()


class Item(models.Model):
    """A row of the table."""

    id = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=40)
    number = models.IntegerField()

    objects: ClassVar[models.Manager[Item]] = models.Manager()

    class Meta:
        app_label = "benchmarks"
        managed = False
        db_table = TABLE

    def __str__(self) -> str:
        return self.name


def next_key() -> int:
    """Return the key of another row than the calls before, for as many calls as there are rows."""
    return next(_numbers) % ROWS + 1


@cache
def long_sql(alias: str) -> str:
    """Return a statement of 1.9 kB, in the form that the ORM sends for a model with many columns."""
    quote = connections[alias].ops.quote_name
    column = f"{quote('item')}.{quote('name')}"
    columns = ", ".join(f"{column} AS {quote(f'name_{number:02}')}" for number in range(66))
    return f"SELECT {columns} FROM {quote('item')} WHERE {quote('item')}.{quote('id')} = %s LIMIT 21"


def answer(text: str, status: int = 200) -> HttpResponse:
    """Return a response with its length, without which gunicorn would send it in chunks."""
    return HttpResponse(text, headers={"Content-Length": str(len(text.encode()))}, status=status)


def orm_get(request: HttpRequest, alias: str) -> HttpResponse:
    """Get one row by the ORM."""
    return answer(Item.objects.using(alias).get(pk=next_key()).name)


def atomic_update(request: HttpRequest, alias: str) -> HttpResponse:
    """Get and update one row in a transaction."""
    key = next_key()
    with transaction.atomic(using=alias):
        item = Item.objects.using(alias).get(pk=key)
        Item.objects.using(alias).filter(pk=key).update(number=models.F("number") + 1)
    return answer(item.name)


def select_1(request: HttpRequest, alias: str) -> HttpResponse:
    """Send ``SELECT 1``."""
    return answer(query(alias))


def long_select(request: HttpRequest, alias: str) -> HttpResponse:
    """Send a statement of 1.9 kB."""
    return answer(query(alias, long_sql(alias), next_key()))


def wait(request: HttpRequest, alias: str) -> HttpResponse:
    """Send one query, then wait as for another service."""
    text = query(alias)
    time.sleep(WAIT)
    return answer(text)


def cpu(request: HttpRequest) -> HttpResponse:
    """Return the seconds of CPU that this process has used."""
    return answer(str(time.process_time()))


def handler500(request: HttpRequest) -> HttpResponse:
    """Answer with the error of a view."""
    error = sys.exception()
    return answer(first_line(error) if error else "no error", 500)


def query(alias: str, sql: str = "SELECT 1", *arguments: int) -> str:
    """Return the first column of the first row."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return str(cursor.fetchall()[0][0])


urlpatterns = [
    path("cpu", cpu),
    *(
        path(f"<str:alias>/{view.__name__}", view)
        for view in (orm_get, atomic_update, select_1, long_select, wait)
    ),
]
