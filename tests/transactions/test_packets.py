"""The packets of a transaction: with ``lazy_begin``, and as Django begins it, on each driver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from django.core.handlers.base import BaseHandler
from django.db import connections, transaction
from django.http import HttpResponse

from poollife import auto_close_db
from poollife.drivers.mysql.transactions import LONGEST
from tests.conftest import MakeAlias
from tests.kit.backends import do
from tests.support.tap import Tap
from tests.transactions.conftest import WAYS, Pair, Way

pytestmark = pytest.mark.slow


def update(alias: str) -> None:
    do(alias, "UPDATE things SET number = 5 WHERE id = 1")


def select_and_update(alias: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, "SELECT name FROM things WHERE id = 1")
        update(alias)


def nested_update(alias: str) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        update(alias)


def empty(alias: str) -> None:
    with transaction.atomic(using=alias):
        pass


def two_savepoints(alias: str) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias), transaction.atomic(using=alias):
        update(alias)


def nested_update_behind_a_select(alias: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, "SELECT name FROM things WHERE id = 1")
        with transaction.atomic(using=alias):
            update(alias)


def nested_empty(alias: str) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        pass


def atomic_request(alias: str) -> None:
    """A view with one SELECT, as Django's handler calls it with ATOMIC_REQUESTS."""
    settings = connections.settings[alias]
    with patch.dict(settings, ATOMIC_REQUESTS=True):
        BaseHandler().make_view_atomic(partial(view, alias))()


def view(alias: str) -> HttpResponse:
    do(alias, "SELECT name FROM things WHERE id = 1")
    return HttpResponse()


def rolled_back(alias: str) -> None:
    with transaction.atomic(using=alias):
        update(alias)
        transaction.set_rollback(True, using=alias)


#: Packets: with lazy_begin, of Django with MySQL, and of Django with PostgreSQL.
PACKETS: dict[Callable[[str], None], tuple[int, int, int]] = {
    select_and_update: (3, 5, 4),
    nested_update: (3, 6, 5),
    two_savepoints: (4, 8, 7),
    nested_update_behind_a_select: (5, 7, 6),
    empty: (0, 3, 0),
    nested_empty: (2, 5, 4),
    atomic_request: (2, 4, 3),
    rolled_back: (2, 4, 3),
    update: (1, 1, 1),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("program", PACKETS, ids=lambda program: program.__name__)
def test_transaction_takes_fewer_packets(
    way: Way, program: Callable[[str], None], make_alias: MakeAlias, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(way.server)
    tap = Tap(server)
    with tap.proxy:
        pair = Pair(way, server, make_alias, PORT=str(tap.proxy.port))
        counts = []
        for alias in (pair.lazy, pair.stock):
            connections[alias].close()
            with auto_close_db():
                program(alias)  # warm
                with tap.listening() as heard:
                    program(alias)
            counts.append(len(heard))
            connections[alias].close()
    lazy, *stock = PACKETS[program]
    assert counts == [lazy, stock[way.server != "mariadb"]]


@pytest.mark.parametrize("way", [way for way in WAYS if way.server == "mariadb"], ids=str)
def test_long_statement_has_a_packet_of_its_own(way: Way, make_alias: MakeAlias, mariadb: Any) -> None:
    """The server takes packets up to a limit."""
    tap = Tap(mariadb)
    with tap.proxy:
        alias = Pair(way, mariadb, make_alias, PORT=str(tap.proxy.port)).lazy
        connections[alias].close()
        with auto_close_db():
            do(alias, "SELECT 1")  # what made the table may have cost the session its initialisation
        counts = []
        for length in (LONGEST - 1000, LONGEST + 1):
            with auto_close_db(), tap.listening() as heard, transaction.atomic(using=alias):
                do(alias, f"SELECT LENGTH('{'x' * length}')")
            counts.append(len(heard))
        connections[alias].close()
    assert counts == [2, 3]
