"""The views of the status page: HTML, JSON, and what the HTML refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Engine

from poollife.status_page import causes
from poollife.status_page.access import guarded
from poollife.status_page.summary import summary

FOLDER = Path(__file__).parent / "assets"
#: Served from here: a site need not have django.contrib.staticfiles.
ASSETS = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}

# An engine of its own: a site's TEMPLATES may have none that looks into packages.
_engine = Engine(dirs=[str(FOLDER)])


class Column(NamedTuple):
    """A column of a table."""

    #: The key in a row of the JSON.
    key: str
    heading: str
    #: "text", "sentence", "number" or "duration".
    kind: str = "text"


class Table(NamedTuple):
    """A table of the page, which the browser fills again with each answer."""

    #: The key in the JSON.
    key: str
    heading: str
    hint: str
    #: The text in place of an empty table; None: the heading is left out, too.
    empty: str | None
    columns: tuple[Column, ...]


HOLDER = (
    Column("alias", "Pool"),
    Column("work", "Work"),
    Column("session", "Session", "number"),
    Column("thread", "Thread"),
    Column("pid", "Process", "number"),
)
TABLES = (
    Table(
        "holders",
        "Borrowed connections",
        "The longest first. The session is the number at the server, which KILL takes.",
        "No connection is borrowed.",
        (Column("held", "Held", "duration"), *HOLDER),
    ),
    Table(
        "processes",
        "Processes",
        "Each process has pools of its own. Counts are of the process since it began.",
        "No process of this site has a pool.",
        (
            Column("pid", "Process", "number"),
            Column("command", "Command"),
            Column("age", "Age", "duration"),
            Column("alias", "Pool"),
            Column("place", "Database"),
            Column("out", "Out", "number"),
            Column("idle", "Idle", "number"),
            Column("limit", "Limit", "number"),
            Column("waiting", "Waiting", "number"),
            Column("max_waiting", "Most waiting", "number"),
            Column("timeouts", "Timed out", "number"),
            Column("connect_errors", "Failed to connect", "number"),
        ),
    ),
    Table(
        "deaths",
        "Processes that died with borrowed connections",
        "Killed, or ended by an error in C code. The server ends their sessions by itself.",
        None,
        (Column("held", "Borrowed, ago", "duration"), *HOLDER, Column("command", "Command")),
    ),
    Table(
        "timeouts",
        "The last time-outs",
        "Checkouts that waited in vain, the latest first, with the likeliest cause as it was then.",
        None,
        (
            Column("ago", "Ago", "duration"),
            Column("alias", "Pool"),
            Column("waited", "Waited", "duration"),
            Column("work", "Work"),
            Column("pid", "Process", "number"),
            Column("likeliest_cause", "Likeliest cause", "sentence"),
        ),
    ),
)


@guarded
def page(request: HttpRequest) -> HttpResponse:
    """Return the page. Without JavaScript the browser loads it again every few seconds."""
    found = summary()
    tables = [(table, [_cells(table, row) for row in found[table.key]]) for table in TABLES]
    return HttpResponse(_engine.get_template("status.html").render(Context({**found, "tables": tables})))


@guarded
def as_json(request: HttpRequest) -> HttpResponse:
    """Return what the page shows as one JSON object."""
    return JsonResponse(summary())


@guarded
def asset(request: HttpRequest, name: str) -> HttpResponse:
    """Return a file that the page refers to.

    :param name: a key of ``ASSETS``.
    """
    return HttpResponse((FOLDER / name).read_bytes(), content_type=f"{ASSETS[name]}; charset=utf-8")


def _cells(table: Table, row: dict[str, Any]) -> list[tuple[Column, str]]:
    return [(column, _text(column, row[column.key])) for column in table.columns]


def _text(column: Column, value: Any) -> str:
    if value is None:
        return "-"
    return causes.duration(value) if column.kind == "duration" else str(value)
