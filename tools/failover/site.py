"""The site of the lab: one view, which reads, writes a row, or writes two in a transaction."""

from __future__ import annotations

import time

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tools.failover.load import HOLD


def answer(request: HttpRequest, kind: str, marker: str) -> HttpResponse:
    """Answer a request.

    :param kind: "read", "hold", "write" or "atomic".
    :param marker: the text in the rows that it writes.
    """
    if kind == "read":
        return HttpResponse(str(read()))
    if kind == "hold":  # so that each of the threads needs a session of its own
        port = read()
        time.sleep(HOLD)
        return HttpResponse(str(port))
    if kind == "atomic":
        with transaction.atomic():
            insert(marker)
            insert(marker)
    else:
        insert(marker)
    return HttpResponse("0")


def read() -> int:
    """Read a table, and return the port of the server that has answered."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM few")
        cursor.fetchall()
        cursor.execute("SELECT @@port" if connection.vendor == "mysql" else "SHOW port")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def insert(marker: str) -> None:
    """Write a row."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO written (marker) VALUES (%s)", [marker])


urlpatterns = [path("<kind>/<marker>", answer)]
