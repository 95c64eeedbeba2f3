"""Long work keeps the connection that it began with: nothing replaces, pings or takes it in the middle.

But after a long pause, where nothing depends on it, it is looked at as one that comes from the pool.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import DatabaseError, connections, transaction

from poollife.backends.mixin import PooledMixin
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import session_of as session
from tests.support.counting import pool_of
from tests.support.programs.clock import EVERY
from tests.support.programs.databases import ask
from tests.support.programs.running import run
from tests.support.programs.states import LONG, read_half
from tests.support.web_server import eventually

#: Whoever else wants a connection has to wait, and then looks for leases that nobody has any more.
ALONE = {"pool_size": 1, "max_overflow": 0, "timeout": 0}


#: Seconds.
NEVER = 10**9

# --- management commands, on a clock that runs fast -------------------------------------------------------


@pytest.fixture
def work(
    mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that runs a command in a process of its own."""
    name = new_database()
    entry = {"ENGINE": "poollife.backends.mysql", **mariadb.database(name)}

    def work(command: str, **pool: Any) -> dict[str, Any]:
        report = run("long_work", {**entry, "POOL": {**ALONE, **pool}}, str(tmp_path), command)
        # The clock did what it is for.
        assert report["rests"] > 2
        assert report["neighbours"] == math.ceil(report["rests"] / EVERY)
        return report

    yield work
    # Its own: another test may have left one with a thread that lives on.
    eventually("all sessions end", lambda: name not in [each.db for each in mariadb.sessions()])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["migrate", "inspectdb", "dumpdata", "loaddata", "stocktake"])
def test_a_command_keeps_its_session(work: Callable[..., dict[str, Any]], command: str) -> None:
    """Although hours pass between any two statements, each of them longer than ``recycle``."""
    report = work(command, recycle=1, ping_idle=NEVER)
    first, last, later = report["sessions"]
    assert first == last
    assert report["pings"][0] == report["pings"][1]
    # The next checkout found that session too old.
    assert later != last


@pytest.mark.slow
@pytest.mark.parametrize("command", ["migrate", "stocktake"])
def test_a_ping_comes_after_the_command(work: Callable[..., dict[str, Any]], command: str) -> None:
    """Only a checkout asks whether the session is still alive."""
    report = work(command, recycle=-1, ping_idle=1)
    first, last, later = report["sessions"]
    assert first == last == later
    before, after, at_checkout = report["pings"]
    assert (after, at_checkout) == (before, before + 1)


# --- a pause between two statements -----------------------------------------------------------------------


def pause(alias: str, seconds: float) -> None:
    """Have the command's session idle for longer."""
    cast(PooledMixin, connections[alias]).lease.paused -= seconds  # type: ignore[operator, union-attr]


def test_a_session_that_died_in_a_pause_is_replaced(mariadb: MariaDB, make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ALONE, "ping_idle": 30})
    first = session(alias)
    pause(alias, 20)
    assert session(alias) == first
    assert pool_of(alias).checkouts == 1
    for query in (session, in_a_transaction):
        kill(mariadb, session(alias))
        pause(alias, 31)
        assert query(alias) not in (None, first)
    pool = pool_of(alias)
    assert (pool.out, pool.opened, pool.closed) == (1, 3, 2)


@pytest.mark.parametrize("ping_idle", [0, 30])
def test_a_daemon_whose_session_was_killed_goes_on(
    mariadb: MariaDB, make_alias: MakeAlias, ping_idle: float
) -> None:
    """However short its pause: the socket tells."""
    alias = make_alias(POOL={**ALONE, "ping_idle": ping_idle})
    for query in (session, in_a_transaction) * 2:
        kill(mariadb, session(alias))
        query(alias)
    assert (pool_of(alias).opened, pool_of(alias).out) == (5, 1)


def test_a_pause_changes_no_session_that_answers(mariadb: MariaDB, make_alias: MakeAlias) -> None:
    """What its command has left there, without knowing, is there still: the number of its last row."""
    alias = make_alias(POOL={**ALONE, "ping_idle": 30})
    run_sql(alias, "CREATE TABLE rows_ (id INT PRIMARY KEY AUTO_INCREMENT, number INT)")
    connections[alias].close()
    run_sql(alias, "INSERT INTO rows_ (number) VALUES (7)")
    pause(alias, 31)
    assert ask("SELECT LAST_INSERT_ID()", using=alias) == 1
    assert pool_of(alias).checkouts == 2


@pytest.mark.slow
def test_a_daemon_goes_on_when_its_server_has_restarted(make_alias: MakeAlias) -> None:
    with MariaDB() as server:
        server.create_database("daemon")
        alias = make_alias(server=server, NAME="daemon", POOL=ALONE)
        first = session(alias)
        server.restart()
        assert session(alias)
        assert (pool_of(alias).opened, pool_of(alias).out) == (2, 1)
        assert first
        connections[alias].close()


def test_a_session_that_broke_under_a_daemon_is_replaced_after_one_error(
    mariadb: MariaDB, make_alias: MakeAlias
) -> None:
    alias = make_alias(POOL=ALONE)
    killer = Killed(mariadb, alias)
    number = session(alias)
    thread = threading.Thread(target=killer._kill_sleeper, args=(number,))
    thread.start()
    with pytest.raises(DatabaseError):
        ask("SELECT SLEEP(60)", using=alias)
    thread.join()
    # A slot that nobody could use is there for others until then.
    assert pool_of(alias).out == 0
    assert session(alias) != number


def in_a_transaction(alias: str) -> int:
    with transaction.atomic(using=alias):
        return session(alias)


def test_in_a_pause_a_transaction_goes_on(make_alias: MakeAlias) -> None:
    """One that was begun by hand, with nothing left open but itself."""
    alias = make_alias(POOL={**ALONE, "ping_idle": 0})
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE log (id INT) ENGINE=InnoDB")
    connections[alias].close()
    transaction.set_autocommit(False, using=alias)
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO log VALUES (1)")
    assert ask("SELECT COUNT(*) FROM log", using=alias) == 1
    transaction.rollback(using=alias)
    assert ask("SELECT COUNT(*) FROM log", using=alias) == 0
    transaction.set_autocommit(True, using=alias)


def test_in_a_pause_a_transaction_of_sqlite_goes_on(make_alias: MakeAlias, tmp_path: Path) -> None:
    """It tells of one that was begun by hand."""
    NAME = str(tmp_path / "db")
    alias = make_alias("poollife.backends.sqlite3", NAME=NAME, POOL={"pool_size": 1, "ping_idle": 0})
    run_sql(alias, "CREATE TABLE log (id INT)")
    connections[alias].close()
    for statement in ("BEGIN", "INSERT INTO log VALUES (1)", "ROLLBACK"):
        run_sql(alias, statement)
    assert ask("SELECT COUNT(*) FROM log", using=alias) == 0


def run_sql(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


def leave_a_variable(alias: str) -> None:
    ask("SELECT @left := 1", using=alias)


def leave_a_cursor(alias: str) -> None:
    LEFT.append(connections[alias].cursor())


LEFT: list[Any] = []


@pytest.mark.parametrize("leave", [leave_a_variable, leave_a_cursor])
def test_in_a_pause_nothing_is_taken_that_is_still_needed(make_alias: MakeAlias, leave: Any) -> None:
    alias = make_alias(POOL={**ALONE, "ping_idle": 0})
    leave(alias)
    first = session(alias)
    assert session(alias) == first
    assert pool_of(alias).checkouts == 1
    LEFT.clear()


# --- the server ends the session in the middle of it --------------------------------------------------------

STOCK, POOLED = "django.db.backends.mysql", "poollife.backends.mysql"
#: The client's "gone away" and "lost connection", and the server's own "connection was killed".
LOST = {2006, 2013, 1927}


class Outcomes:
    """What became of each step, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def note(self, step: Callable[[], object]) -> None:
        """Take a step, and its error as Django's name for it."""
        try:
            step()
        except DatabaseError as error:
            lost = error.args and error.args[0] in LOST
            self.steps.append(f"{type(error).__name__}: {'the session is lost' if lost else error}")
        else:
            self.steps.append("went well")


def kill(server: MariaDB, number: int) -> None:
    """End a session from outside, and wait until it has gone."""
    server.execute(f"KILL {number}")
    eventually(f"session {number} ends", lambda: number not in [each.id for each in server.sessions()])


def wait_for_statement(server: MariaDB, number: int, sql: str) -> None:
    """Until a session is at it."""
    eventually(
        f"{number}: {sql}", lambda: (number, sql) in [(each.id, each.info) for each in server.sessions()]
    )


class Killed:
    """The cases: where a session is when it is killed. Each returns its number."""

    def __init__(self, server: MariaDB, alias: str) -> None:
        self.server = server
        self.alias = alias
        self.outcomes = Outcomes()

    def query(self) -> None:
        ask("SELECT COUNT(*) FROM things", using=self.alias)

    def kill(self) -> int:
        number = session(self.alias)
        kill(self.server, number)
        return number

    def between_statements(self) -> int:
        number = self.kill()
        self.outcomes.note(self.query)
        self.outcomes.note(self.query)
        return number

    def in_a_statement(self) -> int:
        number = session(self.alias)
        killer = threading.Thread(target=self._kill_sleeper, args=(number,))
        killer.start()
        self.outcomes.note(lambda: ask("SELECT SLEEP(60)", using=self.alias))
        killer.join()
        self.outcomes.note(self.query)
        return number

    def _kill_sleeper(self, number: int) -> None:
        wait_for_statement(self.server, number, "SELECT SLEEP(60)")
        kill(self.server, number)

    def in_a_block(self) -> int:
        numbers = []

        def block() -> None:
            with transaction.atomic(using=self.alias):
                self._write()
                numbers.append(self.kill())
                self.outcomes.note(self.query)
                self.outcomes.note(self.query)

        self.outcomes.note(block)
        return numbers[0]

    def in_a_block_that_does_not_notice(self) -> int:
        numbers = []

        def block() -> None:
            with transaction.atomic(using=self.alias):
                self._write()
                numbers.append(self.kill())

        self.outcomes.note(block)
        return numbers[0]

    def in_a_nested_block(self) -> int:
        numbers = []

        def inner() -> None:
            with transaction.atomic(using=self.alias):
                self._write()
                numbers.append(self.kill())
                self.query()

        def outer() -> None:
            with transaction.atomic(using=self.alias):
                self._write()
                self.outcomes.note(inner)
                self.outcomes.note(self.query)

        self.outcomes.note(outer)
        return numbers[0]

    def in_half_a_result(self) -> int:
        number = session(self.alias)
        cursor = read_half(self.alias)
        kill(self.server, number)
        self.outcomes.note(lambda: self._read(cursor))
        self.outcomes.note(self.query)
        return number

    def _read(self, cursor: Any) -> None:
        with connections[self.alias].wrap_database_errors:
            assert len(cursor.fetchall()) < LONG

    def _write(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("INSERT INTO things VALUES ()")


CASES = [name for name in vars(Killed) if name.startswith(("in_", "between_"))]


@pytest.mark.parametrize("case", CASES)
def test_a_killed_session(mariadb: MariaDB, make_alias: MakeAlias, case: str) -> None:
    """Each step ends as with stock Django, and after ``close()`` there is a new session."""
    seen = {}
    for engine in (STOCK, POOLED):
        alias = make_alias(engine)
        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE things (id INT PRIMARY KEY AUTO_INCREMENT)")
        killed = Killed(mariadb, alias)
        number = getattr(killed, case)()
        connections[alias].close()
        assert session(alias) != number
        assert ask("SELECT COUNT(*) FROM things", using=alias) == 0
        seen[engine] = killed.outcomes.steps
    stock, pooled = seen.values()
    assert pooled == stock
    assert "OperationalError: the session is lost" in pooled


def test_a_killed_session_is_not_kept(mariadb: MariaDB, make_alias: MakeAlias) -> None:
    """A slot is not lost with it."""
    alias = make_alias(POOL=ALONE)
    for _ in range(3):
        # Otherwise it would be replaced at once.
        leave_a_variable(alias)
        kill(mariadb, session(alias))
        with pytest.raises(DatabaseError):
            session(alias)
        connections[alias].close()
    session(alias)
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.opened, pool.closed) == (1, 0, 4, 3)


def kill_query(server: MariaDB, number: int) -> None:
    """End a statement from outside; its session lives on."""
    server.execute(f"KILL QUERY {number}")


class KilledQuery(Killed):
    """The same where only the statement is killed, by somebody or by ``max_statement_time``."""

    def in_a_slow_statement(self) -> int:
        number = session(self.alias)
        slow = "SELECT COUNT(*) FROM seq_1_to_1000000 AS a, seq_1_to_1000000 AS b"
        killer = threading.Thread(target=self._kill_slow, args=(number, slow))
        killer.start()
        self.outcomes.note(lambda: ask(slow, using=self.alias))
        killer.join()
        self.outcomes.note(self.query)
        return number

    def in_a_slow_statement_of_a_block(self) -> int:
        numbers = []

        def block() -> None:
            with transaction.atomic(using=self.alias):
                self._write()
                numbers.append(self.in_a_slow_statement())
                raise DatabaseError("on purpose")

        self.outcomes.note(block)
        return numbers[0]

    def in_half_a_result_of_many_rows(self) -> int:
        number = session(self.alias)
        cursor = read_half(self.alias)
        kill_query(self.server, number)
        self.outcomes.note(lambda: self._read(cursor))
        return number

    def in_half_a_result_that_is_left(self) -> int:
        number = session(self.alias)
        self.cursor = read_half(self.alias)
        kill_query(self.server, number)
        return number

    def _kill_slow(self, number: int, slow: str) -> None:
        wait_for_statement(self.server, number, slow)
        kill_query(self.server, number)


@pytest.mark.parametrize("case", [name for name in vars(KilledQuery) if name.startswith("in_")])
def test_a_killed_statement(mariadb: MariaDB, make_alias: MakeAlias, case: str) -> None:
    """Each step ends as with stock Django; the next borrower finds a session that is in order."""
    seen = {}
    for engine in (STOCK, POOLED):
        alias = make_alias(engine)
        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE things (id INT PRIMARY KEY AUTO_INCREMENT)")
        killed = KilledQuery(mariadb, alias)
        number = getattr(killed, case)()
        connections[alias].close()
        # Only what may still be on its way in a pooled session is a reason to end it.
        assert (session(alias) == number) == (engine == POOLED and case != "in_half_a_result_that_is_left")
        for answer in range(5):
            assert ask(f"SELECT {answer}", using=alias) == answer
        assert ask("SELECT COUNT(*) FROM things", using=alias) == 0
        seen[engine] = killed.outcomes.steps
    assert seen[POOLED] == seen[STOCK]
