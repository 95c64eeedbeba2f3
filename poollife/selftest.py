"""``python -m poollife.selftest ALIAS``: the guarantees, tried with a database of the project's own.

It needs DJANGO_SETTINGS_MODULE, and a user that may make a table. It makes one table, whose name begins with
``poollife_selftest_``, and drops it again. It asks before it begins.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from poollife.drivers.network import duplicate

#: The sizes of the pool that is tried: the other options are those of the alias.
SIZES = {"pool_size": 2, "max_overflow": 0, "timeout": 3.0, "outage_wait": 0.0}
#: The alias that the command adds to the settings of its own process.
ALIAS = "poollife_selftest"
#: For each vendor: a statement that leaves something in a session, a question, and its answer afterwards.
SETTINGS = {
    "mysql": ("SET @poollife_selftest = 5", "SELECT @poollife_selftest", 5),
    "postgresql": ("SET poollife.selftest = '5'", "SELECT current_setting('poollife.selftest', true)", "5"),
    "oracle": (
        "ALTER SESSION SET NLS_DATE_FORMAT = 'DD.MM.YYYY'",
        "SELECT value FROM nls_session_parameters WHERE parameter = 'NLS_DATE_FORMAT'",
        "DD.MM.YYYY",
    ),
    "sqlite": ("PRAGMA case_sensitive_like = 1", "SELECT NOT ('a' LIKE 'A')", 1),
}


class Trial(NamedTuple):
    """A part of a guarantee that is tried."""

    #: The number of the guarantee.
    number: int
    #: The sentence that is true if the trial succeeds.
    text: str
    #: The trial itself. It returns its findings as a text for people, and raises ``Failed``.
    run: Callable[[Selftest], str]
    #: True if the trial needs a database with a socket.
    needs_socket: bool = False


class Failed(Exception):
    """A guarantee that does not hold. Its text says what was found."""


class Selftest:
    """The database that is tried, and the operations that the trials share."""

    def __init__(self, alias: str) -> None:
        """Add an alias with a small pool to the settings of this process.

        :param alias: a key of ``DATABASES`` whose ENGINE is one of poollife's.
        """
        from django.db import connections

        given = connections.settings[alias]
        pool = given.get("POOL") or {}
        entry = {**given, "POOL": {**pool, **SIZES}, "TEST": dict(given.get("TEST", {}))}
        connections.settings[ALIAS] = entry
        self._connections = connections
        self.owner = os.getpid()
        self.table = f"poollife_selftest_{self.owner}"

    @property
    def wrapper(self) -> Any:
        """Django's connection of the calling thread."""
        return self._connections[ALIAS]

    @property
    def pool(self) -> Any:
        """The pool that is tried."""
        return self.wrapper.lease_pool

    def do(self, sql: str) -> None:
        """Run a statement in the connection of the calling thread."""
        with self.wrapper.cursor() as cursor:
            cursor.execute(sql)

    def ask(self, sql: str) -> Any:
        """Run a query in the connection of the calling thread, and return its first value."""
        with self.wrapper.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def rows(self) -> int:
        """Return the number of rows in the table."""
        return int(self.ask(f"SELECT COUNT(*) FROM {self.table}"))

    def session(self) -> Any:
        """Return the guarded connection that this thread borrows."""
        self.wrapper.ensure_connection()
        return self.wrapper.lease.driver

    def close(self) -> None:
        """Return the session of the calling thread."""
        self.wrapper.close()

    @contextmanager
    def table_made(self) -> Iterator[None]:
        """Have the table during the block."""
        self.do(f"CREATE TABLE {self.table} (id INT PRIMARY KEY, name VARCHAR(20))")
        try:
            self.do(f"INSERT INTO {self.table} VALUES (1, 'one')")
            self.close()
            yield
        finally:
            # A child of a trial ends by an exception, which passes through here.
            if os.getpid() == self.owner:
                self.close()
                self.do(f"DROP TABLE {self.table}")
                self.close()

    def in_child(self, work: Callable[[], None]) -> int:
        """Run something in a forked child, which then ends as any program does; return its exit status."""
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            try:
                work()
            except Exception:
                raise SystemExit(1) from None
            raise SystemExit(0)  # with all destructors
        return os.waitpid(pid, 0)[1]


def expect(what: object, text: str) -> None:
    """Fail unless something holds.

    :raises Failed: with this text.
    """
    if not what:
        raise Failed(text)


# --- the trials -----------------------------------------------------------------------------------------


def _survives_children(test: Selftest) -> str:
    """Try children that end, close their connections, and query."""
    before = test.session()

    def query() -> None:
        expect(test.ask(f"SELECT COUNT(*) FROM {test.table}") == 1, "")
        expect(test.session() is not before, "")
        test.close()

    for name, work in (("ends", lambda: None), ("closes", test.close), ("queries", query)):
        status = test.in_child(work)
        expect(status == 0, f"a child that {name} has failed (status {status})")
        expect(test.rows() == 1, f"the parent's session is damaged by a child that {name}")
    expect(test.session() is before, "the parent has another session than before")
    test.close()
    return "3 children"


def _survives_children_in_a_transaction(test: Selftest) -> str:
    from django.db import transaction

    with transaction.atomic(using=ALIAS):
        test.do(f"INSERT INTO {test.table} VALUES (2, 'two')")
        test.in_child(lambda: None)
        expect(test.rows() == 2, "the transaction has lost its row")
        transaction.set_rollback(True, using=ALIAS)
    expect(test.rows() == 1, "the row of a transaction that was rolled back is there")
    test.close()
    return "1 child"


def _returns(test: Selftest) -> str:
    from poollife import auto_close_db

    with auto_close_db():
        test.do(f"SELECT COUNT(*) FROM {test.table}")
        expect(test.pool.out == 1, "nothing was borrowed")
    expect(test.pool.out == 0, "a block that has ended keeps its session")
    with suppress(ZeroDivisionError), auto_close_db():
        test.rows()
        raise ZeroDivisionError
    expect(test.pool.out == 0, "a block that has failed keeps its session")
    return ""


def _rolls_back(test: Selftest) -> str:
    test.wrapper.set_autocommit(False)
    test.do(f"INSERT INTO {test.table} VALUES (3, 'three')")
    test.close()
    expect(test.rows() == 1, "a transaction that its borrower left open was committed")
    test.close()
    return ""


def _forgets_settings(test: Selftest) -> str:
    statement, question, left = SETTINGS[test.wrapper.vendor]
    resets, closed = test.pool.resets, test.pool.closed
    test.do(statement)
    expect(test.ask(question) == left, "the setting had no effect")
    test.close()
    for _ in range(2):
        expect(test.ask(question) != left, "the next borrower has the setting")
        test.close()
    how = "closed" if test.pool.closed > closed else "reset"
    expect(test.pool.resets > resets, "the session was neither reset nor closed")
    return f"the session was {how}"


def _keeps_the_limit(test: Selftest) -> str:
    from poollife import auto_close_db

    most: list[int] = []

    @auto_close_db
    def work(_: int) -> None:
        test.rows()
        most.append(test.pool.opened - test.pool.closed)

    with ThreadPoolExecutor(16) as executor:
        list(executor.map(work, range(64)))
    expect(max(most) <= 2, f"{max(most)} sessions were open, and 2 are allowed")
    return f"16 threads, {max(most)} of 2 sessions"


def _stays_warm(test: Selftest) -> str:
    test.rows()
    test.close()
    opened, resets, driver = test.pool.opened, test.pool.resets, test.session()
    sent = packets_sent(driver.guard.fd)
    for _ in range(10):
        test.close()
        expect(test.session() is driver, "a checkout got another session than the one that was idle")
    again = packets_sent(driver.guard.fd)
    test.close()
    expect(test.pool.opened == opened, "a checkout has opened a session, although one was idle")
    expect(test.pool.resets == resets, "a clean session was reset")
    if sent is None or again is None:
        return "10 checkouts, one session; packets can't be counted"
    expect(again == sent, f"10 checkouts have sent {again - sent} packets")
    return "10 checkouts, one session, no packet"


def packets_sent(fd: int | None) -> int | None:
    """Return how many packets of data the kernel has sent; None: it does not count them for this socket."""
    if fd is None:
        return None
    line = duplicate(fd)
    try:
        # tcpi_data_segs_out of struct tcp_info in linux/tcp.h.
        return int(struct.unpack_from("I", line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 156)[0])
    except (OSError, AttributeError, struct.error):  # not TCP, or not Linux
        return None
    finally:
        line.close()


def _refuses_in_time(test: Selftest) -> str:
    from poollife.errors import PoolTimeout
    from poollife.threads import PooledThread

    release, borrowed = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        test.rows()
        borrowed.release()
        release.wait(30)

    threads = [PooledThread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
        borrowed.acquire(timeout=30)
    try:
        test.rows()
    except PoolTimeout as error:
        return f"{error.summary.partition(': ')[2].partition('.')[0]}, after {SIZES['timeout']:.0f} s"
    finally:
        release.set()
        for thread in threads:
            thread.join()
    raise Failed("a third session was lent, where 2 are allowed")


def _replaces_dead(test: Selftest) -> str:
    test.rows()
    driver = test.session()
    test.close()
    driver.guard.shut_down()
    expect(test.rows() == 1, "wrong rows")
    expect(test.session() is not driver, "a session that had ended was delivered")
    test.close()
    return "its socket was ended"


def _recovers(test: Selftest) -> str:
    from django.db import Error

    from poollife import auto_close_db

    with suppress(Error), auto_close_db():
        test.session().guard.shut_down()
        test.rows()
    expect(test.pool.out == 0, "a session that was lost is still out")
    expect(test.rows() == 1, "wrong rows")
    test.close()
    return "its socket was ended"


TRIALS = (
    Trial(1, "children leave their parent's session alone", _survives_children),
    Trial(1, "a child leaves its parent's transaction alone", _survives_children_in_a_transaction),
    Trial(2, "a block returns its session, after an error, too", _returns),
    Trial(3, "a transaction that was left open is rolled back", _rolls_back),
    Trial(3, "a setting of one borrower does not reach the next", _forgets_settings),
    Trial(4, "no more sessions than the limit", _keeps_the_limit),
    Trial(5, "a warm checkout uses the session that is there", _stays_warm),
    Trial(6, "an exhausted pool refuses in time", _refuses_in_time),
    Trial(7, "a session that has ended while idle is replaced", _replaces_dead, needs_socket=True),
    Trial(7, "a session that ends in use costs one request", _recovers, needs_socket=True),
)


def run(test: Selftest, say: Callable[[str], object]) -> int:
    """Run all trials, and print a line for each.

    :param say: prints a line.
    :returns: the number of trials that have failed.
    """

    def line(number: object, text: str, result: str) -> None:
        say(f"{number:<3}{text:<54}{result}")

    failed = 0
    line("", "what", "result")
    with test.table_made():
        has_socket = test.session().guard.fd is not None
        test.close()
        for trial in TRIALS:
            if trial.needs_socket and not has_socket:
                result = "not tried: there is no socket"
            else:
                result, bad = _result(test, trial)
                failed += bad
            line(trial.number, trial.text, result)
    line(8, "tests never touch the real database", "not tried: it makes databases")
    return failed


def _result(test: Selftest, trial: Trial) -> tuple[str, bool]:
    """Run a trial; return its result as a text, and True if the trial has failed."""
    try:
        found = trial.run(test)
    except Exception as error:
        with suppress(Exception):
            test.close()
        text = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        return f"FAILED: {text.splitlines()[0] if text else trial.text}", True
    return f"holds{f': {found}' if found else ''}", False


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    :param arguments: of the command line. Default: those of the process.
    :returns: its exit status: 0 if all was tried and holds, 1 if not, 2 if it was not begun.
    """
    parser = argparse.ArgumentParser(prog="python -m poollife.selftest", description=__doc__.splitlines()[0])
    parser.add_argument("alias", help="a key of DATABASES")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    given = parser.parse_args(arguments)

    import django
    from django.db import connections

    from poollife.backends.mixin import PooledMixin

    django.setup()
    if given.alias not in connections.settings:
        parser.error(f"not in DATABASES: {given.alias}")
    if not isinstance(wrapper := connections[given.alias], PooledMixin) or not wrapper.pool_options.pooled:
        parser.error(f"the ENGINE of {given.alias!r} is not one of poollife's, or its POOL keeps no sessions")
    test = Selftest(given.alias)
    settings = wrapper.settings_dict
    place = f"database {settings['NAME']!r} at {settings['HOST'] or 'this machine'} ({settings['ENGINE']})"
    print(f"This makes the table {test.table} in {place}, uses up to 2 sessions, and drops the table again.")
    if not given.yes and input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        return 2
    return 1 if run(test, print) else 0


if __name__ == "__main__":
    sys.exit(main())
