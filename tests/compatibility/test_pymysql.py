"""``poollife.backends.mysql_pymysql``: the same invariants, with PyMySQL in mysqlclient's place."""

from __future__ import annotations

import datetime
import gc
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pymysql
import pytest
from django.db import IntegrityError, OperationalError, connections
from django.db.backends.signals import connection_created
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import FIELD_TYPE
from pymysql.cursors import Cursor, DictCursor, SSCursor, SSDictCursor

from poollife.backends.mysql_pymysql.base import CONVERSIONS
from poollife.drivers.contract import ABANDONED, HELD
from poollife.drivers.mysql.pymysql import CONNECT_TIMEOUT
from poollife.pools.pool import LeasePool
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.counting import Questions, pool_of
from tests.support.programs.running import run

ENGINE = "poollife.backends.mysql_pymysql"
ROWS = "SELECT 1 AS n UNION SELECT 2"
#: Without it each connection reads the system's certificates, which takes longer than all the rest.
QUICK = {"ssl_disabled": True}
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    """A pool of one connection: whatever is left on it, the next borrower gets."""
    return make_alias(ENGINE, OPTIONS=QUICK, POOL=ONE)


@pytest.fixture
def pool(alias: str) -> LeasePool:
    return pool_of(alias)


def ask(alias: str, sql: str = "SELECT CONNECTION_ID()", *parameters: Any) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchone()[0]


def raw(alias: str) -> Any:
    """The driver's connection."""
    connections[alias].ensure_connection()
    return connections[alias].connection


def give_back(alias: str) -> None:
    connections[alias].close()


# --- Django's backend on another driver --------------------------------------------------------------------


def test_it_is_pymysql(alias: str) -> None:
    """With mysqlclient installed, and used by others, in the same process."""
    assert isinstance(raw(alias), pymysql.connections.Connection)
    assert sys.modules["MySQLdb"] is not pymysql
    wrapper: Any = connections[alias]
    assert wrapper.Database is pymysql


@pytest.mark.parametrize(
    ("sql", "code"), [("INSERT INTO t VALUES (NULL)", 1048), ("INSERT INTO t VALUES (-1)", 4025)]
)
@pytest.mark.parametrize("many", [False, True])
def test_errors_are_classified_as_django_does(alias: str, sql: str, code: int, many: bool) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT NOT NULL CHECK (n > 0))")
        with pytest.raises(IntegrityError) as caught:
            cursor.executemany(sql, [()]) if many else cursor.execute(sql)
    assert caught.value.args[0] == code
    with pytest.raises(OperationalError, match="1305"):
        ask(alias, "SELECT no_such_function()")


def test_times_are_times(alias: str) -> None:
    assert ask(alias, "SELECT CAST('10:20:30' AS TIME)") == datetime.time(10, 20, 30)


def test_a_health_check(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(ENGINE, OPTIONS=QUICK)
    session = ask(alias)
    assert connections[alias].is_usable()
    mariadb.execute(f"KILL {session}")
    assert not connections[alias].is_usable()


def test_a_password_that_is_asked_for(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    password = Mock(return_value=mariadb.password)
    assert ask(make_alias(ENGINE, OPTIONS=QUICK, PASSWORD=password), "SELECT 1") == 1
    password.assert_called_once_with()


PYMYSQL_ALONE = """
import sys
sys.modules["MySQLdb"] = None  # as if it were not installed
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "poollife.backends.mysql_pymysql"}})
django.setup()
from django.db import connection
import pymysql
assert connection.Database is pymysql is sys.modules["MySQLdb"]
"""
INSTALLED = """
import pymysql
pymysql.install_as_MySQLdb()
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "poollife.backends.mysql_pymysql"}})
django.setup()
from django.db import connection
assert connection.Database is pymysql
try:
    import poollife.backends.mysql.base
except ImportError as error:
    assert "poollife.backends.mysql_pymysql" in str(error), error
else:
    raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [PYMYSQL_ALONE, INSTALLED], ids=["alone", "installed as MySQLdb"])
def test_without_mysqlclient(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True, timeout=60)


# --- invariant 1 -------------------------------------------------------------------------------------------


@pytest.fixture(params=["tcp", "tls"])
def entry(
    request: pytest.FixtureRequest, mariadb: MariaDB, new_database: Callable[[], str]
) -> dict[str, Any]:
    entry = {**mariadb.database(new_database(), via=request.param), "ENGINE": ENGINE}
    if request.param == "tls":
        assert mariadb.certificates
        return {**entry, "OPTIONS": {"ssl_ca": str(mariadb.certificates.ca), "ssl_verify_identity": True}}
    return {**entry, "OPTIONS": QUICK}


@pytest.mark.slow
def test_children_of_every_kind(entry: dict[str, Any]) -> None:
    """As with mysqlclient, in test_forks.py; what they may touch is below."""
    kinds = ["exit", "collect", "close", "query", "intrude", "fail", "exit in a transaction"]
    report = run("fork_storm", entry, 14, kinds, "")
    assert report["inherited"] == report["failures"] == report["wrong"] == []
    assert {name: after for name, (before, after) in report["sessions"].items()} == {
        name: before for name, (before, after) in report["sessions"].items()
    }
    assert report["committed"] == {"main": 8, "thread": 14}


#: Answered from what the driver knows already.
NO_IO = {
    "affected_rows",
    "character_set_name",
    "escape",
    "get_autocommit",
    "get_host_info",
    "get_proto_info",
    "get_server_info",
    "insert_id",
    "literal",
    "thread_id",
}
#: Made of guarded ones, or used by them.
COMPOSED = {"kill": (1,), "set_charset": ("utf8mb4",)}
GUARDED: dict[str, tuple[Any, ...]] = {
    "autocommit": (True,),
    "begin": (),
    "commit": (),
    "cursor": (),
    "next_result": (),
    "ping": (),
    "query": ("SELECT 1",),
    "rollback": (),
    "select_db": ("mysql",),
    "set_character_set": ("utf8mb4",),
    "show_warnings": (),
}


def test_every_method_of_the_driver_is_known() -> None:
    """A new one has to be guarded, or to be found to send and read nothing."""
    methods = {name for name, each in vars(Connection).items() if callable(each) and name[0] != "_"}
    errors = {name for name in methods if isinstance(getattr(Connection, name), type)}
    assert methods - errors == {*GUARDED, *COMPOSED, *NO_IO, "close", "connect", "write_packet"}


@pytest.fixture
def foreign(alias: str) -> Iterator[Any]:
    """A connection that thinks itself in another process than its own."""
    connection = raw(alias)
    # As the hooks of a fork leave it in a child.
    connection.lease.state, connection.guard.pid = ABANDONED, -1
    yield connection
    connection.lease.state, connection.guard.pid = HELD, os.getpid()


@pytest.mark.parametrize("name", [*GUARDED, *COMPOSED])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_guarded_method_refuses(foreign: Any, name: str, mariadb: MariaDB) -> None:
    with Questions(mariadb) as asked, pytest.raises(pymysql.InterfaceError, match="belongs to process -1"):
        getattr(foreign, name)(*(GUARDED | COMPOSED)[name])
    assert asked.count == 0


def test_a_connection_does_not_reconnect(alias: str, mariadb: MariaDB) -> None:
    """It would be another session, on a socket that no child knows of."""
    connection = raw(alias)
    with pytest.raises(pymysql.NotSupportedError, match="does not reconnect"):
        connection.connect()
    session = connection.thread_id()
    mariadb.execute(f"KILL {session}")
    with pytest.warns(DeprecationWarning, match="reconnect"), pytest.raises(pymysql.NotSupportedError):
        connection.ping(reconnect=True)


# --- invariant 3 -------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Any], object]] = {
    "execute": lambda cursor: cursor.execute("SELECT 1"),
    "executemany": lambda cursor: cursor.executemany("SELECT %s", [(1,), (2,)]),
    "callproc": lambda cursor: cursor.callproc("p"),
    "fetchone": lambda cursor: cursor.fetchone(),
    "fetchmany": lambda cursor: cursor.fetchmany(2),
    "fetchall": lambda cursor: cursor.fetchall(),
    "nextset": lambda cursor: cursor.nextset(),
    "iteration": lambda cursor: list(cursor),
}
UNBUFFERED: dict[str, Callable[[Any], object]] = {
    "read_next": lambda cursor: cursor.read_next(),
    "fetchall_unbuffered": lambda cursor: list(cursor.fetchall_unbuffered()),
    "scroll": lambda cursor: cursor.scroll(1),
}
CASES = [
    *[(kind, use) for kind in (Cursor, DictCursor, SSCursor, SSDictCursor) for use in USES],
    *[(kind, use) for kind in (SSCursor, SSDictCursor) for use in UNBUFFERED],
]


@pytest.mark.parametrize(("kind", "use"), CASES)
def test_a_cursor_dies_with_its_lease(alias: str, mariadb: MariaDB, kind: type, use: str) -> None:
    cursor = raw(alias).cursor(kind)
    cursor.execute(ROWS)
    give_back(alias)
    connections[alias].ensure_connection()
    with Questions(mariadb) as asked, pytest.raises(pymysql.InterfaceError, match="went back to the pool"):
        (USES | UNBUFFERED)[use](cursor)
    cursor.close()
    assert asked.count == 0


@pytest.mark.parametrize("kind", [SSCursor, SSDictCursor])
@pytest.mark.parametrize("how", ["kept", "dropped"])
def test_unread_rows_cost_the_session(alias: str, pool: LeasePool, kind: type, how: str) -> None:
    """No destructor of the driver's reads them: neither in this lease nor in the next."""
    cursor = raw(alias).cursor(kind)
    cursor.execute(ROWS)
    cursor.fetchone()
    if how == "dropped":
        del cursor
        gc.collect()
    give_back(alias)
    assert pool.idle == 0
    assert ask(alias, "SELECT 3") == 3
    cursor = 0
    gc.collect()
    assert ask(alias, "SELECT 4") == 4


def test_an_unread_result_costs_the_session(alias: str, pool: LeasePool) -> None:
    connection = raw(alias)
    with connection.cursor() as cursor:
        cursor.execute("CREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2; END")
    connection.query("CALL two()")
    give_back(alias)
    assert (pool.idle, ask(alias, "SELECT 3")) == (0, 3)


@pytest.mark.parametrize(
    "leave",
    [
        lambda connection: connection.cursor().execute("SET @left = 1"),
        lambda connection: connection.cursor().execute("SELECT GET_LOCK('left', 0)"),
        lambda connection: connection.query("USE mysql"),
        lambda connection: connection.select_db("mysql"),
        lambda connection: connection.set_character_set("latin1"),
        lambda connection: connection.begin(),
    ],
    ids=["variable", "lock", "use", "select_db", "character set", "begin"],
)
def test_a_dirty_session_is_replaced(alias: str, leave: Callable[[Any], object]) -> None:
    """PyMySQL can't reset one."""
    session = ask(alias)
    leave(raw(alias))
    give_back(alias)
    assert ask(alias) != session


@pytest.mark.parametrize("parameter", [1, "a'b\\", b"\0'", None, 1.5, datetime.date(2020, 1, 1)])
def test_a_clean_session_is_kept(alias: str, mariadb: MariaDB, parameter: Any) -> None:
    """And goes back, and out again, without a word."""
    session = ask(alias)
    ask(alias, "SELECT 1 IN (%s, %s)", 1, parameter)
    with Questions(mariadb) as asked:
        give_back(alias)
        connections[alias].ensure_connection()
    assert (asked.count, ask(alias)) == (0, session)


class Code:
    """A parameter that is code."""


def code(value: object, mapping: object) -> str:
    """What a converter of somebody's own may make of a parameter."""
    return "@left := 1"


def test_converters_of_somebodys_own_do_not_vouch(make_alias: MakeAlias) -> None:
    alias = make_alias(ENGINE, OPTIONS={**QUICK, "conv": {**CONVERSIONS, Code: code}}, POOL=ONE)
    assert ask(alias, "SELECT %s", Code()) == 1
    give_back(alias)
    assert ask(alias, "SELECT @left") is None
    give_back(alias)
    closed = pool_of(alias).closed
    assert ask(alias, "SELECT %s", "plain") == "plain"
    give_back(alias)
    assert pool_of(alias).closed == closed


def add_converter(connection: Any, **_: Any) -> None:
    connection.connection.encoders[Code] = code


def test_converters_that_a_receiver_adds_do_not_vouch(alias: str, pool: LeasePool) -> None:
    """They stay. A session in which they have made code would be reset, if it could be."""
    connection_created.connect(add_converter)
    try:
        assert ask(alias, "SELECT %s", Code()) == 1
    finally:
        connection_created.disconnect(add_converter)
    give_back(alias)
    assert (pool.resets, pool.closed, ask(alias, "SELECT @left")) == (1, 1, None)


def test_converters_that_a_borrower_adds_cost_the_session(alias: str, pool: LeasePool) -> None:
    raw(alias)
    add_converter(connections[alias])
    assert ask(alias, "SELECT %s", Code()) == 1
    give_back(alias)
    assert (pool.resets, pool.closed, ask(alias, "SELECT @left")) == (0, 1, None)


#: What a borrower may set in the driver.
DRIVERS_STATE: dict[str, Callable[[Any], object]] = {
    "a decoder": lambda connection: connection.decoders.update({FIELD_TYPE.LONG: str}),
    "decoders": lambda connection: setattr(connection, "decoders", {}),
    "an encoder": lambda connection: connection.encoders.__setitem__(int, lambda value, mapping: "7"),
    "encoders": lambda connection: setattr(connection, "encoders", {str: connection.encoders[str]}),
    "cursorclass": lambda connection: setattr(connection, "cursorclass", DictCursor),
    "encoding": lambda connection: setattr(connection, "encoding", "utf_16"),
    "use_unicode": lambda connection: setattr(connection, "use_unicode", False),
}


def look(alias: str) -> list[Any]:
    """What depends on all that."""
    with raw(alias).cursor() as cursor:
        answers = []
        for parameter in 1, "\u00fc":
            try:
                cursor.execute("SELECT %s, LENGTH(%s), CAST(1 AS UNSIGNED)", [parameter, parameter])
                answers.append(cursor.fetchall())
            except pymysql.ProgrammingError as error:
                answers.append(error.args[0])
        return answers


@pytest.mark.parametrize("kind", DRIVERS_STATE)
def test_nothing_is_left_in_the_driver(alias: str, kind: str) -> None:
    before = look(alias)
    DRIVERS_STATE[kind](raw(alias))
    assert look(alias) != before
    give_back(alias)
    DRIVERS_STATE[kind](raw(alias))
    give_back(alias)
    assert look(alias) == before


#: In Shift JIS Python writes a yen sign as a backslash.
YEN = "\u00a5' , @left := 1 #"


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [("SELECT '\u00a5', ' , @left := 1 /*'*/", []), ("SELECT %s", [YEN]), ("SELECT %(yen)s", {"yen": YEN})],
    ids=["text", "parameter", "by name"],
)
def test_a_yen_sign_is_a_backslash_in_some_encodings(
    make_alias: MakeAlias, sql: str, parameters: Any
) -> None:
    """So what looks like a string is code for the server. PyMySQL escapes first, and encodes then."""
    alias = make_alias(ENGINE, OPTIONS={**QUICK, "charset": "sjis"}, POOL=ONE)
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, parameters)
    assert ask(alias, "SELECT @left") == 1  # or this test would prove nothing
    give_back(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, parameters)
    give_back(alias)
    assert ask(alias, "SELECT @left") is None
    give_back(alias)
    session = ask(alias)
    assert ask(alias, "SELECT %s", "plain") == "plain"
    give_back(alias)
    assert ask(alias) == session


def test_an_idle_connection_works_for_nobody(alias: str) -> None:
    connection = raw(alias)
    give_back(alias)
    with pytest.raises(pymysql.InterfaceError, match="went back to its pool"):
        connection.query("SELECT 1")


# --- invariant 2, without any hook -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Cursor, DictCursor, SSCursor])
def test_one_who_works_by_hand_keeps_it(alias: str, pool: LeasePool, kind: type) -> None:
    """What comes after a cursor of the driver's own connection can't be known."""

    def by_hand() -> int:
        with raw(alias).cursor(kind) as cursor:
            cursor.execute("SELECT 1")
            assert len(cursor.fetchall()) == 1
        raw(alias).commit()
        ask(alias)
        return pool.out

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(by_hand).result() == 1


# --- invariant 7 -------------------------------------------------------------------------------------------


def test_a_ping_of_the_pool_is_a_statement(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """A Galera node that refuses all statements answers the driver's own ping."""
    alias = make_alias(ENGINE, OPTIONS=QUICK, POOL={"pre_ping": True})
    session = ask(alias)
    give_back(alias)
    with Questions(mariadb) as asked:
        assert ask(alias) == session
    assert asked.count == 1 + 1


@pytest.mark.parametrize("own", [None, 1, 3600])
def test_a_server_that_never_says_hello(make_alias: MakeAlias, own: int | None) -> None:
    """Of the driver's own ``connect_timeout`` it is none of the business, once it has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {**QUICK, "connect_timeout": 3600 if own == 1 else 1, "read_timeout": own}
        port = str(silent.getsockname()[1])
        alias = make_alias(ENGINE, OPTIONS=options, PORT=port, POOL={"outage_wait": 0})
        with pytest.raises(OperationalError, match="2013"):
            ask(alias)
    assert pool_of(alias).out == 0


@pytest.mark.slow
@pytest.mark.parametrize("own", [None, 3600])
def test_after_that_a_statement_may_take_its_time(make_alias: MakeAlias, own: int | None) -> None:
    alias = make_alias(ENGINE, OPTIONS={**QUICK, "connect_timeout": 1, "read_timeout": own})
    assert ask(alias, "SELECT 1 + SLEEP(2)") == 1
    assert raw(alias)._read_timeout == own


def test_borrower_that_has_switched_autocommit_off_leaves_no_trace(alias: str) -> None:
    """PyMySQL keeps the mode in an attribute, beside the server's flag."""
    connections[alias].set_autocommit(False)
    ask(alias, "SELECT 1")
    driver = raw(alias)
    connections[alias].close()
    ask(alias, "SELECT 1")
    assert raw(alias) is driver
    assert (driver.autocommit_mode, bool(driver.get_autocommit())) == (True, True)


# --- private names of PyMySQL ------------------------------------------------------------------------------


def test_the_private_names(alias: str) -> None:
    """Its socket, and whether something is to be read."""
    connection = raw(alias)
    assert connection._sock.fileno() == connection.guard.fd
    cursor = connection.cursor(SSCursor)
    cursor.execute(ROWS)
    result: Any = connection._result
    assert type(result) is MySQLResult
    assert (result.unbuffered_active, result.has_next) == (True, None)
    assert "if self.unbuffered_active:" in inspect.getsource(MySQLResult.__del__)
    cursor.fetchall()
    assert not result.unbuffered_active
    cursor.close()
    connection.query("SELECT 1")
    assert not connection._result.has_next
    assert connection._read_timeout == connection._sock.gettimeout() is None
    connection._read_timeout = 5
    connection.query("SELECT 1")
    assert connection._sock.gettimeout() == 5
    assert inspect.signature(Connection).parameters["connect_timeout"].default == CONNECT_TIMEOUT
