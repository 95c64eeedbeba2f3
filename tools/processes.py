"""Have every kind of server make its processes, and count the harm to sessions: ``make processes``.

Each line is a real server whose processes start and end while four clients send requests. Half of the
requests fork a child. The exit status is 0 if there was no harm.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from servers import PrivateServer
from tests.support.processes import SERVERS, Counts, tracebacks_in
from tests.support.redis_server import Redis
from tests.support.servers_site import running as servers_site
from tests.support.uwsgi_site import running as uwsgi_site

REQUESTS = 160
#: The number of lines of a log that are printed after harm: the last ones.
LOG_LINES = 40
#: The names of the columns, and the functions that fill them.
COLUMNS: dict[str, Callable[[Counts], object]] = {
    "requests": lambda counts: counts.requests,
    "repeated": lambda counts: counts.repeated,
    "processes": lambda counts: counts.processes,
    "parent's sessions": lambda counts: counts.parent_sessions or "-",
    "alive": lambda counts: counts.alive if counts.parent_sessions else "-",
    "inherited sockets": lambda counts: counts.inherited_sockets,
    "wrong answers": lambda counts: counts.wrong_answers,
    "over the limit": lambda counts: counts.over_limit,
    "aborted ends": lambda counts: counts.aborted,
    "tracebacks": lambda counts: len(counts.tracebacks),
}


class Place(NamedTuple):
    """The server and the folder of a row."""

    server: PrivateServer
    #: An empty database there.
    database: str
    #: An empty folder.
    folder: Path
    redis: Callable[[], Redis]


class Row(NamedTuple):
    """A line of the table."""

    run: Callable[[Place], Counts]
    #: The packages that have to be installed.
    needs: tuple[str, ...]
    #: The reason why the row can't run here; empty: it can.
    unfit: str = ""


def main() -> int:
    """Print the table, a line at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="how the names of the rows begin that are wanted")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="that each web server is sent")
    parser.add_argument("--database", choices=SERVERS, default="mysql", help="the server of the sites")
    given = parser.parse_args()
    rows = chosen(all_rows(given.requests), given.rows)
    if not rows:
        parser.error("no row begins like that")
    width = max(map(len, rows)) + 2
    print(" " * width + "  ".join([*COLUMNS, "seconds"]), flush=True)
    with workshop(SERVERS[given.database]) as place:
        harmed = [show(name.ljust(width), row, place) for name, row in rows.items()]
    return int(any(harmed))


def all_rows(requests: int) -> dict[str, Row]:
    """Return the whole table, in its order."""
    rows = {}
    for name, web_server in servers_site.SERVERS.items():
        packages = (web_server.program, *(["gevent"] if "gevent" in name else []))
        rows[name] = Row(partial(run_web_server, web_server, requests), packages)
    for beginning, build in uwsgi_site.BUILDS.items():
        for name in UWSGI:
            # The site leaves out variants that crash there.
            unfit = "" if name in uwsgi_site.VARIANTS else "its workers crash on this Python"
            rows[f"{beginning} {name}"] = Row(partial(run_uwsgi, name, build), (), build.unfit or unfit)
    for name in CELERY:
        packages = ("celery", "redis", *(["gevent"] if name == "gevent" else []))
        rows[f"celery {name}"] = Row(partial(run_celery, name), packages)
    return rows


UWSGI = ("default", "threads", "osafterfork", "fork-hooks", "mule + spooler", "no master", "lazy-apps")
#: Names of variants. The site's module imports Celery, so it is imported only when one of them runs.
CELERY = ("prefork", "prefork, blocking", "prefork, spawned", "threads", "gevent", "solo")


def chosen(rows: dict[str, Row], beginnings: list[str]) -> dict[str, Row]:
    """Return the rows whose names begin with one of these texts; without any, all rows."""
    return {name: row for name, row in rows.items() if name.startswith(tuple(beginnings or ("",)))}


@contextmanager
def workshop(kind: Callable[[], PrivateServer]) -> Iterator[Callable[[], Place]]:
    """Yield a function that makes a place for each row. Its servers end with the block.

    :param kind: of the database server.
    """
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="processes-")))
        server = stack.enter_context(kind())
        started: list[Redis] = []

        def redis() -> Redis:
            if not started:
                (top / "redis").mkdir()
                started.append(stack.enter_context(Redis(top / "redis")))
            return started[0]

        def place() -> Place:
            name = f"row_{len(list(top.iterdir()))}"
            (top / name).mkdir()
            server.create_database(name)
            return Place(server, name, top / name, redis)

        yield place


def show(name: str, row: Row, new_place: Callable[[], Place]) -> bool:
    """Print the line of a row, and return whether there was harm."""
    if reason := row.unfit or not_installed(row.needs):
        print(f"{name}not run: {reason}", flush=True)
        return False
    place, start = new_place(), time.monotonic()
    try:
        counts = row.run(place)
    except Exception:
        print(f"{name}failed\n{traceback.format_exc()}", flush=True)
        harmed = True
    else:
        cells = [str(fill(counts)).rjust(len(title)) for title, fill in COLUMNS.items()]
        seconds = f"{time.monotonic() - start:.1f}".rjust(len("seconds"))
        print(name + "  ".join([*cells, seconds]), flush=True)
        harmed = counts.harmed
    if harmed:
        print(*(place.folder / "log").read_text(errors="replace").splitlines()[-LOG_LINES:], sep="\n")
    return harmed


def not_installed(packages: tuple[str, ...]) -> str:
    """Return a text with the packages that are not installed, or "" if all are."""
    missing = [package for package in packages if not find_spec(package)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def run_web_server(web_server: servers_site.WebServer, requests: int, place: Place) -> Counts:
    return servers_site.count(place.server, place.database, place.folder, web_server, requests)


def run_uwsgi(name: str, build: uwsgi_site.Build, place: Place) -> Counts:
    variant = replace(uwsgi_site.VARIANTS[name], build=build)
    return uwsgi_site.count(place.server, place.database, place.folder, variant)


def run_celery(name: str, place: Place) -> Counts:
    from tests.support.celery_site import worker

    counts = worker.measure(name, place.server, place.database, place.redis(), place.folder)
    before, alive = counts.parents
    return Counts(
        requests=counts.tasks,
        processes=counts.processes,
        parent_sessions=before,
        alive=alive,
        inherited_sockets=counts.inherited,
        wrong_answers=counts.wrong,
        # A session that a task leaves with its thread is also one beyond the limit.
        over_limit=counts.over_limit + counts.held,
        aborted=counts.aborted,
        tracebacks=tracebacks_in((place.folder / "log").read_text(errors="replace")),
    )


if __name__ == "__main__":
    sys.exit(main())
