"""What test suites do with Django's test cases. Some of the tests fail, as they should."""

from __future__ import annotations

import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Max
from django.db.transaction import TransactionManagementError
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

from poollife import pool_stats
from tests.support.ecosystem_site.desk.models import Customer, Ticket
from tests.support.ecosystem_site.desk.web import get, get_all, get_and_stay


def names() -> list[str]:
    return list(Customer.objects.order_by("id").values_list("name", flat=True))


def open_ticket(title: str = "mine") -> Ticket:
    customer, _ = Customer.objects.get_or_create(name="mine")
    return Ticket.objects.create(customer=customer, title=title)


class InTransactions(TestCase):
    """Each test is rolled back; what the class has set up stays until its end."""

    customer: Customer

    @classmethod
    def setUpTestData(cls) -> None:
        Ticket.objects.all().delete()
        cls.customer = Customer.objects.create(name="of the class")

    def setUp(self) -> None:
        assert Ticket.objects.count() == 0
        assert names()[-1] == "of the class"

    def test_write(self) -> None:
        open_ticket()
        assert Ticket.objects.count() == 1

    def test_change_what_the_class_has(self) -> None:
        self.customer.name = "changed"
        self.customer.save()
        self.customer.refresh_from_db()
        assert names()[-1] == "changed"

    def test_delete_what_the_class_has(self) -> None:
        self.customer.delete()

    def test_requests_see_the_transaction(self) -> None:
        open_ticket()
        for _ in range(3):
            assert self.client.get("/titles").content == b"mine"
            assert self.client.get("/stream").getvalue() == b"mine "
        self.client.get("/open", {"title": "yours"})
        assert self.client.get("/titles").content == b"mine yours"

    async def test_async_requests_see_the_transaction(self) -> None:
        await Ticket.objects.acreate(customer=self.customer, title="mine")
        for _ in range(3):
            response = await self.async_client.get("/titles")
            assert response.content == b"mine"

    def test_numbers_of_queries(self) -> None:
        with self.assertNumQueries(2):
            names()
            self.client.get("/titles")

    def test_commit_hooks(self) -> None:
        called = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: called.append(True))
        assert (len(callbacks), called) == (1, [True])

    def test_an_error_in_a_savepoint(self) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            Customer.objects.create(name="of the class")
        assert Ticket.objects.filter(customer=self.customer).count() == 0

    def test_an_error_without_a_savepoint(self) -> None:
        with pytest.raises(IntegrityError):
            Customer.objects.create(name="of the class")
        with pytest.raises(TransactionManagementError):
            names()

    def test_another_thread_is_outside(self) -> None:
        open_ticket()
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(Ticket.objects.filter(title="mine").count).result() == 0
            thread.submit(lambda: connection.close()).result()


class Committing(TransactionTestCase):
    """Each test commits, and the tables are flushed after it."""

    def setUp(self) -> None:
        Customer.objects.all().delete()

    def test_write(self) -> None:
        open_ticket()
        connection.close()
        assert self.client.get("/titles").content == b"mine"

    def test_write_again(self) -> None:
        self.test_write()

    def test_threads(self) -> None:
        def work(number: int) -> None:
            with transaction.atomic():
                Customer.objects.create(name=f"number {number}")
            connection.close()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(12)))
        assert sorted(names()) == sorted(f"number {number}" for number in range(12))

    def test_commit_hooks(self) -> None:
        called = []
        with transaction.atomic():
            transaction.on_commit(lambda: called.append(True))
            assert called == []
        assert called == [True]

    def test_leave_a_transaction_open(self) -> None:
        connection.set_autocommit(False)
        open_ticket()

    def test_leave_a_result_unread(self) -> None:
        from MySQLdb.cursors import SSCursor

        connection.ensure_connection()
        cursor = connection.connection.cursor(SSCursor)
        cursor.execute("SELECT seq, REPEAT('x', 20000) FROM seq_1_to_300")
        assert cursor.fetchone()[0] == 1
        cursor.close()

    def test_leave_a_connection_in_a_thread(self) -> None:
        thread = threading.Thread(target=open_ticket)
        thread.start()
        thread.join()
        assert names() == ["mine"]


def first_after_a_reset() -> None:
    """Numbers begin anew: after those of rows that an earlier run of a kept database, or a fixture, left."""
    highest = Customer.objects.aggregate(highest=Max("id"))["highest"] or 0
    assert Customer.objects.create(name="first of all").pk == highest + 1


class Sequences(TransactionTestCase):
    """The second of two tests in one process sees that the numbers began anew."""

    reset_sequences = True

    def test_first(self) -> None:
        first_after_a_reset()

    def test_first_again(self) -> None:
        self.test_first()


class InitialRows(TransactionTestCase):
    """What migrations have written is there again."""

    serialized_rollback = True

    def setUp(self) -> None:
        contents: str = connection._test_serialized_contents  # type: ignore[attr-defined]  # made by the runner
        assert Ticket.objects.count() == contents.count('"desk.ticket"')
        Customer.objects.all().delete()

    def test_rows(self) -> None:
        open_ticket()

    def test_rows_again(self) -> None:
        open_ticket()


class Live(LiveServerTestCase):
    """A server in a thread, with a thread for each request."""

    @classmethod
    def tearDownClass(cls) -> None:
        """Afterwards nobody but this thread has a connection, whatever its clients still do."""
        super().tearDownClass()
        deadline = time.monotonic() + 10
        while sum(stats["out"] for stats in pool_stats().values()) > 1:
            assert time.monotonic() < deadline, pool_stats()
            time.sleep(0.01)

    def setUp(self) -> None:
        Customer.objects.all().delete()
        assert get(f"{self.live_server_url}/titles") == ""

    def test_both_see_what_the_other_writes(self) -> None:
        open_ticket()
        assert get(f"{self.live_server_url}/titles") == "mine"
        get(f"{self.live_server_url}/open?title=yours")
        assert get(f"{self.live_server_url}/stream") == "mine yours "
        assert Ticket.objects.count() == 2

    def test_many_at_once(self) -> None:
        get_all([f"{self.live_server_url}/open?title=one"] + [f"{self.live_server_url}/titles"] * 15)
        assert get_all([f"{self.live_server_url}/titles"] * 16) == ["one"] * 16

    def test_a_client_that_stays(self) -> None:
        open_ticket()
        assert get_and_stay(f"{self.live_server_url}/titles") == "mine"

    def test_a_client_that_stays_again(self) -> None:
        self.test_a_client_that_stays()


class LiveAgain(Live):
    """Another server, after the first has ended."""


class LiveAndStuck(LiveServerTestCase):
    """The server ends while one of its threads writes to a client that does not read."""

    def test_endless(self) -> None:
        Customer.objects.all().delete()
        assert get_and_stay(f"{self.live_server_url}/endless", 2) == "00"

    def test_after_it(self) -> None:
        Customer.objects.all().delete()
        open_ticket()
        assert get(f"{self.live_server_url}/titles") == "mine"


class Failing(TestCase):
    """None of these goes well."""

    def test_fail(self) -> None:
        open_ticket()
        self.fail("on purpose")

    def test_error_in_a_block(self) -> None:
        with transaction.atomic():
            open_ticket()
            raise OperationalError("on purpose")

    def test_error_of_the_servers(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    def test_close(self) -> None:
        open_ticket()
        connection.close()
        names()

    @unittest.expectedFailure
    def test_expected(self) -> None:
        open_ticket()
        self.fail("on purpose")

    @unittest.skip("on purpose")
    def test_skipped(self) -> None:
        open_ticket()


class FailingSetUp(TestCase):
    """The class fails before its tests."""

    @classmethod
    def setUpTestData(cls) -> None:
        open_ticket()
        raise OperationalError("on purpose")

    def test_never(self) -> None:
        open_ticket()


class FailingLater(TransactionTestCase):
    """These leave more behind than the others."""

    def test_fail_in_a_transaction(self) -> None:
        connection.set_autocommit(False)
        open_ticket()
        self.fail("on purpose")

    def test_fail_in_a_block(self) -> None:
        with transaction.atomic():
            open_ticket()
            self.fail("on purpose")
