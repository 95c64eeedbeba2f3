"""Invariant 3 on PostgreSQL: what the server's answer and the parameters say, beside the statement's text."""

from __future__ import annotations

import datetime
from decimal import Decimal
from ipaddress import ip_address, ip_interface
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from poollife.drivers.postgresql import connection as reader
from servers import PostgreSQL
from tests.conftest import MakeAlias
from tests.support.counting import pool_of


@pytest.fixture
def alias(make_alias: MakeAlias, postgresql: PostgreSQL) -> str:
    """A pool of one session."""
    return make_alias("poollife.backends.postgresql", server=postgresql, POOL={"pool_size": 1})


def resets_after(alias: str, statement: str, params: Any = None) -> int:
    connections[alias].ensure_connection()
    before = pool_of(alias).resets
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, params)
    connections[alias].close()
    return pool_of(alias).resets - before


class TakesAllForClean(dict[str, int]):
    """A reader that has never seen a statement that leaves something."""

    def __missing__(self, statement: str) -> int:
        return 0


@pytest.mark.parametrize(
    ("statement", "resets"),
    [
        ("CREATE TEMPORARY TABLE kept (id INT)", 1),
        ("PREPARE kept AS SELECT 1", 1),
        ("LISTEN kept", 1),
        ("DO $$ BEGIN PERFORM set_config('work_mem', '64kB', false); END $$", 1),
        ("DISCARD TEMP", 1),
        ("RESET work_mem", 1),
        ("SELECT 1", 0),
        ("SET LOCAL work_mem = '64kB'", 0),
        ("NOTIFY heard", 0),
        ("SHOW work_mem", 0),
    ],
)
def test_a_statement_that_was_misread_is_found_by_its_command_tag(
    alias: str, monkeypatch: pytest.MonkeyPatch, statement: str, resets: int
) -> None:
    monkeypatch.setattr(reader, "EFFECTS", {True: TakesAllForClean(), False: TakesAllForClean()})
    assert resets_after(alias, statement) == resets


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.5, True, None, "text", b"bytes", memoryview(b"bytes"), Decimal("1.5"), uuid4()),
        *(ip_address("127.0.0.1"), ip_address("::1"), ip_interface("10.0.0.0/8"), ip_interface("::1/64")),
        *(datetime.date(2026, 1, 1), datetime.time(12), datetime.timedelta(1)),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        ["a", "list"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_values_of_django_s_fields_leave_nothing(alias: str, value: Any) -> None:
    assert resets_after(alias, "SELECT %s", [value]) == 0
