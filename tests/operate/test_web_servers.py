"""The board under real web servers: masters that have queried, and workers that come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from poollife.board.folder import NoBoard
from poollife.board.reader import Board, read_board
from servers import MariaDB
from tests.invariants.inv1_fork.test_gunicorn_forks import get, gunicorn
from tests.support.uwsgi_site.running import VARIANTS, Uwsgi
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

REQUESTS = 120

#: Sends one request of this number, and returns its answer.
Get = Callable[[int], dict[str, object]]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLLIFE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


@contextmanager
def under_gunicorn(folder: Path, database: dict[str, object]) -> Iterator[Get]:
    with gunicorn(folder, database, "--worker-class", "gthread", "--threads", "3") as port:
        yield lambda number: get(port, f"/echo/{number}/")


@contextmanager
def under_uwsgi(folder: Path, database: dict[str, object]) -> Iterator[Get]:
    with Uwsgi(folder, database, VARIANTS["default"], "--max-requests", "30") as uwsgi:
        yield lambda number: uwsgi.get(f"/echo/{number}/")
        # A kill ends the workers a moment after the master. In good order the master ends last.
        uwsgi.end()


def board(run_dir: Path) -> Board:
    (folder,) = run_dir.iterdir()
    return read_board(folder)


def checkouts(run_dir: Path) -> int:
    return board(run_dir).totals["default"].counters["checkouts"]


@pytest.mark.parametrize("under", [under_gunicorn, under_uwsgi], ids=["gunicorn", "uwsgi"])
def test_sums_are_the_requests_however_often_workers_are_replaced(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    tmp_path: Path,
    run_dir: Path,
    under: Callable[..., Iterator[Get]],
) -> None:
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    with under(tmp_path, database) as send:  # type: ignore[attr-defined]
        send(0)
        begun = checkouts(run_dir)
        with ThreadPoolExecutor(4) as crowd:
            answers = crowd.map(send, range(1, REQUESTS + 1))
            seen, workers = [begun], set()
            for answer in answers:
                workers.add(answer["pid"])
                seen.append(checkouts(run_dir))
        assert seen == sorted(seen)
        assert checkouts(run_dir) == begun + REQUESTS
        assert len(workers) > 2
        # A killed worker takes nothing along.
        pid = int(str(send(1)["pid"]))
        assert pid in {process.pid for process in board(run_dir).processes}
        os.kill(pid, signal.SIGKILL)
        eventually("it is gone", lambda: pid not in {each.pid for each in board(run_dir).processes})
        assert checkouts(run_dir) == begun + REQUESTS + 1
    found = board(run_dir)
    assert (found.processes, found.unreadable) == ([], [])


def test_folders_of_two_sites_are_not_mixed(run_dir: Path) -> None:
    with pytest.raises(NoBoard, match="There is no"):
        read_board(run_dir / "none")
