"""uWSGI with JDBC: each worker has a JVM of its own with lazy-apps, and is refused if the master has one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB
from tests.hooks.conftest import JDBC
from tests.support.uwsgi_site.running import VARIANTS, Uwsgi
from tests.support.web_server import eventually, fetch

pytestmark = [pytest.mark.slow, pytest.mark.servers]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """A server whose sessions are all this module's."""
    with MariaDB() as server:
        server.create_database("site")
        yield server


@pytest.fixture
def database(server: MariaDB, java_environment: None) -> dict[str, Any]:
    """The settings of its database."""
    return {**server.database("site"), **JDBC}


def test_workers_with_lazy_apps_have_a_jvm_each_and_end_in_good_order(
    server: MariaDB, database: dict[str, Any], tmp_path: Path
) -> None:
    aborted = server.aborted()
    with Uwsgi(tmp_path, database, VARIANTS["lazy-apps"]) as uwsgi:
        answers = uwsgi.get_all([f"/echo/{number}/" for number in range(20)])
        uwsgi.replace_workers()
        answers += uwsgi.get_all([f"/echo/{number}/" for number in range(20)])
        uwsgi.end()
        assert uwsgi.process.returncode == 0
    assert [answer["right"] for answer in answers] == [True] * 40
    # At least one worker before the replacement, and another one after it.
    assert {answer["pid"] for answer in answers[:20]}.isdisjoint(answer["pid"] for answer in answers[20:])
    eventually("all sessions end", lambda: not server.sessions())
    assert server.aborted() == aborted


def test_workers_of_a_master_with_a_jvm_are_refused_and_end_in_good_order(
    server: MariaDB, database: dict[str, Any], tmp_path: Path
) -> None:
    """The application has queried in the master, which ends as docs/java.md says."""
    with Uwsgi(tmp_path, database, VARIANTS["default"]) as uwsgi:
        assert [fetch(uwsgi.port, f"/echo/{number}/").status for number in range(4)] == [500] * 4
        assert f"was forked from process {uwsgi.process.pid}, in which a JVM was running" in uwsgi.log
        began = [note["pid"] for note in uwsgi.notes("child")]
        present = {session.id for session in server.sessions()}
        uwsgi.replace_workers()
        eventually(
            "the exit handlers ran", lambda: {note["pid"] for note in uwsgi.notes("end")} == set(began)
        )
        # The master keeps its sessions.
        assert {session.id for session in server.sessions()} == present
        assert set(uwsgi.sessions("start").values()) == present
        uwsgi.end()
        assert uwsgi.process.returncode == -signal.SIGABRT
    eventually("all sessions end", lambda: not server.sessions())
