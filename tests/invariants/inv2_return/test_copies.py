"""A lease belongs to one wrapper: shallow copies of it share its session, and end nothing."""

from __future__ import annotations

import copy
import gc
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import connections, transaction

from poollife.backends.mixin import PooledMixin
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.programs.running import run as run_program

POOL = {"pool_size": 2, "max_overflow": 0, "timeout": 5}


@pytest.fixture(params=["mysql", "sqlite3"])
def alias(request: pytest.FixtureRequest, make_alias: MakeAlias, tmp_path: Path) -> str:
    """An alias whose database has an empty table, on a server or in a file."""
    where: dict[str, Any] = {"NAME": str(tmp_path / "db.sqlite3")} if request.param == "sqlite3" else {}
    alias = make_alias(f"poollife.backends.{request.param}", POOL=POOL, **where)
    ask(wrapper_of(alias), "CREATE TABLE rows_ (number INTEGER PRIMARY KEY)")
    connections[alias].close()
    return alias


def wrapper_of(alias: str) -> Any:
    return connections[alias]


def ask(wrapper: Any, sql: str) -> list[tuple[Any, ...]]:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def rows(wrapper: Any) -> int:
    ((number,),) = ask(wrapper, "SELECT COUNT(*) FROM rows_")
    return int(number)


def leave_something(wrapper: Any) -> None:
    """Put something into the session that no other session has."""
    ask(wrapper, "CREATE TEMPORARY TABLE mine (number INTEGER)")


def has_it_still(wrapper: Any) -> bool:
    return ask(wrapper, "SELECT COUNT(*) FROM mine") == [(0,)]


def close(twin: Any) -> None:
    twin.close()


def close_in_a_block(twin: Any) -> None:
    twin.in_atomic_block = True
    twin.close()


def connect_anew(twin: Any) -> None:
    twin.connection = None
    assert rows(twin) == 0
    twin.close()


def give_back(twin: Any) -> None:
    twin.release()


def become_a_mirror(twin: Any) -> None:
    """Django's test runner does it to a wrapper; here the copy has settings of its own."""
    twin.settings_dict = copy.deepcopy(twin.settings_dict)
    twin.creation_class(twin).set_as_test_mirror({"NAME": "elsewhere"})


def be_collected(twin: Any) -> None:
    """Nothing is done with it."""


@pytest.mark.parametrize(
    "end", [close, close_in_a_block, connect_anew, give_back, become_a_mirror, be_collected]
)
def test_end_of_a_copy_leaves_the_session_to_its_original(alias: str, end: Callable[[Any], None]) -> None:
    original = wrapper_of(alias)
    leave_something(original)
    session = original.connection
    twin = copy.copy(original)
    assert has_it_still(twin)
    end(twin)
    del twin
    gc.collect()
    assert original.connection is session
    assert has_it_still(original)
    assert pool_of(alias).out == 1
    original.close()
    assert pool_of(alias).out == 0


@pytest.mark.parametrize("end", [close, connect_anew, become_a_mirror, be_collected])
def test_end_of_a_copy_leaves_the_transaction_to_its_original(alias: str, end: Callable[[Any], None]) -> None:
    original = wrapper_of(alias)
    with transaction.atomic(alias):
        ask(original, "UPDATE rows_ SET number = number")
        end(copy.copy(original))
        ask(original, "INSERT INTO rows_ VALUES (1)")
    assert rows(original) == 1


def test_a_copy_reads_what_its_original_has_not_committed(alias: str) -> None:
    original = wrapper_of(alias)
    with transaction.atomic(alias):
        ask(original, "INSERT INTO rows_ VALUES (1)")
        assert rows(copy.copy(original)) == 1
        transaction.set_rollback(True, alias)


def test_a_copy_borrows_a_session_once_its_original_has_none(alias: str) -> None:
    original = wrapper_of(alias)
    assert rows(original) == 0
    twin = copy.copy(original)
    original.close()
    assert rows(twin) == 0
    assert rows(original) == 0
    assert twin.connection is not original.connection
    assert pool_of(alias).out == 2
    twin.close()
    assert pool_of(alias).out == 1


def test_a_copy_of_a_copy_is_one_more_of_the_original(alias: str) -> None:
    original = wrapper_of(alias)
    leave_something(original)
    twin = copy.copy(original)
    third = copy.copy(twin)
    twin.close()
    assert has_it_still(third)
    third.close()
    assert has_it_still(original)


def test_a_copys_own_lease_ends_with_the_copy(alias: str) -> None:
    """It has one where its original had none yet."""
    twin = copy.copy(wrapper_of(alias))
    assert rows(twin) == 0
    assert pool_of(alias).out == 1
    del twin
    gc.collect()
    pool_of(alias).reclaim()
    assert pool_of(alias).out == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_copy_ends_no_transaction_of_the_next_borrower(alias: str, end: str) -> None:
    """The session that it began one in has gone back, and is another's now."""
    original = wrapper_of(alias)
    assert rows(original) == 0
    session = original.connection
    twin = copy.copy(original)
    twin.set_autocommit(False)
    original.close()
    other = connections.create_connection(alias)
    other.set_autocommit(False)
    assert other.connection is session
    ask(other, "INSERT INTO rows_ VALUES (1)")
    getattr(twin, end)()
    ask(other, "INSERT INTO rows_ VALUES (2)")
    getattr(other, "rollback" if end == "commit" else "commit")()
    other.close()
    assert rows(original) == (0 if end == "commit" else 2)


def test_a_copy_in_an_atomic_block_fails_once_the_session_is_gone(alias: str) -> None:
    """As a copy of Django's does: half of what the block did is lost."""
    original = wrapper_of(alias)
    with transaction.atomic(alias):
        ask(original, "INSERT INTO rows_ VALUES (1)")
        twin = copy.copy(original)
    original.close()
    with pytest.raises(Exception, match="atomic block"):
        rows(twin)


def test_cloning_for_a_copy_ends_the_sessions_on_its_database(alias: str) -> None:
    """The copy has settings of its own, and other options; the database is the same."""
    original = wrapper_of(alias)
    assert rows(original) == 0
    session = original.connection
    twin = original.copy()
    twin.settings_dict["OPTIONS"] = {"timeout" if twin.vendor == "sqlite" else "connect_timeout": 7}
    twin.creation.clone_test_db(suffix="1", verbosity=0)
    try:
        assert rows(original) == 0
        assert original.connection is not session
    finally:
        twin.creation.destroy_test_db(suffix="1", verbosity=0)


@pytest.mark.parametrize("name", [":memory:", "file:memory_of_copies?mode=memory&cache=shared"])
def test_database_in_memory_outlives_what_is_done_to_a_copy(make_alias: MakeAlias, name: str) -> None:
    """It is not pooled: its only handle is all there is of it."""
    alias = make_alias("poollife.backends.sqlite3", NAME=name)
    original = wrapper_of(alias)
    ask(original, "CREATE TABLE rows_ (number INTEGER PRIMARY KEY)")
    twin = copy.copy(original)
    twin.settings_dict = copy.deepcopy(twin.settings_dict)
    twin.settings_dict["NAME"] = "elsewhere"
    twin.creation_class(twin).set_as_test_mirror({"NAME": "elsewhere, too"})
    assert isinstance(original.connection, sqlite3.Connection)
    assert rows(original) == 0
    original._close()


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True])
def test_a_copy_in_a_child_does_not_use_the_parents_session(entry: dict[str, Any], bare: bool) -> None:
    report = run_program("corners", "copy_in_a_child", entry, bare)
    report["child"].pop("inherited")  # a bare fork runs no hook
    assert report == {"child": {"own session": True, "status": 0}, "same session": True}


def test_copies_of_what_hangs_on_a_wrapper_end_nothing(alias: str) -> None:
    """Such as its features and its operations: they lead to the wrapper itself."""
    original = cast(PooledMixin, wrapper_of(alias))
    leave_something(original)
    for name in ("client", "creation", "features", "introspection", "ops", "validation"):
        assert copy.copy(getattr(original, name)).connection is original
    gc.collect()
    assert has_it_still(original)
