"""Invariant 2 for ``auto_close_db``: it returns what it borrowed, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
import unittest
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase

from poollife import auto_close_db, pool_stats
from servers import MariaDB
from tests.support.borrowing import (
    Failure,
    connection_id,
    insert,
    make_log,
    out,
    rows,
)
from tests.support.forms import FORMS, KINDS, Body, Job, by_name, every_form, every_kind
from tests.support.handlers import Exchange, site, wsgi

pytestmark = pytest.mark.usefixtures("_nothing_stays_current")


@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
@every_form
def test_connection_that_was_borrowed_outside_stays(
    alias: str, form: Callable[[Body], Any], fails: bool
) -> None:
    def body() -> None:
        assert connection_id(alias) == before
        if fails:
            raise Failure

    before, raw = connection_id(alias), connections[alias].connection
    with pytest.raises(Failure) if fails else nullcontext():
        form(body)
    assert connections[alias].connection is raw
    assert (connection_id(alias), out(alias), pool_stats()[alias]["checkouts"]) == (before, 1, 1)


@pytest.mark.parametrize("inner", KINDS, ids=by_name)
@pytest.mark.parametrize("outer", KINDS, ids=by_name)
def test_an_inner_one_gives_back_its_own_alone(
    make_pool: Callable[[], str], inner: Callable[[Body], Any], outer: Callable[[Body], Any]
) -> None:
    of_outer, of_inner = make_pool(), make_pool()

    def inside() -> tuple[int, int]:
        return connection_id(of_outer), connection_id(of_inner)

    def around() -> None:
        before = connection_id(of_outer)
        seen = inner(inside)
        assert seen[0] == before
        assert (out(of_outer), out(of_inner)) == (1, 0)
        assert inner(inside) == seen
        assert (connection_id(of_outer), out(of_outer), out(of_inner)) == (before, 1, 0)
        connection_id(of_inner)  # now it is the outer one's own
        inner(inside)
        assert (out(of_outer), out(of_inner)) == (1, 1)

    outer(around)
    assert (out(of_outer), out(of_inner)) == (0, 0)


@pytest.mark.parametrize("fails", [False, True], ids=["commit", "rollback"])
@every_form
def test_a_transaction_around_it_goes_on(
    alias: str, mariadb: MariaDB, form: Callable[[Body], Any], fails: bool
) -> None:
    make_log(mariadb, alias)
    try:
        with transaction.atomic(using=alias):
            insert(alias)
            raw = connections[alias].connection
            form(lambda: insert(alias))
            assert connections[alias].connection is raw
            assert (out(alias), rows(mariadb, alias)) == (1, 0)
            if fails:
                raise Failure
    except Failure:
        pass
    assert rows(mariadb, alias) == (0 if fails else 2)
    assert pool_stats()[alias]["checkouts"] == 1


@every_form
def test_an_inner_failure_leaves_the_transaction_around_it_to_its_owner(
    alias: str, mariadb: MariaDB, form: Callable[[Body], Any]
) -> None:
    make_log(mariadb, alias)

    def body() -> None:
        with transaction.atomic(using=alias):  # a savepoint
            insert(alias)
            raise Failure

    with transaction.atomic(using=alias):
        insert(alias)
        with pytest.raises(Failure):
            form(body)
        assert connections[alias].in_atomic_block
        insert(alias)
    assert rows(mariadb, alias) == 2


@every_kind
def test_an_open_transaction_that_it_leaves_to_its_caller_stays(
    alias: str, mariadb: MariaDB, form: Callable[[Body], Any]
) -> None:
    """What a setUp does for its tearDown."""
    make_log(mariadb, alias)
    around = transaction.atomic(using=alias)
    form(around.__enter__)
    insert(alias)
    assert (out(alias), rows(mariadb, alias)) == (1, 0)
    around.__exit__(None, None, None)
    assert rows(mariadb, alias) == 1


@pytest.mark.parametrize("inner", KINDS, ids=by_name)
@pytest.mark.parametrize("outer", KINDS, ids=by_name)
def test_and_becomes_its_callers_own(
    alias: str, mariadb: MariaDB, inner: Callable[[Body], Any], outer: Callable[[Body], Any]
) -> None:
    make_log(mariadb, alias)
    around = transaction.atomic(using=alias)

    def caller() -> None:
        inner(around.__enter__)
        insert(alias)
        assert out(alias) == 1
        around.__exit__(None, None, None)

    outer(caller)
    assert (out(alias), rows(mariadb, alias)) == (0, 1)


@every_kind
def test_or_its_requests(alias: str, form: Callable[[Body], Any]) -> None:
    around = transaction.atomic(using=alias)

    def view(request: HttpRequest) -> HttpResponse:
        form(around.__enter__)
        around.__exit__(None, None, None)
        return HttpResponse(str(out(alias)))

    with site(view=view):
        response = wsgi()
        assert (b"".join(response), out(alias)) == (b"1", 0)
        response.close()


def test_djangos_test_case_is_not_disturbed(alias: str, mariadb: MariaDB) -> None:
    make_log(mariadb, alias)
    seen = []

    class Case(TestCase):
        databases = {alias}

        @classmethod
        def setUpTestData(cls) -> None:
            insert(alias)

    def make_test(form: Callable[[Body], Any]) -> Callable[[unittest.TestCase], None]:
        def test(self: unittest.TestCase) -> None:
            def body() -> int:
                insert(alias)
                return connection_id(alias)

            assert connection_id(alias) == form(body) == connection_id(alias)
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM log")
                seen.append((cursor.fetchone()[0], rows(mariadb, alias)))

        return test

    for form in FORMS:
        setattr(Case, f"test_{form.__name__}", make_test(form))
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert not result.errors + result.failures, result.errors + result.failures
    assert seen == [(2, 0)] * len(FORMS)
    assert (out(alias), rows(mariadb, alias)) == (0, 0)


@pytest.mark.parametrize("under", ["wsgi", "asgi"])
@every_form
def test_in_a_view_it_gives_back_its_own_and_the_request_the_rest(
    make_pool: Callable[[], str], form: Callable[[Body], Any], under: str
) -> None:
    of_request, of_inner = make_pool(), make_pool()

    def view(request: HttpRequest) -> HttpResponse:
        before = connection_id(of_request)
        assert form(lambda: (connection_id(of_request), connection_id(of_inner)))[0] == before
        assert (out(of_request), out(of_inner)) == (1, 0)
        connection_id(of_inner)
        return HttpResponse(str(connection_id(of_request) == before))

    async def visit() -> None:
        exchange = Exchange()
        assert await exchange.head() == 200
        assert (out(of_request), out(of_inner)) == (0, 0)
        assert await exchange.body() == b"True"

    with site(view=view):
        if under == "asgi":
            asyncio.run(visit())
        else:
            response = wsgi()
            assert (response.status_code, out(of_request), out(of_inner)) == (200, 0, 0)
            response.close()


@every_kind
def test_context_variables_pass_through_it(form: Callable[[Body], Any]) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("outside")

    def body() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    assert (form(body), variable.get()) == ("outside", "inside")


def test_recursion(alias: str) -> None:
    taken = []

    @auto_close_db
    def down(depth: int) -> int:
        taken.append(out(alias))
        connection_id(alias)
        if depth:
            assert down(depth - 1) == depth - 1
            assert out(alias) == 1
        return depth

    assert (down(10), out(alias)) == (10, 0)
    assert taken == [0] + [1] * 10
    assert pool_stats()[alias]["checkouts"] == 1


# --- kinds --------------------------------------------------------------------------------------------------


def plain(first: int, *, second: str = "") -> str:
    """A docstring."""
    return f"{first}{second}"


def generating(first: int, *, second: str = "") -> Iterator[str]:
    """A docstring."""
    yield f"{first}{second}"


async def asynchronous(first: int, *, second: str = "") -> str:
    """A docstring."""
    return f"{first}{second}"


async def generating_async(first: int, *, second: str = "") -> AsyncIterator[str]:
    """A docstring."""
    yield f"{first}{second}"


IS: list[Callable[[object], bool]] = [
    inspect.isfunction,
    inspect.isgeneratorfunction,
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
]


@pytest.mark.parametrize("wrap", [auto_close_db, auto_close_db()], ids=["bare", "with parentheses"])
@pytest.mark.parametrize("function", [plain, generating, asynchronous, generating_async])
def test_it_is_what_it_wraps(function: Any, wrap: Any) -> None:
    wrapped = wrap(function)
    assert [each(wrapped) for each in IS] == [each(function) for each in IS]
    assert inspect.signature(wrapped) == inspect.signature(function)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(wrapped, name) == getattr(function, name)
    assert wrapped.__wrapped__ is function


def test_so_are_static_and_class_methods() -> None:
    attributes = vars(Job)
    assert isinstance(attributes["static_below"], staticmethod)
    assert isinstance(attributes["of_class_below"], classmethod)
    assert Job.static_below.__name__ == "static_below"


@pytest.mark.parametrize(
    "thing", [Job, 1, "text", property(lambda self: 1)], ids=["class", "number", "text", "property"]
)
@pytest.mark.parametrize("wrap", [auto_close_db, auto_close_db()], ids=["bare", "with parentheses"])
def test_what_is_no_function_is_refused(wrap: Any, thing: Any) -> None:
    with pytest.raises(TypeError, match="auto_close_db wraps functions, not"):
        wrap(thing)
