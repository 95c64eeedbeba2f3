"""A transaction that begins with its first statement does what Django's own does, in fewer packets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, transaction

from poollife import auto_close_db
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.transactions.cases import (
    EVERYWHERE,
    FILES,
    HOOKS,
    INSERT,
    OF_DIALECT,
    OF_DRIVER,
    Step,
    is_atomic,
    outcome,
    run,
)
from tests.transactions.conftest import MYSQLCLIENT, WAYS, Pair, statements

pytestmark = pytest.mark.slow


def test_each_driver_is_tested() -> None:
    """psycopg2 needs a process of its own: see test_psycopg2.py."""
    assert [way.name for way in WAYS][:2] == ["mysqlclient", "PyMySQL"]
    assert [way.name for way in WAYS][2:] in (["psycopg"], ["psycopg2"])


class Undone(Exception):
    """Ends a block with a rollback."""


def in_block(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    try:
        with transaction.atomic(using=alias):
            for step in steps:
                yield outcome(alias, step)
            if not commits:
                raise Undone
    except Exception as error:
        yield type(error).__name__


def in_nested_block(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    try:
        with transaction.atomic(using=alias):
            yield from in_block(alias, steps, commits)
            yield outcome(alias, "SELECT COUNT(*) FROM things")
    except Exception as error:
        yield type(error).__name__


def by_hand(alias: str, steps: tuple[Step, ...], commits: bool) -> Iterator[Any]:
    """Two transactions without Django's blocks."""
    transaction.set_autocommit(False, using=alias)
    try:
        for _ in range(2):
            for step in steps:
                yield outcome(alias, step)
            yield outcome(alias, transaction.commit if commits else transaction.rollback)
    finally:
        yield outcome(alias, transaction.rollback)
        yield outcome(alias, partial(transaction.set_autocommit, True))


def report(pair: Pair, alias: str, form: Any, steps: tuple[Step, ...], commits: bool) -> list[Any]:
    """Return all that can be seen of a program, with the state of the transaction after each step."""
    HOOKS.clear()
    found: list[Any] = []
    with auto_close_db(), statements(alias) as captured:
        found += [(each, pair.state(alias), is_atomic(alias)[1:]) for each in form(alias, steps, commits)]
        found.append((list(HOOKS), pair.state(alias)))
    savepoints = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
    texts = [str(query["sql"]) for query in captured.captured_queries]
    found.append([text for text in texts if not text.startswith(savepoints)])
    connections[alias].close()
    found.append(outcome(alias, "SELECT id < 1000, name, number FROM things"))
    connections[alias].close()
    return found


@pytest.mark.parametrize(
    ("form", "commits"),
    [(in_block, True), (in_block, False), (in_nested_block, True), (by_hand, True), (by_hand, False)],
    ids=["commit", "rollback", "nested", "commit by hand", "rollback by hand"],
)
def test_cases(pair: Pair, form: Any, commits: bool, tmp_path: Path) -> None:
    """Same rows, counts, errors with their codes and texts, logs, and state of the transaction."""
    FILES["rows"] = tmp_path / "rows"
    FILES["rows"].write_text("from a file\t9\n")
    if pair.way.server == "mariadb":
        for alias in pair.both:
            do(alias, "CREATE PROCEDURE two_results() BEGIN SELECT 1; SELECT name FROM things; END")
    differing = {}
    cases = {**EVERYWHERE, **OF_DIALECT[pair.way.server], **OF_DRIVER[pair.way.name]}
    assert len(cases) > 70
    for name, steps in cases.items():
        pair.reset()
        stock, lazy = (report(pair, alias, form, steps, commits) for alias in pair.both)
        if stock != lazy:
            differing[name] = [both for both in zip_longest(stock, lazy) if both[0] != both[1]]
    assert differing == {}


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_session_that_dies_before_the_first_statement(pair: Pair, commits: bool) -> None:
    """The statement fails, and so does the COMMIT of a block that goes on after that."""

    def killed(alias: str) -> str:
        wrapper = connections[alias]
        driver = wrapper.connection
        pair.server.kill(driver.thread_id() if wrapper.vendor == "mysql" else driver.info.backend_pid)
        with pytest.raises(DatabaseError) as caught:
            run(alias, "SELECT 1")
        return caught.typename

    found = []
    for alias in pair.both:
        with auto_close_db():
            run(alias, "SELECT 1")
            found.append(list(in_block(alias, (killed,), commits)))
        connections[alias].close()
    stock, lazy = found
    assert lazy == stock


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "options", "cure"),
    [
        ("mysql", {"multi_statements": False}, "multi_statements"),
        ("mysql_pymysql", {}, "CLIENT.MULTI_STATEMENTS"),
        ("postgresql", {"server_side_binding": True}, "server_side_binding"),
        ("sqlite3", {}, "takes no packet"),
    ],
)
def test_drivers_that_cannot_are_refused(
    engine: str, options: dict[str, Any], cure: str, make_alias: MakeAlias
) -> None:
    alias = make_alias(f"poollife.backends.{engine}", OPTIONS=options, POOL={"lazy_begin": True}, NAME="any")
    with pytest.raises(ImproperlyConfigured, match=rf"POOL\['lazy_begin'\].*{cure}"):
        connections[alias].ensure_connection()


def test_autocommit_that_is_off_in_settings(mariadb: Any, make_alias: MakeAlias) -> None:
    """Each statement is in a transaction, which the next borrower does not see."""
    alias = Pair(MYSQLCLIENT, mariadb, make_alias, AUTOCOMMIT=False).lazy
    connections[alias].commit()
    connections[alias].close()
    with auto_close_db():
        do(alias, INSERT)
        assert not connections[alias].get_autocommit()
    with auto_close_db():
        assert ask(alias, "SELECT COUNT(*) FROM things") == 0
        do(alias, INSERT)
        connections[alias].commit()
        do(alias, "INSERT INTO things (name) VALUES ('five')")
    with auto_close_db():
        assert ask(alias, "SELECT COUNT(*) FROM things") == 1


def test_transaction_of_an_earlier_borrower_is_not_begun_by_the_next(
    mariadb: Any, make_alias: MakeAlias
) -> None:
    """A borrower that switches autocommit off and sends nothing leaves nothing."""
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    connections[pair.lazy].close()
    with auto_close_db():
        transaction.set_autocommit(False, using=pair.lazy)
    with auto_close_db():
        do(pair.lazy, INSERT)
    with auto_close_db():
        assert ask(pair.lazy, "SELECT COUNT(*) FROM things") == 1


def test_begin_of_a_borrowers_own_is_committed(mariadb: Any, make_alias: MakeAlias) -> None:
    pair = Pair(MYSQLCLIENT, mariadb, make_alias)
    for alias in pair.both:
        with auto_close_db():
            do(alias, "BEGIN", INSERT)
            transaction.set_autocommit(False, using=alias)
            connections[alias].commit()
        connections[alias].close()
        assert ask(alias, "SELECT COUNT(*) FROM things") == 1
