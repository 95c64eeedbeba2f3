"""``manage.py pool_status``."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import override_settings

from poollife import auto_close_db
from poollife.board.reader import read_board
from poollife.errors import PoolTimeout
from poollife.monitoring.server import server_sessions
from servers import PostgreSQL
from tests.conftest import MakeAlias


@pytest.fixture(params=["mysql", "mysql_pymysql", "postgresql"])
def alias(request: pytest.FixtureRequest, make_alias: MakeAlias) -> str:
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        return make_alias("poollife.backends.postgresql", server=server)
    return make_alias(f"poollife.backends.{request.param}")


def status(*arguments: str) -> str:
    out = StringIO()
    call_command("pool_status", *arguments, stdout=out)
    return out.getvalue()


def mine(found: dict[str, Any]) -> dict[str, Any]:
    (process,) = [each for each in found["processes"] if each["pid"] == os.getpid()]
    found_here: dict[str, Any] = process
    return found_here


class Elsewhere:
    """A thread that does something with a connection, and keeps it until it is told."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._ready, self._over = threading.Event(), threading.Event()
        self._work = work
        self._thread = threading.Thread(target=self._run, name="elsewhere")
        self._thread.start()
        assert self._ready.wait(30)

    @auto_close_db
    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ready.set()
            self._over.wait(60)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], object]], Elsewhere]]:
    made: list[Elsewhere] = []

    def make(work: Callable[[], object]) -> Elsewhere:
        made.append(Elsewhere(work))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_json_has_the_holders(alias: str, elsewhere: Callable[..., Elsewhere]) -> None:
    elsewhere(lambda: connections[alias].ensure_connection())
    found = json.loads(status("--json"))
    (pool,) = [each for each in mine(found)["pools"] if each["alias"] == alias]
    (holder,) = [each for each in mine(found)["holders"] if each["alias"] == alias]
    assert (pool["out"], pool["limit"], pool["suspended"]) == (1, 15, False)
    assert (holder["thread"], holder["pid"]) == ("elsewhere", os.getpid())
    assert "_run" in holder["work"]
    assert found["server"] is None


def test_tables_name_the_holder(alias: str, elsewhere: Callable[..., Elsewhere]) -> None:
    elsewhere(lambda: connections[alias].ensure_connection())
    (holder,) = [each for each in read_board().holders if each.alias == alias]
    lines = [line for line in status().splitlines() if alias in line and "elsewhere" in line]
    assert len(lines) == 1
    assert str(holder.session) in lines[0]


def test_a_function_that_knows_the_password_may_fail(make_alias: MakeAlias) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("vault says no")

    alias = make_alias(POOL={"credentials": broken})
    with pytest.raises(Exception, match="vault"):
        connections[alias].ensure_connection()
    found = json.loads(status("--server", "--json"))
    assert "RuntimeError" in found["server_errors"][alias]


@pytest.mark.parametrize("pool", [{"timeout": 0.1}, {"max_waiting": 0}], ids=["in vain", "refused"])
def test_checkout_that_timed_out_is_named_with_its_work_and_its_likeliest_cause(
    make_alias: MakeAlias, elsewhere: Callable[..., Elsewhere], pool: dict[str, Any]
) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, **pool})
    keeper = elsewhere(lambda: connections[alias].ensure_connection())

    @auto_close_db
    def late() -> None:
        connections[alias].ensure_connection()

    with pytest.raises(PoolTimeout) as raised:
        late()
    keeper.end()
    assert raised.value.likeliest_cause
    (found,) = [each for each in mine(json.loads(status("--json")))["timeouts"] if each["alias"] == alias]
    assert (found["waited"], found["work"]) == (raised.value.waited, late.__qualname__)
    assert found["likeliest_cause"] == raised.value.likeliest_cause
    table = status().partition("The last time-outs")[2]
    (line,) = [line for line in table.splitlines() if alias in line]
    assert f" {found['waited']:.1f} " in line


def test_the_server_says_what_each_session_does_and_whose_it_is(
    alias: str, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere(lambda: connections[alias].ensure_connection())
    before = {each.session for each in server_sessions(alias, [])}
    (holder,) = [each for each in read_board().holders if (each.alias, each.thread) == (alias, "elsewhere")]
    found = {each.session: each for each in server_sessions(alias, read_board().processes)}
    assert holder.session in before
    assert (found[holder.session or 0].pid, found[holder.session or 0].holder) == (os.getpid(), holder.work)
    assert {each.alias for each in found.values()} == {alias}


def test_a_session_of_no_pool_is_nobodys(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias("poollife.backends.postgresql", server=postgresql)
    stranger = make_alias("django.db.backends.postgresql", server=postgresql)
    connections.databases[stranger]["NAME"] = connections[alias].settings_dict["NAME"]
    with connections[stranger].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        session = cursor.fetchone()[0]
        (found,) = [
            each for each in server_sessions(alias, read_board().processes) if each.session == session
        ]
    assert (found.pid, found.holder) == (None, None)
    assert "pg_backend_pid" in found.statement


def test_without_a_board_it_says_why(tmp_path: Path) -> None:
    with (
        override_settings(POOLLIFE_RUN_DIR=str(tmp_path)),
        pytest.raises(CommandError, match="has had a pool"),
    ):
        status("--json")
    with (
        override_settings(POOLLIFE_RUN_DIR=""),
        pytest.raises(CommandError, match="POOLLIFE_RUN_DIR is empty"),
    ):
        status("--json")


def test_another_sites_board_can_be_named(alias: str) -> None:
    connections[alias].ensure_connection()
    folder = read_board().folder
    with override_settings(POOLLIFE_RUN_DIR=""):
        assert alias in status("--json", "--folder", folder)
