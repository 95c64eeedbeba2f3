"""``poollife.testing`` and ``poollife.pytest``: a test that leaves a connection out fails, and says why."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, SimpleTestCase, TestCase, TransactionTestCase

from poollife import PooledThreadPoolExecutor, testing
from poollife.pools import leaks
from poollife.testing import GivesBackMixin, gives_back
from servers import MariaDB, OracleStandIn, PostgreSQL
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, Busy, connection_id, out
from tests.support.counting import pool_of
from tests.support.docs_site.runner import Runner, new_runner
from tests.support.handlers import site

BASES = [unittest.TestCase, TestCase, TransactionTestCase, unittest.IsolatedAsyncioTestCase]


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    return make_alias()


@pytest.fixture(autouse=True)
def _nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "RETURN_WAIT", 0.05)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """Its thread lives on, as an application's do."""
    with ThreadPoolExecutor(1, "left") as executor:
        yield executor


def complaints(base: type, test: Callable[[Any], Any], aliases: set[str]) -> list[str]:
    """Run it as the only test of such a class."""

    class Case(GivesBackMixin, base):  # type: ignore[misc]  # any of them
        databases = aliases

        def test(self) -> None:
            test(self)

    result = unittest.TestResult()
    Case("test").run(result) if base is unittest.TestCase else unittest.TestSuite([Case("test")]).run(result)
    assert result.testsRun == 1
    assert result.errors == []
    return [text for _, text in result.failures]


# --- in TestCases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_what_a_thread_has_left_fails_the_test(base: type, alias: str, executor: ThreadPoolExecutor) -> None:
    def test(case: Any) -> None:
        executor.submit(connection_id, alias).result()

    (text,) = complaints(base, test, {alias})
    assert "AssertionError: A connection was left out:\n" in text
    assert f"Pool {alias!r}: thread left_0 borrowed it and has it still:\n" in text
    assert 'tests/support/borrowing.py", line ' in text
    assert "    hold(alias)" in text


@pytest.mark.parametrize("base", BASES)
def test_what_django_keeps_is_not_left_out(base: type, alias: str) -> None:
    """The connection of the test's own thread, in atomic blocks or not."""

    def test(case: Any) -> None:
        connection_id(alias)
        with transaction.atomic(using=alias):
            connection_id(alias)

    assert complaints(base, test, {alias}) == []
    assert pool_of(alias).checkouts >= 1


@pytest.mark.parametrize("base", BASES)
def test_wrappers_of_the_tests_own(base: type, alias: str) -> None:
    kept: list[Any] = []

    def test(case: Any) -> None:
        kept.append(connections[alias].copy())
        kept[-1].ensure_connection()

    (text,) = complaints(base, test, {alias})
    assert "thread MainThread borrowed it" in text
    kept.pop().close()


def test_one_that_nobody_has_any_more_is_none(alias: str) -> None:
    """A reference cycle, which the collector finds."""

    def test(case: Any) -> None:
        connections[alias].copy().ensure_connection()

    assert complaints(SimpleTestCase, test, {alias}) == []
    assert out(alias) == 0


def test_what_was_out_before_is_somebody_elses(alias: str, executor: ThreadPoolExecutor) -> None:
    executor.submit(connection_id, alias).result()
    assert complaints(unittest.TestCase, lambda case: None, {alias}) == []


def test_threads_that_have_ended_leave_nothing(alias: str) -> None:
    def test(case: Any) -> None:
        thread = threading.Thread(target=connection_id, args=(alias,))
        thread.start()
        thread.join()

    assert complaints(unittest.TestCase, test, {alias}) == []


def test_clean_ups_come_first(alias: str) -> None:
    def test(case: Any) -> None:
        busy = Busy(alias)
        thread = threading.Thread(target=busy.work)
        case.addCleanup(thread.join)
        case.addCleanup(busy.go_on.set)
        thread.start()
        assert busy.begun.wait(PATIENCE)

    assert complaints(unittest.TestCase, test, {alias}) == []


def test_who_is_about_to_give_back_is_waited_for(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "RETURN_WAIT", PATIENCE)
    busy = Busy(alias)
    thread = threading.Thread(target=busy.work)

    def test(case: Any) -> None:
        thread.start()
        assert busy.begun.wait(PATIENCE)
        threading.Timer(0.05, busy.go_on.set).start()

    assert complaints(unittest.TestCase, test, {alias}) == []
    thread.join()


def test_several_are_told_in_their_order(alias: str) -> None:
    with ThreadPoolExecutor(2, "several") as executor:
        both = threading.Barrier(2)

        def borrow() -> None:
            both.wait()
            connection_id(alias)

        def test(case: Any) -> None:
            for each in [executor.submit(borrow), executor.submit(borrow)]:
                each.result()

        (text,) = complaints(unittest.TestCase, test, {alias})
    assert "2 connections were left out:" in text
    assert text.count("thread several_") == 2


def test_a_request_is_named(alias: str, executor: ThreadPoolExecutor) -> None:
    from contextvars import copy_context

    def view(request: HttpRequest) -> HttpResponse:
        executor.submit(copy_context().run, connection_id, alias).result()
        return HttpResponse()

    def test(case: Any) -> None:
        assert Client().get("/view").status_code == 200

    with site(view=view):
        (text,) = complaints(TestCase, test, {alias})
    assert "GET /view in thread left_0 borrowed it" in text


def test_a_pool_that_begins_in_the_test_is_watched(make_alias: MakeAlias) -> None:
    """Its lease says who borrowed."""
    alias, busy = make_alias(), []

    def test(case: Any) -> None:
        busy.append(Busy(alias))
        thread = threading.Thread(target=busy[0].work)
        thread.start()
        assert busy[0].begun.wait(PATIENCE)

    (text,) = complaints(unittest.TestCase, test, {alias})
    busy[0].go_on.set()
    assert "    connection_id(self._alias)" in text


def test_jobs_that_give_back(alias: str) -> None:
    with PooledThreadPoolExecutor(1) as executor:

        def test(case: Any) -> None:
            executor.submit(connection_id, alias).result()

        assert complaints(unittest.TestCase, test, {alias}) == []


def test_a_skipped_test(alias: str) -> None:
    @unittest.skip("for a reason")
    class Case(GivesBackMixin, unittest.TestCase):
        def test(self) -> None:
            raise AssertionError

    result = unittest.TestResult()
    Case("test").run(result)
    assert [reason for _, reason in result.skipped] == ["for a reason"]
    assert leaks._Tracing.wanted == 0


# --- a block ------------------------------------------------------------------------------------------------


def test_stacks_are_kept_meanwhile_only(make_alias: MakeAlias, alias: str) -> None:
    asked = make_alias(POOL={"trace": True})
    pools = [pool_of(alias), pool_of(asked)]
    kept = pools[1]._watch
    with gives_back(), gives_back():
        new = pool_of(make_alias())
        assert all(pool._watch for pool in [*pools, new])
    assert [pool._watch for pool in [*pools, new]] == [None, kept, None]


def test_an_error_in_the_block_is_not_replaced(alias: str, executor: ThreadPoolExecutor) -> None:
    def fail() -> None:
        with gives_back():
            executor.submit(connection_id, alias).result()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert leaks._Tracing.wanted == 0


# --- pytest's -----------------------------------------------------------------------------------------------

CONFTEST = """
import django

pytest_plugins = ["poollife.pytest"]
django.setup()
"""
TESTS = """
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

pytestmark = pytest.mark.usefixtures("gives_back")
executor = ThreadPoolExecutor(1, "shop")


def query():
    connection.ensure_connection()
    connection.connection.cursor().close()


def test_good():
    query()


def test_bad():
    executor.submit(query).result()


def test_good_again():
    query()
"""


@pytest.fixture
def runner(
    mariadb: MariaDB, postgresql: PostgreSQL, oracle: OracleStandIn, tmp_path: Path
) -> Iterator[Runner]:
    with new_runner(mariadb, postgresql, oracle, tmp_path) as runner:
        yield runner


@pytest.mark.slow
def test_the_fixture(runner: Runner) -> None:
    runner.file("conftest.py", CONFTEST)
    options = ("-c", runner.file("pytest.ini", "[pytest]"), "-p", "no:django", "-p", "no:cacheprovider")
    arguments = ("-m", "pytest", "-q", *options, runner.file("test_shop.py", TESTS))
    with pytest.raises(AssertionError) as caught:  # it failed, and this is what it printed
        runner.python(*arguments)
    printed = str(caught.value.args[0])
    assert "3 passed, 1 error" in printed
    assert "ERROR at teardown of test_bad" in printed
    assert "A connection was left out:" in printed
    assert "Pool 'default': thread shop_0 borrowed it and has it still:" in printed
    assert ", in query\n" in printed
