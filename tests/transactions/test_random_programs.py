"""Random programs: what they leave and raise is the same with ``lazy_begin`` and without.

``POOLLIFE_EXAMPLES=2000 pytest tests/transactions/test_random_programs.py`` runs as many for each driver.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import pytest
from django.db import connections, transaction
from hypothesis import HealthCheck, Phase, given, settings

from poollife import auto_close_db
from tests.transactions.conftest import Pair

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("POOLLIFE_EXAMPLES", "40"))

NUMBERS = st.integers(1, 5)
STATEMENTS = st.one_of(
    st.builds("INSERT INTO things (id, name, number) VALUES ({0}, 'name {0}', 0)".format, NUMBERS),
    st.builds("UPDATE things SET number = number + 1 WHERE id >= {}".format, NUMBERS),
    st.builds("DELETE FROM things WHERE id = {}".format, NUMBERS),
    st.builds("SELECT name, number FROM things WHERE id <= {} ORDER BY id FOR UPDATE".format, NUMBERS),
    st.sampled_from(
        [
            "SELECT COUNT(*) FROM things",
            "SELECT nothing FROM things",
            "SELECT FROM WHERE",
            "INSERT INTO things (name) VALUES (NULL)",
            "/* why */ UPDATE things SET number = 0",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "UPDATE things SET number = 9; SELECT 1",
            "COMMIT",
            "ROLLBACK",
            "BEGIN",
        ]
    ),
)
HAND_ENDS = st.sampled_from(["commit", "rollback"])
ENDS = st.sampled_from(["commit", "commit", "raise", "set_rollback"])
#: Outside of blocks only: a block that loses its connection raises another error with a pool.
CLOSE = st.tuples(st.just("close"))
PROGRAMS = st.lists(
    CLOSE
    | st.recursive(
        st.tuples(st.just("run"), STATEMENTS),
        lambda steps: st.one_of(
            st.tuples(st.just("block"), st.lists(steps, max_size=4), ENDS, st.booleans()),
            st.tuples(st.just("durable"), st.lists(steps, max_size=3), ENDS, st.just(True)),
            st.tuples(
                st.just("by hand"), st.lists(steps, max_size=4), st.sampled_from(["commit", "rollback"])
            ),
        ),
        max_leaves=12,
    ),
    min_size=1,
    max_size=5,
)


class Undone(Exception):
    """Ends a block."""


class Run:
    """A run of a program: what each of its steps returns or raises."""

    def __init__(self, alias: str) -> None:
        self.alias, self.wrapper = alias, connections[alias]
        self.seen: list[Any] = []

    def steps(self, steps: list[Any]) -> None:
        for step in steps:
            try:
                getattr(self, step[0].replace(" ", "_"))(*step[1:])
            except Undone:
                raise
            except Exception as error:
                name = self.wrapper.settings_dict["NAME"]
                # Django closes a connection whose savepoint is gone. A pool raises another error after it.
                closed = self.wrapper.closed_in_transaction
                error_seen = type(error).__name__, str(error).replace(name, "DB")
                self.seen.append("closed" if closed else error_seen)

    def run(self, sql: str) -> None:
        with self.wrapper.cursor() as cursor:
            cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else None
            self.seen.append((rows, cursor.rowcount))

    def block(self, steps: list[Any], end: str, savepoint: bool, durable: bool = False) -> None:
        try:
            with transaction.atomic(using=self.alias, savepoint=savepoint, durable=durable):
                self.steps(steps)
                transaction.on_commit(lambda: self.seen.append("committed"), using=self.alias)
                if end == "set_rollback":
                    transaction.set_rollback(True, using=self.alias)
                if end == "raise":
                    raise Undone
        except Undone:
            self.seen.append("undone")

    def durable(self, steps: list[Any], end: str, savepoint: bool) -> None:
        self.block(steps, end, savepoint, durable=True)

    def by_hand(self, steps: list[Any], end: str) -> None:
        self.wrapper.set_autocommit(False)
        try:
            self.steps(steps)
            getattr(self.wrapper, end)()
        finally:
            self.wrapper.rollback()
            self.wrapper.set_autocommit(True)

    def close(self) -> None:
        self.wrapper.close()


def outcome(alias: str, program: list[Any]) -> Any:
    """Return what a program returns, raises and leaves."""
    run = Run(alias)
    with auto_close_db():
        try:
            run.steps(program)
        except Undone:
            run.seen.append("not caught")
        run.wrapper.close()
    with auto_close_db():
        run.steps([("run", "SELECT id < 1000, name, number FROM things ORDER BY name")])
        run.wrapper.close()
    return run.seen


def test_random_programs(pair: Pair) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(PROGRAMS)
    def check(program: list[Any]) -> None:
        for alias in pair.both:
            connections[alias].close()
            del connections[alias]  # a program may have left its wrapper in any state
        pair.reset()
        for alias in pair.both:
            connections[alias].close()
        stock, lazy = (outcome(alias, program) for alias in pair.both)
        assert lazy == stock

    check()
