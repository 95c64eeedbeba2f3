"""Invariant 3 with each driver: nothing of one borrower reaches the next."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.db import DatabaseError, InterfaceError, connections, transaction

from tests.kit.backends import BACKENDS, ask, do
from tests.kit.conftest import Bed
from tests.kit.description import Backend

CASES = [
    pytest.param(backend, kind, id=f"{backend}-{kind}") for backend in BACKENDS for kind in backend.leaves
]


@pytest.mark.parametrize(("backend", "kind"), CASES)
def test_state_of_a_borrower_is_gone_for_the_next(backend: Backend, kind: str, bed: Bed) -> None:
    left = backend.leaves[kind]
    connection = connections[bed.alias]
    if bed.server and "kit_other" in left.leave[0]:
        with suppress(Exception):
            bed.server.execute("CREATE ROLE kit_other")
    before = ask(bed.alias, left.ask)
    assert before == left.clean
    connection.close()
    with suppress(DatabaseError):
        do(bed.alias, *left.leave)
    connection.close()
    after = ask(bed.alias, left.ask)
    connection.close()
    assert after == left.clean


def test_clean_statement_causes_no_reset(bed: Bed) -> None:
    connection = connections[bed.alias]
    before = bed.pool.resets, bed.pool.closed
    for statement in bed.backend.clean:
        do(bed.alias, statement)
        connection.close()
    assert (bed.pool.resets, bed.pool.closed) == before


def test_borrower_that_leaves_state_gets_another_or_a_reset_session(bed: Bed) -> None:
    connection = connections[bed.alias]
    resets, closed = bed.pool.resets, bed.pool.closed
    do(bed.alias, *next(iter(bed.backend.leaves.values())).leave)
    connection.close()
    assert bed.pool.resets == resets + 1
    assert bed.pool.closed == closed + (not bed.backend.resets)


HALF_READ = [
    pytest.param(backend, how, id=f"{backend}-{how}") for backend in BACKENDS for how in backend.half_read
]


@pytest.mark.parametrize(("backend", "how"), HALF_READ)
def test_half_read_result_does_not_reach_the_next_borrower(backend: Backend, how: str, bed: Bed) -> None:
    connection = connections[bed.alias]
    connection.ensure_connection()
    kept = backend.half_read[how](connection)
    connection.close()
    for _ in range(3):
        assert ask(bed.alias, "SELECT 40 + 2") == 42
        connection.close()
    assert bed.pool.out == 0
    del kept


def test_autocommit_that_was_switched_off_is_on_for_the_next(bed: Bed) -> None:
    connection = connections[bed.alias]
    session = bed.session()
    connection.set_autocommit(False)
    do(bed.alias, "INSERT INTO kit VALUES (5, 'five')")
    connection.close()
    assert (bed.session(), ask(bed.alias, "SELECT COUNT(*) FROM kit")) == (session, 1)
    do(bed.alias, "INSERT INTO kit VALUES (6, 'six')")
    with transaction.atomic(using=bed.alias):
        do(bed.alias, "INSERT INTO kit VALUES (7, 'seven')")
    connection.close()
    assert (bed.session(), ask(bed.alias, "SELECT COUNT(*) FROM kit")) == (session, 3)
    connection.close()


def test_mark_on_the_driver_connection_does_not_reach_the_next_borrower(bed: Bed) -> None:
    connection = connections[bed.alias]
    bed.driver.has_time_zone = True
    connection.close()
    assert not hasattr(bed.driver, "has_time_zone")
    connection.close()


def test_cursor_does_not_outlive_its_lease(bed: Bed) -> None:
    connection = connections[bed.alias]
    connection.ensure_connection()
    cursor, of_django = connection.connection.cursor(), connection.cursor()
    of_django.execute("SELECT 1")
    connection.close()
    with pytest.raises(Exception, match="went back to the pool"):
        cursor.execute("SELECT 1")
    with pytest.raises(InterfaceError, match="went back to the pool"):
        of_django.fetchall()
    raw = bed.driver
    connection.close()
    with pytest.raises(Exception, match="went back to its pool"):
        raw.commit()
