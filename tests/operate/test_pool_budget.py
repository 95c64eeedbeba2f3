"""``manage.py pool_budget``, on real servers, and as a command of its own beside running processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.utils import load_backend

from poollife.board.reader import read_board
from poollife.monitoring import budget
from poollife.monitoring.demand import Use, size_of
from servers import MariaDB, PgBouncer, PostgreSQL
from servers.ports import free_port
from tests.conftest import MakeAlias, NewDatabase
from tests.support import ROOT
from tests.support.board_site import Site
from tests.support.counting import pool_of

POSTGRESQL = "poollife.backends.postgresql"
#: Connections that the servers of this module allow: PostgreSQL keeps three of them for superusers.
MOST, RESERVED = 40, 3


def ask(*arguments: str) -> tuple[dict[str, Any], str]:
    """Return the report, and the error, which is empty with exit status 0."""
    out, failure, status = StringIO(), "", 0
    try:
        call_command("pool_budget", *arguments, "--json", stdout=out)
    except CommandError as error:
        failure, status = str(error), error.returncode
    report: dict[str, Any] = json.loads(out.getvalue())
    assert (report["fits"], status) == ((False, 1) if failure else (True, 0))
    return report, failure


def of(size: int) -> dict[str, int]:
    return {"pool_size": size, "max_overflow": 0}


@pytest.fixture(scope="module")
def small_mariadb() -> Iterator[MariaDB]:
    with MariaDB(options=[f"--max-connections={MOST}"]) as server:
        yield server


@pytest.fixture(scope="module")
def small_postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL(options=[f"--max_connections={MOST + RESERVED}"]) as server:
        yield server


@pytest.fixture(params=["mysql", "mysql_pymysql", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    return f"poollife.backends.{request.param}"


@pytest.fixture
def server(request: pytest.FixtureRequest, engine: str) -> MariaDB | PostgreSQL:
    name = "small_postgresql" if engine == POSTGRESQL else "small_mariadb"
    found: MariaDB | PostgreSQL = request.getfixturevalue(name)
    return found


def test_aliases_of_a_server_are_added_up_and_doubled_for_a_deployment(
    make_alias: MakeAlias, engine: str, server: MariaDB | PostgreSQL
) -> None:
    first = make_alias(engine, server=server, POOL=of(2))
    # By another way: that is the same server.
    second = make_alias(engine, server=server, POOL={"pool_size": 1, "max_overflow": 2}, via="socket")
    report, failure = ask("--hosts", "2", "--processes", "3")
    (found,) = report["servers"]
    (room,) = found["rooms"]
    assert (found["limits"], found["sessions"]) == ({first: 2, second: 3}, 2 * 3 * 5)
    assert found["memory"] == pytest.approx(60 * (1.7 if engine == POSTGRESQL else 0.12))
    assert (room["name"], room["allowed"], room["needed"]) == ("max_connections", MOST, 60)
    assert failure.startswith("It does not fit: a deployment may open 60 connections to")
    assert all(pool_of(alias).out == 0 for alias in (first, second))


@pytest.mark.parametrize(("size", "fits"), [(20, True), (21, False)])
def test_deployment_has_to_fit_to_the_last_connection(
    make_alias: MakeAlias, engine: str, server: MariaDB | PostgreSQL, size: int, fits: bool
) -> None:
    alias = make_alias(engine, server=server, POOL=of(size))
    report, failure = ask("--processes", "1")
    assert (report["servers"][0]["rooms"][0]["others"], failure == "") == (0, fits)
    out = StringIO()
    try:
        call_command("pool_budget", "--processes", "1", stdout=out)
    except CommandError:
        assert not fits
    (line,) = [line for line in out.getvalue().splitlines() if f"({alias})" in line]
    assert ("yes" in line, " NO " in line) == (fits, not fits)


def test_connections_of_others_are_taken_off(
    make_alias: MakeAlias, new_database: NewDatabase, engine: str, server: MariaDB | PostgreSQL
) -> None:
    """A client with another database is another one. More sessions of the site make no difference."""
    alias = make_alias(engine, server=server, POOL=of(20))
    own = connections[alias].copy()
    stock = load_backend(f"django.db.backends.{own.vendor}").DatabaseWrapper
    other = stock({**own.settings_dict, "NAME": new_database(server)})
    for wrapper in (own, other):
        wrapper.ensure_connection()
    report, failure = ask("--processes", "1")
    for wrapper in (own, other):
        wrapper.close()
    assert report["servers"][0]["rooms"][0]["others"] == 1
    assert "others use 1 now" in failure


def test_limit_of_the_account_has_to_fit_as_well(
    make_alias: MakeAlias, small_mariadb: MariaDB, small_postgresql: PostgreSQL
) -> None:
    small_mariadb.execute("CREATE USER few IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 9")
    small_mariadb.execute("GRANT ALL ON *.* TO few")
    small_postgresql.execute("CREATE ROLE few LOGIN PASSWORD 'secret' CONNECTION LIMIT 9")
    user: dict[str, Any] = {"USER": "few", "PASSWORD": "secret"}
    mysql = make_alias(server=small_mariadb, POOL=of(5), **user)
    other = make_alias(POSTGRESQL, server=small_postgresql, POOL=of(5), **user)
    name = connections[other].settings_dict["NAME"]
    small_postgresql.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 8")
    report, failure = ask("--processes", "1")
    rooms = [
        [room["name"], room["allowed"], room["fits"]]
        for found in report["servers"]
        for room in found["rooms"]
        if room["name"] != "max_connections"
    ]
    assert rooms == [
        ["max_user_connections of few", 9, False],
        ["CONNECTION LIMIT of role few", 9, False],
        [f"CONNECTION LIMIT of database {name}", 8, False],
    ]
    assert failure.count("It does not fit") == 3
    for alias in (mysql, other):
        connections[alias].settings_dict["POOL"] = of(4)
        del connections[alias].pool_options  # type: ignore[attr-defined]  # it is read once
    assert ask("--processes", "1")[1] == ""


def test_server_out_of_reach_fails_and_others_are_shown(
    make_alias: MakeAlias, engine: str, server: MariaDB | PostgreSQL
) -> None:
    away = make_alias(engine, server=server, PORT=str(free_port()))
    there = make_alias(engine, server=server)
    report, failure = ask("--processes", "1")
    first, second = report["servers"]
    assert (first["limits"].keys(), first["rooms"], first["fits"]) == ({away}, [], False)
    assert failure == f"The server {first['address']} does not answer: {first['error']}"
    assert (second["limits"].keys(), len(second["rooms"]), second["fits"]) == ({there}, 1, True)


def test_stock_engine_has_a_connection_for_each_thread(make_alias: MakeAlias, small_mariadb: MariaDB) -> None:
    stock = make_alias("django.db.backends.mysql", server=small_mariadb)
    unpooled = make_alias(server=small_mariadb, POOL=False)
    report, _ = ask("--processes", "1", "--threads", "6")
    assert report["servers"][0]["limits"] == {stock: 6, unpooled: 6}


def test_server_behind_a_transaction_pooler_is_left_to_it(
    make_alias: MakeAlias, transaction_pgbouncer: PgBouncer
) -> None:
    make_alias(
        POSTGRESQL,
        server=transaction_pgbouncer,
        DISABLE_SERVER_SIDE_CURSORS=True,
        POOL={"behind": "transaction_pooler"},
    )
    report, failure = ask("--processes", "1000")
    assert (report["servers"][0]["rooms"], failure) == ([], "")


def test_size_is_that_of_the_given_use(make_alias: MakeAlias, tmp_path: Path) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "site.sqlite3"), POOL=of(4))
    connections[alias].ensure_connection()  # what the board has counted is not mixed with it
    use = ["--processes", "1", "--rate", "66.67", "--hold", "0.04"]
    (size,) = ask(*use, "--threads", "8")[0]["sizes"]
    pause = budget.mean_pause(8, 66.67, 0.04)
    assert size["size"] == budget.size_for_threads(8, pause, 0.04) == 6
    assert size["waiting"] == pytest.approx(budget.wait_of_threads(8, 4, pause, 0.04))
    assert (size["alias"], size["limit"], size["out"]) == (alias, 4, pytest.approx(2.667, abs=1e-3))
    (size,) = ask(*use, "--asgi")[0]["sizes"]
    assert size["size"] == budget.size_for_many(66.67, 0.04) > 6


def test_size_counts_waits_as_a_part_of_the_measured_rate(make_alias: MakeAlias) -> None:
    """Eight threads that come round in 120 ms, and wait for 30 of them, pause for 50."""
    alias = make_alias("poollife.backends.sqlite3", NAME=":memory:", POOL=of(4))
    size = size_of(alias, Use(rate=8 / 0.12, hold=0.04, wait=0.03), threads=8)
    assert size
    assert size.size == budget.size_for_threads(8, 0.05, 0.04) == 7
    assert size.waiting == pytest.approx(budget.wait_of_threads(8, 4, 0.05, 0.04))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rate", "10", "--hold", "0.1"], "give --threads, or --asgi"),
        (["--hold", "0.1", "--threads", "8"], "give --rate"),
        (["--rate", "10", "--threads", "8"], "give --hold"),
    ],
    ids=["threads", "rate", "hold"],
)
def test_size_without_enough_figures_says_which_are_missing(
    make_alias: MakeAlias, arguments: list[str], reason: str
) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=":memory:")
    report, _ = ask("--processes", "1", *arguments)
    assert report["sizes"] == []
    assert reason in report["sizes_unknown"][alias]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "run")
    yield made
    made.end()


def manage(site: Site, *arguments: str) -> Any:
    """Run the command as a program with the settings of the site, and return how it has ended."""
    entry = {
        "ENGINE": "poollife.backends.sqlite3",
        "NAME": str(site.base.parent / "site.sqlite3"),
        "POOL": of(3),
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.support.programs.manage", json.dumps(entry), *arguments],
        cwd=ROOT,
        env={**os.environ, "POOLLIFE_RUN_DIR": str(site.base)},
        capture_output=True,
        text=True,
    )


def test_board_has_the_processes_and_their_use(site: Site) -> None:
    programs = [site.start("query", 5, pool={"stats": True}) for _ in range(2)]
    for program in programs:
        program.said()
    done = manage(site, "pool_budget", "--json", "--threads", "4", "--folder", str(site.folder))
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["processes"] == 2
    (size,) = report["sizes"]
    totals = read_board(site.folder).totals["default"]
    counts, seconds = totals.histograms["use_time"]
    assert (sum(counts), size["hold"]) == (10, pytest.approx(seconds / 10))
    # Five checkouts since the start of each.
    assert 0 < 5 / size["rate"] < 600
    assert size["out"] == pytest.approx(size["rate"] * size["hold"])


def test_without_a_board_the_processes_have_to_be_given(site: Site) -> None:
    done = manage(site, "pool_budget", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--processes is needed" in done.stderr
    assert manage(site, "pool_budget", "--processes", "2", "--json").returncode == 0


def test_process_of_the_command_is_none_of_the_site(make_alias: MakeAlias) -> None:
    connections[make_alias()].ensure_connection()
    assert [process.pid for process in read_board().processes] == [os.getpid()]
    with pytest.raises(CommandError, match="--processes is needed"):
        call_command("pool_budget")


def test_board_without_durations_asks_for_them(site: Site) -> None:
    site.start("query", 5).said()
    done = manage(site, "pool_budget", "--threads", "4", "--folder", str(site.folder))
    assert "No size for 'default': the board has no durations, as POOL['stats'] is off" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("option", ["--hosts=0", "--processes=x", "--rate=-1", "--hold=inf"])
def test_option_that_is_no_number_is_refused(option: str) -> None:
    with pytest.raises(CommandError, match=r"is no (whole number from 1|number above 0)"):
        call_command("pool_budget", option)
