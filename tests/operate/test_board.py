"""The board: the numbers and the holders of all processes of a site, as any process reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from poollife.board import layout, past
from poollife.board.folder import NoBoard
from poollife.board.page import Page
from poollife.board.reader import Board, read_board
from poollife.board.views import parse, totals_by_alias
from tests.conftest import MakeAlias
from tests.support import ROOT

PROGRAM = "tests.support.programs.board_cases"


class Thing:
    """A pool, as far as the board knows it: an object."""


class Program:
    """A process of the site."""

    def __init__(self, environment: dict[str, str], *arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", PROGRAM, *map(json.dumps, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def said(self) -> dict[str, Any]:
        assert self._process.stdout
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report

    def end(self) -> int:
        """End it in order."""
        self._process.communicate()
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Site:
    """A site with a board of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._programs: list[Program] = []

    def start(self, *arguments: Any, pool: dict[str, Any] | None = None, **environment: str) -> Program:
        database = {
            "ENGINE": "poollife.backends.sqlite3",
            "NAME": str(self.base.parent / "site.sqlite3"),
            "POOL": pool or {},
        }
        program = Program({"POOLLIFE_RUN_DIR": str(self.base), **environment}, database, *arguments)
        self._programs.append(program)
        return program

    @property
    def folder(self) -> Path:
        (folder,) = [each for each in self.base.iterdir() if each.is_dir()]
        return folder

    def read(self) -> Board:
        return read_board(self.folder)

    def end(self) -> None:
        for program in self._programs:
            program.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "run")
    yield made
    made.end()


def test_a_holder_in_another_process_is_shown(site: Site) -> None:
    program = site.start("hold")
    program.said()
    board = site.read()
    (process,), (holder,) = board.processes, board.holders
    (pool,) = process.pools
    assert (process.pid, pool.alias) == (program.pid, "default")
    assert (pool.out, pool.sessions, pool.waiting) == (1, 1, 0)
    assert (holder.pid, holder.alias, holder.thread) == (program.pid, "default", "MainThread")
    assert "hold" in holder.work
    assert 0 <= holder.held < 60
    assert board.totals["default"].counters["checkouts"] == 1
    assert process.command == "board_cases.py"  # arguments may be secrets
    assert program.end() == 0
    assert site.read().processes == []


def test_a_process_that_keeps_the_gil_is_shown(site: Site) -> None:
    program = site.start("hang")
    program.said()
    (holder,) = site.read().holders
    assert (holder.pid, "hang" in holder.work) == (program.pid, True)


def test_the_last_words_of_a_killed_process_are_kept(site: Site) -> None:
    program = site.start("hold")
    program.said()
    program.kill()
    for _ in range(2):
        board = site.read()
        assert board.processes == []
        (death,) = board.deaths
        assert (death["pid"], death["holders"][0]["alias"]) == (program.pid, "default")
        assert board.totals["default"].counters["checkouts"] == 1
    assert not list(site.folder.glob("*.board"))


def test_sums_never_fall_and_files_never_pile_up(site: Site) -> None:
    for number in range(1, 4):
        program = site.start("query", 4)
        program.said()
        assert site.read().totals["default"].counters["checkouts"] == 4 * number
        program.end() if number % 2 else program.kill()
        assert site.read().totals["default"].counters["checkouts"] == 4 * number
    # A process that begins does the same, where nobody reads.
    for _ in range(2):
        program = site.start("query", 1)
        program.said()
        program.end()
    assert len(list(site.folder.glob("*.board"))) == 1
    assert site.read().totals["default"].counters["checkouts"] == 14
    assert site.read().deaths == []


@pytest.mark.parametrize("hook", [True, False])
def test_a_child_has_a_file_of_its_own_and_its_end_is_not_the_end_of_its_parent(
    site: Site, *, hook: bool
) -> None:
    program = site.start("fork", hook)
    child, parent = program.said(), program.said()
    assert parent["status"] == 0
    assert child["token"] != parent["token"]
    board = site.read()
    assert [process.pid for process in board.processes] == [program.pid]
    # One of the parent and two of the child.
    assert board.processes[0].pools[0].totals.counters["checkouts"] == 1
    assert board.totals["default"].counters["checkouts"] == 3


def test_more_sessions_than_rows(site: Site) -> None:
    number = layout.ROWS + 5
    program = site.start("more_than_one_file", number, pool={"pool_size": number, "timeout": 60})
    program.said()
    assert len(list(site.folder.glob("*.board"))) == 2
    board = site.read()
    (process,) = board.processes
    assert [pool.out for pool in process.pools] == [number]
    assert len(board.holders) == number


def test_readers_fold_the_past_only_once(site: Site) -> None:
    """A reader was killed after it had written the past, and before it had removed the file."""
    program = site.start("query", 4)
    program.said()
    (file,) = site.folder.glob("*.board")
    program.kill()
    memory = file.read_bytes()
    assert site.read().totals["default"].counters["checkouts"] == 4
    file.write_bytes(memory)
    for _ in range(2):
        assert site.read().totals["default"].counters["checkouts"] == 4
    assert not file.exists()


GARBAGE = layout.MAGIC + b"\xff" * (layout.SIZE - len(layout.MAGIC))


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * layout.SIZE, b"\xff" * layout.SIZE, GARBAGE])
def test_hostile_files_break_neither_a_reader_nor_a_checkout(site: Site, content: bytes) -> None:
    program = site.start("hold")
    program.said()
    folder = site.folder
    (folder / "1-1-0.board").write_bytes(content)
    (folder / "2-1-0.board").mkdir()
    (folder / "3-1-0.board").symlink_to("/dev/zero")
    os.mkfifo(folder / "4-1-0.board")
    (folder / past.NAME).write_bytes(content)
    board = site.read()
    assert program.pid in [process.pid for process in board.processes]
    json.dumps([holder.held for holder in board.holders], allow_nan=False)
    other = site.start("query", 2)
    other.said()
    assert other.end() == 0


def test_a_folder_of_others_is_not_used(site: Site) -> None:
    site.base.mkdir()
    program = site.start("query", 2)
    program.said()
    site.folder.chmod(0o755)
    program.end()
    with pytest.raises(NoBoard, match="chmod 700"):
        site.read()
    program = site.start("query", 2)
    assert program.said()["missing"]
    assert program.end() == 0


@pytest.mark.parametrize("value", ["", "/proc/nowhere"])
def test_without_a_board_all_works(site: Site, value: str) -> None:
    program = site.start("query", 2, POOLLIFE_RUN_DIR=value)
    assert program.said()["missing"]
    assert program.end() == 0


def test_the_counters_of_a_pool_that_has_ended_go_on_to_count() -> None:
    mine = Page()

    for number in range(3 * layout.POOLS):
        pool = Thing()
        _, cells = mine.enter_pool(pool, f"alias {number % 2}", "", "")
        cells.counters[layout.LENT] += 1
        cells.sums[0] += 0.5
        del pool
    assert len(mine.memories()) == 1
    found: dict[str, tuple[int, float]] = {}
    for alias, totals in totals_by_alias(bytes(mine.memories()[0])):
        checkouts, seconds = found.get(alias, (0, 0.0))
        found[alias] = (
            checkouts + totals.counters["checkouts"],
            seconds + totals.histograms["wait_time"][1],
        )
    half = 3 * layout.POOLS // 2
    assert found == {f"alias {number}": (half, half * 0.5) for number in range(2)}


def test_a_process_reads_its_own_board(make_alias: MakeAlias) -> None:
    """It must not open its own files: it would give up its lock."""
    alias = make_alias()
    connections[alias].ensure_connection()
    for _ in range(2):
        (process,) = [each for each in read_board().processes if each.pid == os.getpid()]
        (holder,) = [each for each in process.holders if each.alias == alias]
        assert holder.session == connections[alias].connection.session_id()
    connections[alias].close()
    (process,) = [each for each in read_board().processes if each.pid == os.getpid()]
    (pool,) = [each for each in process.pools if each.alias == alias]
    assert (pool.out, pool.sessions, len(pool.idle_sessions)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (b"GET /\x1b[2J/\x9b\xc2\x9b", "GET /\ufffd[2J/\ufffd\ufffd"),
        ("GET /café/€/😀/".encode(), "GET /café/€/😀/"),
        (("x" * 111 + "é").encode()[:112], "x" * 111 + "\ufffd"),
        (b"ab\0\0", "ab"),
    ],
)
def test_a_path_can_not_control_the_terminal(field: bytes, shown: str) -> None:
    assert layout.text(field) == shown


@pytest.mark.parametrize("explicitly", [True, False])
def test_rows_of_sessions_that_are_gone_are_empty_and_used_again(*, explicitly: bool) -> None:
    mine, pool = Page(), Thing()
    number, _ = mine.enter_pool(pool, "alias", "", "")
    for session in range(3 * layout.ROWS):
        row = mine.enter_session(number, session)
        assert row
        row.show(1.0, None, b"thread")
        if explicitly:
            row.free()
            row.free()
        del row
    (memory,) = mine.memories()
    process = parse([bytes(memory)], 2.0)
    assert (process.holders, process.pools[0].idle_sessions) == ([], [])
    assert len(mine._files[0].rows) == layout.ROWS


def test_a_return_that_goes_on_after_its_session_was_closed_does_not_touch_the_next_session() -> None:
    mine, pool = Page(), Thing()
    number, _ = mine.enter_pool(pool, "alias", "", "")
    rows = [mine.enter_session(number, 1) for _ in range(layout.ROWS)]
    before = rows.pop()
    assert before
    before.free()
    after = mine.enter_session(number, 2)
    before.show(1.0, "work", b"thread")
    process = parse([bytes(memory) for memory in mine.memories()], 2.0)
    assert after
    assert (process.holders, process.pools[0].idle_sessions.count(2)) == ([], 1)
