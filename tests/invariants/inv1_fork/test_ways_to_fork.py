"""Invariant 1, by every way to make a process; test_forks.py has more about each."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from servers import MariaDB
from servers.ports import free_port
from tests.support.processes import start_program
from tests.support.programs.running import run
from tests.support.web_server import eventually

pytestmark = pytest.mark.slow

CHILD: dict[str, Any] = {"inherited": [], "own session": True, "again": True}
#: Children whose end somebody waits for tell their status.
ENDED = {**CHILD, "status": 0}
WAYS: dict[str, dict[str, Any]] = {
    "fork": ENDED,
    "forkpty": {**ENDED, "printed": ""},
    "daemon": ENDED,
    "multiprocessing, fork": ENDED,
    "multiprocessing, spawn": ENDED,
    "multiprocessing, forkserver": ENDED,
    "multiprocessing, pool": CHILD,
    "billiard": ENDED,
    "billiard, pool": CHILD,
    "ProcessPoolExecutor": {**CHILD, "sessions": 1},
    "preexec_fn": {**CHILD, "program": []},
}


@pytest.mark.parametrize("way", WAYS)
def test_way(mariadb: MariaDB, new_database: Callable[[], str], way: str) -> None:
    """The child works in a session of its own; the parent's are idle, in a transaction, and half read."""
    entry = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    assert run("fork_ways", way, entry) == {
        "child": WAYS[way],
        "half read": True,
        "same sessions": True,
        "rows": ["parent"],
    }


def test_reloader(mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path) -> None:
    """``runserver`` starts itself anew with all descriptors that may be inherited, after each change."""
    entry = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    eventually("what was before is over", lambda: not mariadb.sessions())
    aborted = mariadb.status("Aborted_clients")
    module, log, port = tmp_path / "changing.py", tmp_path / "log", free_port()
    module.touch()
    program = [sys.executable, "-m", "tests.support.programs.runserver"]
    server = start_program([*program, str(port), json.dumps(entry), str(tmp_path)], log)
    try:
        first = answer(port)
        # The reloader looks each second, from some moment on. No request meanwhile: it would be cut off.
        while len(printed(log)) < 3:
            assert server.poll() is None, log.read_text()
            module.touch()
            time.sleep(2)
        second = answer(port)
        (parents,) = {line["session"] for line in printed(log) if line["pid"] == server.pid}
        assert second["pid"] != first["pid"]
        assert first["parent"] == second["parent"] == server.pid
        assert first["inherited"] == second["inherited"] == []
        assert len({first["session"], second["session"], parents}) == 3
        assert {parents, second["session"]} <= {session.id for session in mariadb.sessions()}
        assert mariadb.status("Aborted_clients") == aborted
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answer(port: int) -> dict[str, Any]:
    """What the site answers, as soon as it does."""
    found: list[dict[str, Any]] = []

    def ask() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            found.append(json.load(response))
        return bool(found)

    eventually("the site answers", ask)
    return found[0]


def printed(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
