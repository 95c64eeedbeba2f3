"""The same with pytest-django's marks and fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from tests.support.ecosystem_site.desk.models import Customer, Ticket
from tests.support.ecosystem_site.desk.tests import first_after_a_reset, names, open_ticket
from tests.support.ecosystem_site.desk.web import get, get_all, get_and_stay

again = pytest.mark.parametrize("number", [1, 2])


@again
@pytest.mark.django_db
def test_mark(number: int) -> None:
    assert "mine" not in names()
    open_ticket()


@again
def test_db(db: None, client: Client, number: int) -> None:
    assert "mine" not in names()
    Ticket.objects.all().delete()
    open_ticket()
    for _ in range(3):
        assert client.get("/titles").content == b"mine"


@pytest.mark.django_db
def test_rows_of_the_session() -> None:
    assert "of the session" in names()


@again
def test_transactional_db(transactional_db: None, client: Client, number: int) -> None:
    assert "mine" not in names()
    Ticket.objects.all().delete()
    open_ticket()
    connection.close()
    assert client.get("/titles").content == b"mine"
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(Ticket.objects.count).result() == 1
        thread.submit(lambda: connection.close()).result()


@pytest.mark.django_db(transaction=True, reset_sequences=True)
def test_reset_sequences() -> None:
    first_after_a_reset()


@again
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_serialized_rollback(number: int) -> None:
    assert Ticket.objects.count() == connection._test_serialized_contents.count('"desk.ticket"')  # type: ignore[attr-defined]  # made by the runner
    Ticket.objects.all().delete()


@again
def test_live_server(live_server: Any, transactional_db: None, number: int) -> None:
    Customer.objects.all().delete()
    open_ticket()
    assert get(f"{live_server.url}/titles") == "mine"
    get(f"{live_server.url}/open?title=yours")
    assert get_all([f"{live_server.url}/stream"] * 8) == ["mine yours "] * 8
    assert get_and_stay(f"{live_server.url}/titles") == "mine yours"
    assert Ticket.objects.count() == 2


def test_numbers_of_queries(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        names()


def test_commit_hooks(db: None, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        transaction.on_commit(lambda: None)
    assert len(callbacks) == 1


def test_without_a_mark() -> None:
    """Also where the pool has an idle connection, or this thread has one still."""
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        names()
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        connection.ensure_connection()


@pytest.fixture
def unblocked(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@again
def test_unblocked(unblocked: None, number: int) -> None:
    names()


@pytest.mark.django_db
def test_fail() -> None:
    open_ticket()
    pytest.fail("on purpose")
