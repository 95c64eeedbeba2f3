"""What the log says of pools: one line when a pool begins, one with the true reason when it ends, at INFO."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections

import poollife
import poollife.asgi
import poollife.celery
import poollife.gunicorn
from poollife import close_pool, drain_pool, pool_stats
from poollife.pools import log
from poollife.pools.live import live_pools
from poollife.pools.pool import LeasePool
from poollife.pools.registry import Registry, registry
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.borrowing import connection_id
from tests.support.counting import pool_of


@pytest.fixture(autouse=True)
def _no_other_pools() -> Iterator[None]:
    # Sessions that other tests have left would be closed, and logged, in the middle of a test: those of this
    # thread, and those of wrappers that were dropped.
    registry.close("another test begins")
    gc.collect()
    for pool in live_pools.strong_references():
        pool.reclaim()
    yield
    registry.drain(None, "the test is over")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns what was logged since it was called last."""
    caplog.set_level("DEBUG", "poollife")

    def new() -> list[str]:
        # SQLAlchemy traces each step of a pool, under the name of the pool's class.
        records = [record for record in caplog.records if record.name == "poollife"]
        found = [f"{record.levelname} {record.getMessage()}" for record in records]
        caplog.clear()
        return found

    return new


Lines = Callable[[], list[str]]


def use(alias: str) -> None:
    connection_id(alias)
    connections[alias].close()


def closed(alias: str, reason: str) -> list[str]:
    return [f"INFO Pool {alias!r} is closed: {reason}"]


# --- begin and end ------------------------------------------------------------------------------------------


def test_a_pool_begins_with_its_place_and_its_sizes(make_alias: MakeAlias, lines: Lines) -> None:
    alias = make_alias(POOL={"pool_size": 3, "max_overflow": 1})
    settings = connections[alias].settings_dict
    for _ in range(3):
        use(alias)
    place = f"database {settings['NAME']!r} at {settings['HOST']}:{settings['PORT']}"
    assert lines() == [f"INFO Pool {alias!r} begins: {place}, pool_size 3, max_overflow 1"]


def test_a_file_is_at_no_server(make_alias: MakeAlias, lines: Lines, tmp_path: Path) -> None:
    name = str(tmp_path / "site.sqlite3")
    alias = make_alias("poollife.backends.sqlite3", NAME=name, HOST="", PORT="")
    connections[alias].ensure_connection()
    assert lines() == [f"INFO Pool {alias!r} begins: database {name!r}, pool_size 5, max_overflow 10"]


def test_of_two_pools_that_are_made_at_once_one_begins_and_ends(
    make_alias: MakeAlias, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias, make = make_alias(), Registry._make
    made: list[LeasePool] = []

    def make_two(registry: Registry, *arguments: Any) -> LeasePool:
        pool = make(registry, *arguments)
        made.append(pool)
        if len(made) == 1:  # another thread is quicker
            registry.pool(*arguments)
        return pool

    monkeypatch.setattr(Registry, "_make", make_two)
    use(alias)
    found, lost = pool_of(alias), [pool for pool in made if pool is not pool_of(alias)]
    assert (len(made), len(lost)) == (2, 1)
    assert found in live_pools.strong_references()
    assert lost[0] not in live_pools.strong_references()
    assert lost[0]._slots not in found._outage.waiters.strong_references()
    assert [line.split()[3] for line in lines() if repr(alias) in line] == ["begins:"]


def test_a_child_does_not_write_what_its_parent_has_noted(lines: Lines) -> None:
    """A thread in the middle of a checkout has noted it, while another forks."""
    log.note(logging.WARNING, "noted by the parent")
    if (child := os.fork()) == 0:
        os._exit(1 if log.pending else 0)
    assert os.waitpid(child, 0)[1] == 0
    log.write()
    assert lines().count("WARNING noted by the parent") == 1


def test_without_pooling_no_pool_begins_or_ends(make_alias: MakeAlias, lines: Lines) -> None:
    alias = make_alias(POOL=False)
    use(alias)
    close_pool(alias)
    assert lines() == []


def gunicorn_forks() -> None:
    poollife.gunicorn.pre_fork(poollife.gunicorn, poollife.gunicorn)


def celery_ends() -> None:
    poollife.celery.close_pools_on_exit()


def unused() -> None:
    for pool in registry.pools():
        pool.last_used -= 3600
    registry._sweeper.sweep()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (close_pool, "close_pool() was called"),
        (drain_pool, "drain_pool() was called"),
        (poollife.gunicorn.close_pools, "its gunicorn worker ends"),
        (gunicorn_forks, "gunicorn's master is about to fork a worker"),
        (celery_ends, "its Celery worker process ends"),
        (unused, "unused for 3600 s (max_pool_idle)"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_pool_is_closed_and_logged_once_with_the_reason_that_came_first(
    make_alias: MakeAlias,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[], object],
    reason: str,
) -> None:
    """Whoever closes it again, the end of the process too, finds it closed."""
    monkeypatch.setattr(poollife.gunicorn, "cfg", None, raising=False)
    alias = make_alias()
    use(alias)
    pool = pool_of(alias)
    lines()
    end()
    assert lines() == closed(alias, reason)
    end()
    pool.drain("its process ends")
    pool.dispose("a test database was created")
    assert lines() == []
    assert (pool.closed_because, pool.disposed) == (reason, True)
    assert alias not in pool_stats()


async def nothing(*_: Any) -> dict[str, Any]:
    return {"type": "lifespan.shutdown"}


def test_an_asgi_server_that_shuts_down_is_the_reason(make_alias: MakeAlias, lines: Lines) -> None:
    alias = make_alias()
    use(alias)
    lines()
    asyncio.run(poollife.asgi.Lifespan(nothing, nothing, 0).drain())  # type: ignore[arg-type]
    assert lines() == closed(alias, "its ASGI server shuts down")


# --- attributes ---------------------------------------------------------------------------------------------


def calls_that_log() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call in the package that logs, with its place, but for gunicorn's own log."""
    package = Path(poollife.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                if called == "log.note" or re.fullmatch(r"logger\.\w+", called):
                    yield f"{path.relative_to(package)}:{node.lineno} {called}", node


def test_each_record_has_an_alias_and_a_session() -> None:
    """``log.note()`` adds both by itself; its calls about a pool name the pool's alias."""
    calls = list(calls_that_log())
    assert len(calls) > 20
    missing = []
    for place, call in calls:
        given = {keyword.arg for keyword in call.keywords}
        if place.endswith("log.note"):
            is_complete = "alias" in given or "self.name" in ast.unparse(call)  # a server's, not a pool's
        else:
            is_complete = "extra" in given
        if not is_complete:
            missing.append(place)
    assert missing == []


def test_a_record_about_a_session_has_its_alias_and_its_number(
    make_alias: MakeAlias, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    alias = make_alias()
    first = connection_id(alias)
    with suppress(DatabaseError), connections[alias].cursor() as cursor:
        cursor.execute(f"KILL {first}")
    connections[alias].close()
    records = [record.__dict__ for record in caplog.records if record.name == "poollife"]
    assert [(record["alias"], record["session"]) for record in records] == [(alias, None), (alias, first)]
    assert [record["process"] for record in records] == [os.getpid()] * 2


def test_a_noted_record_has_both_attributes(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    log.note(logging.INFO, "about a session", alias="default", session=7)
    log.note(logging.INFO, "about no pool")
    log.write()
    records = [record.__dict__ for record in caplog.records if record.name == "poollife"]
    assert [(record["alias"], record["session"]) for record in records] == [("default", 7), (None, None)]


# --- programs -----------------------------------------------------------------------------------------------

PROGRAM = """
import json, logging, sys, threading
import django
from django.conf import settings

database, level, work = json.loads(sys.argv[1])
if level:
    logging.basicConfig(level=level, format="%(name)s %(levelname)s %(message)s")
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["poollife"])
django.setup()

from django.core.management import BaseCommand, call_command
from django.db import connection, transaction


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


class Command(BaseCommand):
    def handle(self, **options):
        query()
        exec(work)


def wait():
    threading.Event().wait()


call_command(Command())
"""

WAYS = {
    "ends with a connection": "pass",
    "gives back": "connection.close()",
    "ends in a transaction": "transaction.atomic().__enter__(); query()",
    "closes its pool": "import poollife; poollife.close_pool()",
    "is closed by gunicorn's hook": "import poollife.gunicorn; poollife.gunicorn.close_pools()",
    "has had threads": "thread = threading.Thread(target=query); thread.start(); thread.join()",
    "leaves a daemon thread": "threading.Thread(target=lambda: (query(), wait()), daemon=True).start()",
}


def command(database: dict[str, Any], work: str, level: str | None = None) -> list[str]:
    """Run a management command, and return the lines that cron would send."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps([database, level, work])],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_command_prints_nothing_unless_it_is_told_to(entry: dict[str, Any], way: str) -> None:
    """Python prints warnings of loggers that nobody has configured, and cron sends what is printed."""
    assert command(entry, WAYS[way]) == []


KILL = """
with connection.cursor() as cursor:
    cursor.execute("SELECT CONNECTION_ID()")
    try:
        cursor.execute("KILL %s", cursor.fetchone())
    except Exception as error:
        print("killed" if tell else "", end="")
"""


@pytest.mark.slow
@pytest.mark.parametrize("tell", [True, False])
def test_a_command_whose_session_was_killed_prints_nothing(entry: dict[str, Any], tell: bool) -> None:
    assert command(entry, f"tell = {tell}\n{KILL}") == ["killed"] * tell


@pytest.mark.slow
@pytest.mark.parametrize("level", ["WARNING", "INFO"])
def test_a_command_logs_two_lines_of_its_pool(tmp_path: Path, level: str) -> None:
    database = {"ENGINE": "poollife.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}
    found = command(database, WAYS["is closed by gunicorn's hook"], level)
    begin = f"begins: database {database['NAME']!r}, pool_size 5, max_overflow 10"
    told = [begin, "is closed: its gunicorn worker ends"] if level == "INFO" else []
    assert found == [f"poollife INFO Pool 'default' {line}" for line in told]
