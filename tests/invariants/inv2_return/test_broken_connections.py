"""Invariant 2: what a borrower is told, and gets next, when its connection was closed or has broken."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from MySQLdb.cursors import SSCursor

from poollife import auto_close_db
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, session_of, sql, variable
from tests.support.counting import pool_of

STOCK = "django.db.backends.mysql"
POOLED = ["poollife.backends.mysql", "poollife.backends.mysql_pymysql", "poollife.backends.sqlite3"]


# --- closed in an atomic block ------------------------------------------------------------------------------


def query(alias: str) -> None:
    sql(alias, "SELECT 1")


def nested_block(alias: str) -> None:
    with transaction.atomic(using=alias):
        pass


def savepoint(alias: str) -> None:
    # Its name since Django 6.1.
    getattr(transaction, "savepoint_create", transaction.savepoint)(using=alias)


def commit(alias: str) -> None:
    transaction.commit(using=alias)


def nothing(alias: str) -> None:
    pass


@pytest.mark.parametrize("engine", POOLED)
@pytest.mark.parametrize("then", [query, nested_block, savepoint, commit, nothing])
def test_what_is_told_after_close_in_a_block_is_djangos(
    make_alias: MakeAlias, tmp_path: Any, engine: str, then: Callable[[str], None]
) -> None:
    told: list[str] = []
    for each in (STOCK, engine):
        entry: dict[str, Any] = {"NAME": str(tmp_path / "db")} if "sqlite3" in each else {}
        alias = make_alias(each, **entry)
        try:
            with transaction.atomic(using=alias):
                query(alias)
                connections[alias].close()
                then(alias)
            told.append("went well")
        except (DatabaseError, TransactionManagementError) as error:
            told.append(f"{type(error).__name__}: {error}")
        # And after the block all is well.
        query(alias)
    assert told[0] == told[1]
    assert (told[0] == "went well") == (then in (nothing, nested_block))


# --- broken outside of a block ------------------------------------------------------------------------------


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 10})


def in_a_request(function: Callable[[], Any]) -> Any:
    """In a thread that is not the main one."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(auto_close_db(function)).result(PATIENCE)


def in_a_bare_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result(PATIENCE)


def in_a_command(function: Callable[[], Any]) -> Any:
    return function()


RUNNERS = [in_a_request, in_a_bare_thread, in_a_command]


def leave_unread(alias: str) -> None:
    LEFT.append(connections[alias].connection.cursor(SSCursor))
    LEFT[0].execute("SELECT seq FROM seq_1_to_100000")


def out_of_step(alias: str) -> int:
    """A result is left unread, so the driver refuses the next statement (2014). Return the session."""
    number = session_of(alias)
    with suppress(DatabaseError), connections[alias].cursor():
        leave_unread(alias)
        query(alias)
    return number


def killed(alias: str, mariadb: MariaDB) -> int:
    number = session_of(alias)
    with suppress(OperationalError), connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        mariadb.execute(f"KILL {number}")
        cursor.execute("SELECT 1")
    return number


LEFT: list[Any] = []


@pytest.mark.parametrize("runs", RUNNERS)
def test_a_lost_session_is_replaced_for_its_own_borrower(
    alias: str, mariadb: MariaDB, runs: Callable[..., Any]
) -> None:
    def work() -> list[int]:
        return [killed(alias, mariadb), session_of(alias)]

    before, after = runs(work)
    assert before != after
    connections[alias].close()
    assert (pool_of(alias).out, pool_of(alias).opened) == (0, 2)


@pytest.mark.parametrize("runs", RUNNERS)
def test_a_session_out_of_step_is_replaced_for_its_own_borrower(alias: str, runs: Callable[..., Any]) -> None:
    """As long as its result is being read it is left alone; a result that is lost is nobody's."""

    def work() -> list[int]:
        before = out_of_step(alias)
        with pytest.raises(DatabaseError, match="2014"):
            query(alias)
        LEFT.clear()
        return [before, session_of(alias)]

    before, after = runs(work)
    assert before != after
    connections[alias].close()
    assert pool_of(alias).out == 0


@pytest.mark.parametrize("runs", [in_a_request, in_a_command])
def test_a_lost_session_with_something_in_it_is_not(
    alias: str, mariadb: MariaDB, runs: Callable[..., Any]
) -> None:
    """The borrower would go on without what it has set: it is told until it closes it, as with stock."""

    def work() -> object:
        sql(alias, "SET @left = 1")
        killed(alias, mariadb)
        for _ in range(2):
            with pytest.raises(OperationalError):
                variable(alias)
        connections[alias].close()
        return variable(alias)

    assert runs(work) is None


def test_a_bare_threads_lost_session_comes_back_when_its_job_is_over(alias: str, mariadb: MariaDB) -> None:
    """Until then the thread is told that what it has left there is lost."""

    def work() -> None:
        sql(alias, "SET @left = 1")
        killed(alias, mariadb)
        with pytest.raises(OperationalError):
            variable(alias)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(work).result(PATIENCE)
        assert pool_of(alias).out == 1
        assert variable(alias) is None
