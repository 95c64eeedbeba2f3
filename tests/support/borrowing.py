"""Borrowing and looking who has what, for the tests of threads and tasks."""

from __future__ import annotations

import queue
import threading
from typing import Any

from django.db import connections, transaction
from MySQLdb.cursors import SSCursor

from poollife.pools.live import live_pools
from servers import MariaDB
from tests.support.programs.databases import hold

PATIENCE = 30.0


class Failure(Exception):
    """Of the work's own."""


class TornDown(BaseException):
    """Comes from outside, and is no ``Exception``."""


def connection_id(alias: str) -> int:
    """Hold a connection, and ask which."""
    hold(alias)
    return ask_id(alias)


def ask_id(alias: str) -> int:
    """One SELECT, as people make it, and which session it ran in: as the driver says, without a question."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        number: int = connections[alias].connection.thread_id()
        return number


def session_of(alias: str) -> int:
    """One SELECT, and the session that it ran in, which the driver tells without a question."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        number: int = connections[alias].connection.thread_id()
        return number


def sql(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


def variable(alias: str, name: str = "left") -> object:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT @{name}")
        return cursor.fetchone()[0]


class Keeper:
    """A thread in the middle of a job: it has a session, and keeps it until it is let go."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._go_on = threading.Event()
        self._taken: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()
        #: The session's number.
        self.session = self._taken.get(timeout=PATIENCE)

    def let_go(self) -> None:
        self._go_on.set()
        self._thread.join(PATIENCE)

    def _keep(self) -> None:
        hold(self._alias)
        sql(self._alias, "SET @kept = 1")
        self._taken.put(session_of(self._alias))
        self._go_on.wait(PATIENCE)
        connections[self._alias].close()


def insert(alias: str) -> None:
    """Hold a connection, and insert one row into the table that ``make_log`` made."""
    hold(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO log VALUES (1)")


def leave_a_transaction(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    insert(alias)


def leave_autocommit_off(alias: str) -> None:
    connections[alias].set_autocommit(False)
    insert(alias)


kept: list[Any] = []


def leave_unread_rows(alias: str) -> None:
    connections[alias].ensure_connection()
    cursor = connections[alias].connection.cursor(SSCursor)
    cursor.execute("SELECT seq FROM seq_1_to_1000")
    kept.append(cursor)  # dropped, it would read them


def make_log(mariadb: MariaDB, alias: str) -> None:
    mariadb.execute(f"CREATE TABLE {database(alias)}.log (number INT) ENGINE=InnoDB")


def rows(mariadb: MariaDB, alias: str) -> int:
    """How many rows of the log others see."""
    ((count,),) = mariadb.execute(f"SELECT COUNT(*) FROM {database(alias)}.log")
    return int(count)


def out(alias: str) -> int:
    """How many connections did not come back by themselves: nobody looks for those of dead threads."""
    return sum(pool.out for pool in live_pools.strong_references() if pool.key.alias == alias)


def sessions(mariadb: MariaDB, alias: str) -> set[int]:
    """The server's own list."""
    return {session.id for session in mariadb.sessions() if session.db == database(alias)}


def database(alias: str) -> Any:
    return connections[alias].settings_dict["NAME"]


class Busy:
    """Sync code that borrows, and goes on until it is let go; or the other way round."""

    def __init__(self, alias: str, *, borrows_late: bool = False) -> None:
        self._alias = alias
        self._borrows_late = borrows_late
        self.begun, self.go_on = threading.Event(), threading.Event()

    def work(self) -> None:
        if not self._borrows_late:
            connection_id(self._alias)
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        if self._borrows_late:
            connection_id(self._alias)


def run(thread: threading.Thread) -> None:
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
