"""Invariant 7 with each driver: dead sessions are replaced, not delivered."""

from __future__ import annotations

import select

import pytest
from django.db import DatabaseError, connections, transaction

from poollife import auto_close_db
from tests.kit.backends import SERVED, ask, do
from tests.kit.conftest import Bed

each_with_a_server = pytest.mark.parametrize("backend", SERVED, ids=str)


@each_with_a_server
def test_session_that_was_killed_while_idle_is_replaced(bed: Bed) -> None:
    session, opened = bed.session(), bed.pool.opened
    connections[bed.alias].close()
    bed.server.kill(session)
    for _ in range(10):
        assert ask(bed.alias, "SELECT 1") == 1
        connections[bed.alias].close()
    assert bed.session() != session
    assert (bed.pool.opened, bed.pool.out) == (opened + 1, 1)
    connections[bed.alias].close()


@each_with_a_server
def test_session_that_was_killed_in_use_costs_one_statement(bed: Bed) -> None:
    with auto_close_db():
        session = bed.session()
        # With something in it: otherwise it would be replaced at once.
        do(bed.alias, *next(iter(bed.backend.leaves.values())).leave)
        closed = bed.pool.closed
        bed.server.kill(session)
        with pytest.raises(bed.backend.lost):
            do(bed.alias, "INSERT INTO kit VALUES (4, 'four')")
        assert bed.pool.out == 1
    assert (bed.pool.out, bed.pool.idle, bed.pool.closed) == (0, 0, closed + 1)
    for _ in range(10):
        with auto_close_db():
            assert ask(bed.alias, "SELECT 1") == 1
            assert bed.session() != session
    assert bed.pool.out == 0


@each_with_a_server
def test_statement_after_one_that_lost_its_session_runs_in_another(bed: Bed) -> None:
    """Nothing depends on the session that was lost."""
    with auto_close_db():
        do(bed.alias, "SELECT 1")
        opened = bed.pool.opened
        for session in bed.server.sessions():
            if session.db == connections[bed.alias].settings_dict["NAME"]:
                bed.server.kill(session.id)
        with pytest.raises(bed.backend.lost):
            do(bed.alias, "SELECT 1")
        assert ask(bed.alias, "SELECT 40 + 2") == 42
        assert (bed.pool.out, bed.pool.opened) == (1, opened + 1)
    assert bed.pool.out == 0


@each_with_a_server
def test_session_that_was_killed_in_use_and_not_used_again_is_replaced(bed: Bed) -> None:
    """No borrower has met an error yet."""
    session, closed = bed.session(), bed.pool.closed
    bed.server.kill(session)
    select.select([bed.driver.guard.fd], [], [], 30)
    connections[bed.alias].close()
    assert bed.pool.out == 0
    assert bed.session() != session
    assert bed.pool.closed == closed + 1
    connections[bed.alias].close()


@each_with_a_server
def test_session_lost_in_a_transaction_fails_the_block_as_in_django(bed: Bed) -> None:
    @transaction.atomic(using=bed.alias)
    def work() -> None:
        bed.server.kill(bed.session())
        do(bed.alias, "INSERT INTO kit VALUES (4, 'four')")

    with pytest.raises(DatabaseError):
        work()
    connections[bed.alias].close()
    assert ask(bed.alias, "SELECT COUNT(*) FROM kit") == 1
    connections[bed.alias].close()


def test_driver_connection_that_its_user_closed_is_replaced(bed: Bed) -> None:
    session, closed, opened = bed.session(), bed.pool.closed, bed.pool.opened
    bed.driver.close()
    connections[bed.alias].close()
    assert (bed.pool.out, bed.pool.closed) == (0, closed + 1)
    assert ask(bed.alias, "SELECT 1") == 1
    assert bed.pool.opened == opened + 1
    assert bed.backend.server is None or bed.session() != session
    connections[bed.alias].close()
