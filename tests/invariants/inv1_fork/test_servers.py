"""Invariant 1 under web servers without tests of their own; ``make processes`` runs all, for longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB, PostgreSQL, PrivateServer
from tests.support.celery_site.worker import VARIANTS
from tests.support.processes import TRACEBACK_LINES, Counts, tracebacks_in
from tests.support.redis_server import Redis
from tests.support.servers_site.running import (
    ASGI,
    REPEATED,
    SERVERS,
    Question,
    Serving,
    WebServer,
    count,
    misplaced,
)
from tools.processes import CELERY, Place, Row, all_rows, chosen, show

pytestmark = [pytest.mark.slow, pytest.mark.servers]

REQUESTS = 24
#: See tests/invariants/inv1_fork/test_gunicorn_forks.py.
ELSEWHERE = ("gunicorn sync", "gunicorn gthread")
UVICORN = SERVERS["uvicorn"]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """Nobody else's connections end on it."""
    with MariaDB() as server:
        yield server


@pytest.mark.parametrize("name", [name for name in SERVERS if not name.startswith(ELSEWHERE)])
def test_workers_that_come_and_go_leave_the_parents_sessions_alone(
    server: MariaDB, tmp_path: Path, name: str
) -> None:
    """Workers come and go, requests fork, and who queried before all of it ends in its first sessions."""
    check(count_on(server, tmp_path, name), name)


def test_workers_leave_the_parents_sessions_alone_on_postgresql(tmp_path: Path) -> None:
    """One row of the table: its workers fork from a master that is gevent's, and have greenlets that fork."""
    name = "gunicorn gevent, preload"
    with PostgreSQL() as server:
        check(count_on(server, tmp_path, name), name)


def count_on(server: PrivateServer, folder: Path, name: str) -> Counts:
    """Run the site under a web server on a database server, and count."""
    server.create_database("site")
    return count(server, "site", folder, SERVERS[name], REQUESTS)


def check(counts: Counts, name: str) -> None:
    """Assert that nothing of a run is a mistake."""
    parents = 2 if SERVERS[name].parent else 0
    assert not counts.tracebacks, "\n".join(counts.tracebacks)
    assert counts == Counts(
        requests=counts.requests,
        processes=counts.processes,
        parent_sessions=parents,
        alive=parents,
        inherited_sockets=0,
        wrong_answers=0,
        over_limit=0,
        aborted=0,
        tracebacks=(),
        repeated=counts.repeated,
    )
    assert counts.requests > REQUESTS
    assert counts.processes > SERVERS[name].workers or not SERVERS[name].replaced_by


def test_without_the_hooks_each_worker_begins_with_its_parents_sockets(
    server: MariaDB, tmp_path: Path
) -> None:
    """The guard alone keeps all answers right; but each worker begins with its parent's sockets."""
    server.create_database("site")
    counts = count(server, "site", tmp_path, SERVERS["gunicorn asgi, preload"], REQUESTS, without="hooks")
    assert counts.inherited_sockets >= 2 * counts.processes
    assert (counts.alive, counts.wrong_answers) == (2, 0)


def test_without_the_guard_a_worker_ends_a_session_of_its_parent(server: MariaDB, tmp_path: Path) -> None:
    """The first worker that ends is the end of a session of its parent's."""
    server.create_database("site")
    gunicorn = replace(SERVERS["gunicorn asgi, preload"], kinds=("echo",))
    assert count(server, "site", tmp_path, gunicorn, REQUESTS, without="guard").alive < 2


def test_uvicorn_without_the_middleware_ends_sessions_without_a_quit_packet(
    server: MariaDB, tmp_path: Path
) -> None:
    """At its end it raises the signal that ended it once more, so no exit handler runs."""
    server.create_database("site")
    # The signal ends all workers. With workers that end after some requests, and close their pools then, the
    # signal may by chance find no session.
    arguments = [each for each in UVICORN.arguments if each not in ("--limit-max-requests", "{share}")]
    without = replace(UVICORN, arguments=(*arguments[:-1], ASGI), replaced_by="")
    assert count(server, "site", tmp_path, without, 8).aborted > 0


# --- the client ------------------------------------------------------------------------------------------


def test_client_never_sends_again_what_may_have_been_carried_out(tmp_path: Path) -> None:
    """A worker that is killed may have inserted the row already; no answer tells."""
    server = WebServer("tests.support.servers_site.hanging_up", ("{port}",), parent="")
    with Serving(server, tmp_path, {}, 1) as serving:
        answer = serving.get(Question("fork/fork", 7))
    assert (tmp_path / "asked").read_text().split() == ["/fork/fork/7/", f"/fork/fork/{REPEATED}/"]
    assert serving.unanswered == [Question("fork/fork", 7)]
    assert answer == {"question": Question("fork/fork", REPEATED)}


@pytest.mark.parametrize(
    ("rows", "mistakes"),
    [
        ({1}, 0),  # the request without an answer did not arrive
        ({1, 2}, 0),  # it did
        ({2}, 1),
        (set(), 1),
        ({1, 3}, 1),
        ({1, -1}, 1),  # a child's insert into its parent's transaction
    ],
)
def test_rows_of_requests_without_an_answer_may_be_there_or_not(rows: set[int], mistakes: int) -> None:
    answered = [Question("fork/fork", 1), Question("echo", 3)]
    assert misplaced(rows, answered, [Question("fork/fork", 2), Question("echo", 4)]) == mistakes


# --- the table -------------------------------------------------------------------------------------------

GOOD = Counts(
    requests=9,
    processes=3,
    parent_sessions=2,
    alive=2,
    inherited_sockets=0,
    wrong_answers=0,
    over_limit=0,
    aborted=0,
    tracebacks=(),
)
MISTAKES: dict[str, Any] = {
    **dict.fromkeys(["alive", "inherited_sockets", "wrong_answers", "over_limit", "aborted"], 1),
    "tracebacks": ("Traceback",),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_line_with_a_mistake(place: Place, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    """It counts as harmed, and the server's log comes with it."""
    assert not show("", Row(lambda place: GOOD, ()), lambda: place)
    assert "why" not in capsys.readouterr().out
    assert show("", Row(lambda place: replace(GOOD, **{mistake: MISTAKES[mistake]}), ()), lambda: place)
    assert "why" in capsys.readouterr().out


LOG = """it serves
Traceback (most recent call last):
  first()
KeyError: 1
an answer
Exception ignored in: threading
Traceback (most recent call last):
    assert tlock is not None
"""


def test_a_traceback_is_told_with_what_the_log_has_behind_it() -> None:
    first = "Traceback (most recent call last):\n  first()\nKeyError: 1\nan answer"
    assert tracebacks_in("it serves") == ()
    assert [text.startswith(first) for text in tracebacks_in(LOG)] == [True, False]
    (text,) = tracebacks_in(LOG, "assert tlock is not None")
    assert text.startswith(first)
    # Two processes have written at once.
    assert tracebacks_in("Traceback\nTraceback\n expected\n expected\n", "expected") == ()
    (text,) = tracebacks_in("Traceback\n" + "a line\n" * 1000)
    assert text.count("a line") == TRACEBACK_LINES - 1


def test_a_line_that_fails(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(place: Place) -> Counts:
        raise AssertionError("it did not start")

    assert show("", Row(fail, ()), lambda: place)
    assert "it did not start" in capsys.readouterr().out


def test_a_line_that_cannot_be_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody takes it for a good one."""
    assert not show("such a server  ", Row(lambda place: GOOD, ("sys", "such_a_server")), lambda: place)
    assert not show("a crash        ", Row(lambda place: GOOD, (), "it crashes"), lambda: place)
    assert capsys.readouterr().out.splitlines() == [
        "such a server  not run: not installed: such_a_server",
        "a crash        not run: it crashes",
    ]


def test_all_lines_are_there() -> None:
    rows = all_rows(1)
    assert sum(name.startswith("gunicorn") for name in rows) == 8
    assert {name.partition(" ")[0] for name in chosen(rows, ["uwsgi", "daphne"])} == {"uwsgi", "daphne"}
    assert len(chosen(rows, ["uwsgi"])) == 14
    assert len(chosen(rows, ["uwsgi of Debian"])) == 7
    assert chosen(rows, []) == rows
    assert tuple(VARIANTS) == CELERY


@pytest.fixture
def place(server: MariaDB, tmp_path: Path) -> Place:
    """Where no server was run, but a log is left."""
    (tmp_path / "log").write_text("why")

    def redis() -> Redis:
        raise AssertionError("not for these")

    return Place(server, "none", tmp_path, redis)
