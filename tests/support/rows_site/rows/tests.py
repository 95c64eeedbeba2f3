"""What test suites do to their databases: they write, flush and migrate them."""

from __future__ import annotations

import os
import signal
import threading
import unittest
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import InterfaceError, connections
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined]

from tests.support.rows_site.rows import early
from tests.support.rows_site.rows.models import Row
from tests.support.rows_site.settings import DATABASES, SITE

#: The aliases that show another one's database, and those that have one of their own.
MIRRORS: dict[str, str] = SITE["mirrors"]
OWN = [alias for alias in DATABASES if alias not in MIRRORS]
PARALLEL: bool = SITE["parallel"]


def where(alias: str) -> str:
    """The database that this thread's connection has really got."""
    sqlite = connections[alias].vendor == "sqlite"
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA database_list" if sqlite else "SELECT DATABASE()")
        name: str = cursor.fetchone()[-1]
    return name or "memory"


def names(alias: str) -> list[str]:
    """All rows, in order."""
    return [row.name for row in Row.objects.using(alias).order_by("id")]


class Rows(TransactionTestCase):
    """Each test starts with no rows, in a test database."""

    databases = "__all__"

    def setUp(self) -> None:
        for alias in connections:
            assert where(alias) in SITE["expected"][alias]
            if connections[alias].vendor == "mysql":
                assert where(alias) == connections[alias].settings_dict["NAME"]
        for alias in OWN:
            assert names(alias) == []


class InTransactions(Rows, TestCase):
    """Writes that the end of the test rolls back."""

    def test_write(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="one")
            Row.objects.using(alias).create(name="two")
            Row.objects.using(alias).filter(name="one").update(name="three")
            assert names(alias) == ["three", "two"]

    def test_delete(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="one")
            Row.objects.using(alias).all().delete()
            assert names(alias) == []


class Committing(Rows):
    """Writes that everybody sees, until the end of the test flushes the tables."""

    def test_write(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="committed")
            connections[alias].close()
            assert names(alias) == ["committed"]
        for mirror, alias in MIRRORS.items():
            assert names(mirror)[0] == "committed"
            Row.objects.using(mirror).create(name=f"through {mirror}")
            assert names(alias)[-1] == f"through {mirror}"

    def test_clear(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="committed")
            Row.objects.using(alias).all().delete()
            assert names(alias) == []


class Flushing(Rows):
    """The most dangerous command of all."""

    def test_flush(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="committed")
            call_command("flush", database=alias, interactive=False, verbosity=0)
            assert names(alias) == []


class Migrating(Rows):
    """Drops the table, and makes it again."""

    def test_back_and_forth(self) -> None:
        for alias in OWN:
            Row.objects.using(alias).create(name="committed")
            call_command("migrate", "rows", "zero", database=alias, verbosity=0)
            assert "rows_row" not in connections[alias].introspection.table_names()
            call_command("migrate", database=alias, verbosity=0)
            assert names(alias) == []


class InThreads(Rows):
    """Threads have connections of their own."""

    def write(self, alias: str) -> str:
        Row.objects.using(alias).create(name="from a thread")
        return where(alias)

    def test_new_thread(self) -> None:
        found = []

        def work() -> None:
            for alias in OWN:
                found.append(self.write(alias))
                connections[alias].close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [where(alias) for alias in OWN]
        assert [names(alias) for alias in OWN] == [["from a thread"] for _ in OWN]

    def test_thread_older_than_the_database(self) -> None:
        """It had a connection to the real database, and never gave it back."""
        if not (SITE["look_early"] and early.thread_is_here()):
            raise unittest.SkipTest("no such thread in this process")
        for alias in OWN:
            assert early.thread.submit(self.write, alias).result() == where(alias)
            assert names(alias) == ["from a thread"]


class OldCursors(Rows, TestCase):
    """A cursor that was opened on the real database."""

    def test_refuse(self) -> None:
        for cursor in early.cursors.values():
            with pytest.raises(InterfaceError):
                cursor.execute("INSERT INTO rows_row (name, note) VALUES ('stray', '')")


class WithoutDatabases(SimpleTestCase):
    """Such a test has no database at all."""

    def test_queries_are_refused(self) -> None:
        for alias in connections:
            with pytest.raises(DatabaseOperationForbidden):
                Row.objects.using(alias).create(name="forbidden")
            with pytest.raises(DatabaseOperationForbidden):
                connections[alias].connect()


class Meeting(Rows):
    """Two tests that wait for each other, so that neither worker gets all of the work."""

    def meet(self, mode: str) -> None:
        if not PARALLEL:
            raise unittest.SkipTest("one process")
        for alias in OWN:
            Row.objects.using(alias).create(name="mine")
        # Opening it waits for the other to open it too.
        with Path(SITE["folder"], "meeting").open(mode):
            for alias in OWN:
                assert names(alias) == ["mine"]
        # Neither cleans up before both have looked.
        with Path(SITE["folder"], "parting").open(mode):
            pass


class MeetingOne(Meeting):
    def test_meet(self) -> None:
        self.meet("w")


class MeetingTwo(Meeting):
    def test_meet(self) -> None:
        self.meet("r")


class Stopping(TransactionTestCase):
    """Run alone: writes, says so, and waits for its end."""

    databases = "__all__"

    def test_wait(self) -> None:
        if not SITE["stop"]:
            raise unittest.SkipTest("only where the run is to be interrupted")
        for alias in OWN:
            Row.objects.using(alias).create(name="committed")
        with Path(SITE["folder"], "stopping").open("w") as news:
            news.write("now")
            news.flush()
            signal.pause()
        os._exit(1)
