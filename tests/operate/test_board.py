"""The board: the numbers and the holders of all processes of a site, as any process reads them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test.utils import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poollife.board import folder as folders
from poollife.board import layout, past, reader
from poollife.board.folder import NoBoard
from poollife.board.page import Page, Row, command
from poollife.board.reader import read_board
from poollife.board.views import (
    COUNTERS,
    HISTOGRAMS,
    Damaged,
    Process,
    TimedOut,
    Totals,
    parse,
    totals_by_alias,
)
from tests.conftest import MakeAlias
from tests.support.board_site import Site, read_as_owner


class Thing:
    """A pool, as far as the board knows it: an object."""


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
        assert (death.pid, death.holders[0].alias) == (program.pid, "default")
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
    program = site.start("fork", hook, pool=hook)
    child, parent = program.said(), program.said()
    assert parent["status"] == 0
    assert hook or parent["threads"] == 1
    assert child["token"] != parent["token"]
    board = site.read()
    assert [process.pid for process in board.processes] == [program.pid]
    # Two of the parent, which has the second still, and two of the child.
    assert board.processes[0].pools[0].totals.counters["checkouts"] == 2
    assert board.totals["default"].counters["checkouts"] == 4
    (holder,) = board.holders
    assert (holder.pid, "fork" in holder.work) == (program.pid, True)


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


#: A part of the names of files.
TOKEN = "0" * 16
GARBAGE = layout.MAGIC + b"\xff" * (layout.SIZE - len(layout.MAGIC))


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * layout.SIZE, b"\xff" * layout.SIZE, GARBAGE])
def test_hostile_files_break_neither_a_reader_nor_a_checkout(site: Site, content: bytes) -> None:
    program = site.start("hold")
    program.said()
    folder = site.folder
    (folder / f"1-{TOKEN}-0.board").write_bytes(content)
    (folder / f"2-{TOKEN}-0.board").mkdir()
    (folder / f"3-{TOKEN}-0.board").symlink_to("/dev/zero")
    os.mkfifo(folder / f"4-{TOKEN}-0.board")
    (folder / past.NAME).write_bytes(content)
    board = site.read()
    assert program.pid in [process.pid for process in board.processes]
    json.dumps([holder.held for holder in board.holders], allow_nan=False)
    other = site.start("query", 2)
    other.said()
    assert other.end() == 0


@contextmanager
def page_in(base: Path) -> Iterator[tuple[Page, Path]]:
    """A page of its own, as of another process, and its folder below this one."""
    with override_settings(POOLLIFE_RUN_DIR=str(base)):
        mine, pool = Page(), Thing()
        mine.enter_pool(pool, "alias", "", "")
        assert mine.folder, mine.missing
        yield mine, mine.folder


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Page]:
    """The page of a process that has a folder of its own."""
    with override_settings(POOLLIFE_RUN_DIR=str(tmp_path)):
        yield Page()


#: What may stand for any part of the past.
SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def past_of(counters: object, histogram: object) -> dict[str, Any]:
    return {
        "version": past.VERSION,
        "totals": {
            "default": {
                "counters": dict.fromkeys(COUNTERS, counters),
                "histograms": dict.fromkeys(HISTOGRAMS, histogram),
            }
        },
        "folded": [],
    }


@given(
    kept=SCRAPS.map(json.dumps)
    | st.builds(past_of, SCRAPS, SCRAPS).map(json.dumps)
    | st.builds(past_of, st.integers(), st.tuples(st.lists(st.integers()), SCRAPS)).map(json.dumps)
    | st.dictionaries(st.sampled_from(["version", "totals", "folded"]), SCRAPS | st.just(1)).map(json.dumps)
    | st.just("[" * 100_000)
    | st.just("9" * 5_000)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_in_the_past_pools_begin_and_readers_read(tmp_path: Path, kept: str) -> None:
    with page_in(tmp_path) as (_, folder):
        (folder / past.NAME).write_text(kept)
        for file in folder.glob("*.board"):
            file.rename(file.with_name(f"1{file.name}"))  # of a process that has ended
        with page_in(tmp_path) as (other, _):
            assert not other.missing
        board = read_board(folder)
        json.dumps(board.totals["alias"].counters, allow_nan=False)
        json.dumps(board.totals["alias"].histograms, allow_nan=False)


def test_what_readers_can_not_read_is_named(site: Site) -> None:
    site.start("query", 1).said()
    (site.folder / past.NAME).write_text("{}")
    (site.folder / f"1-{TOKEN}-0.board").write_text("nothing")
    board = read_board(site.folder)
    assert [each.partition(":")[0] for each in board.unreadable] == [f"1-{TOKEN}-0.board", past.NAME]
    # A process of the site begins anew, and keeps what was there.
    for _ in range(2):
        board = site.read()
        assert [each.partition(":")[0] for each in board.unreadable] == [past.DAMAGED]
    assert (site.folder / past.DAMAGED).read_text() == "{}"
    assert not (site.folder / f"1-{TOKEN}-0.board").exists()  # nobody has its lock


def test_a_folder_that_somebody_names_is_only_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    names = ["nginx.conf.new", "notes.dead", f"1-{TOKEN}-0.board.new", past.LOCK]
    for name in names[:-1]:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1, 1))
    with pytest.raises(NoBoard, match="not the folder of a site's board"):
        read_board(tmp_path)
    with pytest.raises(NoBoard, match="There is no"):
        read_board(tmp_path / "nowhere")
    with pytest.raises(NoBoard, match="long"):
        read_board(tmp_path / ("x" * 1000))
    assert {file.name for file in tmp_path.iterdir()} == set(names[:-1])
    # Nor does the owner touch what is not the board's.
    with pytest.raises(NoBoard):
        read_as_owner(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*names[:2], past.LOCK}


@pytest.mark.parametrize(("names", "more"), [(True, "sites.one"), (False, "configured-")])
def test_a_folder_that_is_given_stays_for_all_releases_of_a_site(
    monkeypatch: pytest.MonkeyPatch, *, names: bool, more: str
) -> None:
    name = "sites.one" if names else folders.UNNAMED
    monkeypatch.setattr(folders, "site", lambda: (name, "place"))
    with override_settings(POOLLIFE_RUN_DIR="/run/site"):
        assert str(folders.folder()).startswith(f"/run/site/{more}")
    with override_settings(POOLLIFE_RUN_DIR="run"), pytest.raises(NoBoard, match="absolute"):
        folders.folder()


def test_a_process_that_closes_descriptors_of_others_says_why_it_is_not_shown(tmp_path: Path) -> None:
    with page_in(tmp_path) as (mine, _):
        os.close(mine._files[0]._descriptor)
        assert mine.enter_session(1, 2, 0.5) is None
        assert "descriptor" in (mine.complaint() or "")


@pytest.mark.parametrize("error", [OSError(28, "disk full"), NoBoard("no folder")])
def test_no_error_of_the_board_reaches_a_checkout(
    mine: Page, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> object:
        raise error

    monkeypatch.setattr("poollife.board.page.prepared", fails)
    mine.enter_pool(Thing(), "alias", "", "")
    assert mine.enter_session(1, 1, 0.5) is None
    assert mine.missing == str(error)


class TimeLimit(Exception):
    """As Celery's SoftTimeLimitExceeded."""


@pytest.mark.parametrize("error", [TimeLimit(), TimeoutError("alarm")])
@pytest.mark.parametrize(
    "place", ["page.prepared", "past.read", "past.is_alive", "past.content", "page.number_in"]
)
def test_a_time_limit_that_strikes_in_the_board_reaches_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def strikes(*_: object) -> object:
        raise error

    with page_in(tmp_path) as (_, folder):
        for file in folder.glob("*.board"):
            file.rename(file.with_name(f"1{file.name}"))
        other = Page()
        monkeypatch.setattr(f"poollife.board.{place}", strikes)
        with pytest.raises(type(error)):
            other.enter_pool(Thing(), "alias", "", "")
        monkeypatch.undo()


def test_what_is_not_shown_is_told_once() -> None:
    mine = Page()
    pool = Thing()
    with override_settings(POOLLIFE_RUN_DIR="/proc/nowhere"):
        mine.enter_pool(pool, "alias", "", "")
    assert "/proc/nowhere" in (mine.complaint() or "")
    assert mine.complaint() is None
    with override_settings(POOLLIFE_RUN_DIR=""):
        off = Page()
        off.enter_pool(pool, "alias", "", "")
    assert off.missing
    assert off.complaint() is None  # as the settings want it


def test_a_deleted_folder_is_named_with_its_likeliest_cause(tmp_path: Path) -> None:
    with page_in(tmp_path) as (mine, folder):
        assert mine.enter_session(1, 1, 0.5)
        shutil.rmtree(folder)
        assert mine.enter_session(1, 2, 0.5) is None
        assert "RemoveIPC" in (mine.complaint() or "")


def test_the_folders_lock_is_not_given_up_by_another_thread_or_a_second_block(tmp_path: Path) -> None:
    turn = threading.Lock()
    looks = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1)"

    def is_free() -> bool:
        looked = subprocess.run(
            [sys.executable, "-c", looks, tmp_path / past.LOCK], stderr=subprocess.DEVNULL, check=False
        )
        return looked.returncode == 0

    with past.exclusively(tmp_path, turn, wait=0) as alone:
        assert alone
        with past.exclusively(tmp_path, turn, wait=0) as also:
            assert not also
        assert not is_free()
    assert is_free()


def test_a_reader_that_can_not_have_the_folder_reads_right(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may keep it; and root does not write into the folder of another user."""
    site.start("query", 4).said()
    killed, lives = site.start("hold"), site.start("query", 1)
    killed.said()
    lives.said()
    killed.kill()
    monkeypatch.setattr(reader, "is_own", lambda _: False)
    for _ in range(2):
        board = site.read()
        assert killed.pid not in [process.pid for process in board.processes]
        assert [process.pid for process in board.deaths] == [killed.pid]
        assert board.totals["default"].counters["checkouts"] == 6


def test_files_of_another_process_with_this_pid_are_added_up(tmp_path: Path) -> None:
    """As in containers, where each has pid 1, and one folder."""
    with page_in(tmp_path) as (mine, folder):
        (name,) = mine.names
        (folder / name).rename(folder / f"{os.getpid()}-{'0' * 16}-0.board")
        with page_in(tmp_path):
            pass
    assert not list(folder.glob(f"{os.getpid()}-{'0' * 16}-*"))
    assert (folder / past.NAME).exists()


def test_what_killed_processes_left_unfinished_is_removed(tmp_path: Path) -> None:
    with page_in(tmp_path) as (_, folder):
        old, new = folder / f"1-{TOKEN}-0.board.new", folder / f"1-{TOKEN}-1.board.new"
        for file in (old, new):
            file.write_text("")
        os.utime(old, (1, 1))
        read_as_owner(folder)
        assert (old.exists(), new.exists()) == (False, True)


def test_only_the_last_processes_that_died_are_kept(tmp_path: Path) -> None:
    for _ in range(past.MOST_DEATHS + 3):
        with page_in(tmp_path) as (mine, folder):
            row = mine.enter_session(1, 1, 0.5)
            assert row
            row.show(1.0, b"work", b"thread")
            (name,) = mine.names
            (folder / name).rename(folder / f"1{name}")
            row.free()  # too late for the file's reader, below
            row.show(1.0, b"work", b"thread")
            memory = bytearray(mine.memories()[0])
            layout.ROW.pack_into(memory, layout.ROWS_AT, 1, 1, 0.5, 1, 1.0, b"work", b"thread")
            (folder / f"1{name}").write_bytes(memory)
    board = read_as_owner(folder)
    assert len(board.deaths) == past.MOST_DEATHS
    assert len(list(folder.glob("*.dead"))) == past.MOST_DEATHS


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


def test_the_counters_of_a_pool_that_has_ended_go_on_to_count(mine: Page) -> None:
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


def test_pools_that_have_ended_are_not_shown_as_living(mine: Page) -> None:
    stays = Thing()
    mine.enter_pool(stays, "stays", "", "")
    ends = Thing()
    mine.enter_pool(ends, "ends", "", "")
    del ends
    (memory,) = mine.memories()
    assert [pool.alias for pool in parse([bytes(memory)], 1.0).pools] == ["stays"]
    assert {alias for alias, _ in totals_by_alias(bytes(memory))} == {"stays", "ends"}


def test_very_many_aliases_share_one_place_when_their_pools_have_ended(
    mine: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = 5
    monkeypatch.setattr("poollife.board.page.MOST_FILES", files)
    number = 10 * files * layout.POOLS
    for each in range(number):
        pool = Thing()
        _, cells = mine.enter_pool(pool, f"alias {each}", "", "")
        cells.counters[layout.LENT] += 1
        assert any(memory.find(f"alias {each}\0".encode()) >= 0 for memory in mine.memories())
        del pool
    found = [each for memory in mine.memories() for each in totals_by_alias(bytes(memory))]
    assert len(mine.memories()) == files
    assert sum(totals.counters["checkouts"] for _, totals in found) == number
    assert layout.OTHERS in {alias for alias, _ in found}


def test_a_child_closes_its_parents_descriptors(tmp_path: Path) -> None:
    with page_in(tmp_path) as (mine, _):
        descriptor = mine._files[0]._descriptor
        other = os.dup(descriptor)  # as a child has
        mine._files[0]._descriptor = other
        mine.abandon(None)
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(other)
        os.close(descriptor)


@pytest.mark.parametrize("limit", [None, 2**63, 10**30])
def test_any_limit(limit: int | None) -> None:
    cells = layout.Cells()
    cells.set_limit(limit)
    assert cells.counters[layout.LIMIT] == (layout.NO_LIMIT if limit is None else layout.MOST)


def test_a_row_that_was_not_completed_is_no_error() -> None:
    Row.__new__(Row).__del__()
    with pytest.raises(IndexError):
        Row([], 1, 1, 0.5)


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
        ("GET /\u202egnp.exe".encode(), "GET /\ufffdgnp.exe"),
        (b"ab\0\0", "ab"),
        (b"/a\0b\0\0", "/a\ufffdb"),
    ],
)
def test_a_path_can_not_control_the_terminal(field: bytes, shown: str) -> None:
    assert layout.text(field) == shown


@pytest.mark.parametrize("explicitly", [True, False])
def test_rows_of_sessions_that_are_gone_are_empty_and_used_again(mine: Page, *, explicitly: bool) -> None:
    pool = Thing()
    number, _ = mine.enter_pool(pool, "alias", "", "")
    for session in range(3 * layout.ROWS):
        row = mine.enter_session(number, session, 0.5)
        assert row
        row.show(1.0, b"", b"thread")
        if explicitly:
            row.free()
            row.free()
        del row
    (memory,) = mine.memories()
    process = parse([bytes(memory)], 2.0)
    assert (process.holders, process.pools[0].idle_sessions) == ([], [])
    assert len(mine._files[0].rows) == layout.ROWS


def test_a_return_that_goes_on_after_its_session_was_closed_does_not_touch_the_next_session(
    mine: Page,
) -> None:
    pool = Thing()
    number, _ = mine.enter_pool(pool, "alias", "", "")
    rows = [mine.enter_session(number, 1, 0.5) for _ in range(layout.ROWS)]
    before = rows.pop()
    assert before
    before.free()
    after = mine.enter_session(number, 2, 0.5)
    before.show(1.0, b"work", b"thread")
    process = parse([bytes(memory) for memory in mine.memories()], 2.0)
    assert after
    assert (process.holders, process.pools[0].idle_sessions.count(2)) == ([], 1)


def test_a_row_that_is_being_written_is_not_held_for_long(mine: Page) -> None:
    pool = Thing()
    number, _ = mine.enter_pool(pool, "alias", "", "")
    row = mine.enter_session(number, 1, 0.5)
    assert row
    row.held[0] = 1
    (holder,) = parse([bytes(memory) for memory in mine.memories()], 1000.0).holders
    assert holder.held == 0.0


def test_time_outs_of_processes_that_died_are_among_the_last() -> None:
    timeouts = [TimedOut("alias", float(at), 1.0, "work", "cause", at) for at in range(3)]
    processes = [Process(at, "", 0.0, 0, timeouts=[timeout]) for at, timeout in enumerate(timeouts)]
    board = reader.Board("", processes[:2], {}, processes[2:], [])
    assert [each.pid for each in board.timeouts] == [2, 1, 0]


def test_past_with_numbers_that_no_counter_has_is_damaged(tmp_path: Path) -> None:
    past._write(tmp_path, past.Past(totals={"alias": Totals.none()}))
    kept = json.loads((tmp_path / past.NAME).read_text())
    assert past.read(tmp_path).totals == {"alias": Totals.none()}
    kept["totals"]["alias"]["counters"]["checkouts"] = 10**400
    (tmp_path / past.NAME).write_text(json.dumps(kept))
    with pytest.raises(Damaged):
        past.read(tmp_path)


def test_without_shared_memory_the_board_is_in_the_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folders, "SHARED_MEMORY", Path("/no/such"))
    for name in ("TMPDIR", folders.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert folders.folder().is_relative_to(f"/tmp/poollife-{os.geteuid()}")


def test_the_last_time_outs_are_kept(mine: Page) -> None:
    mine.note_timeout("alias", 1.5, "work", "before there is a file")
    mine.enter_pool(Thing(), "alias", "", "")
    for number in range(layout.TIMEOUTS_KEPT + 3):
        mine.note_timeout("alias", 1.5, f"work {number}", "é" * 200)
    timeouts = parse([bytes(memory) for memory in mine.memories()], 2.0).timeouts
    assert {each.work for each in timeouts} == {f"work {number}" for number in range(3, 3 + len(timeouts))}
    assert len(timeouts) == layout.TIMEOUTS_KEPT
    assert [each.at for each in timeouts] == sorted((each.at for each in timeouts), reverse=True)
    assert {(each.alias, each.waited, each.likeliest_cause) for each in timeouts} == {
        ("alias", 1.5, "é" * 156)
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/usr/lib/gunicorn/__main__.py", "--bind=secret"], "gunicorn"),
        (["/srv/manage.py", "migrate", "secret"], "manage.py migrate"),
        (["/srv/run.py", "PASSWORD=secret"], "run.py"),
        (["/srv/tool.py", "hunter"], "tool.py"),
        ([""], "python"),
    ],
)
def test_command_is_the_name_of_the_program(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert command() == name
