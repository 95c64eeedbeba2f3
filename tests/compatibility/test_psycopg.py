"""PostgreSQL: what only its server, and its drivers, have."""

from __future__ import annotations

import gc
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from psycopg.adapt import AdaptersMap
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from poollife.drivers.effects import LEAVES
from poollife.drivers.postgresql.psycopg3_connection import GuardedConnection
from poollife.drivers.postgresql.statements import EFFECTS
from poollife.pools.pool import LeasePool
from servers import PacketProxy, PostgreSQL
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.support.counting import pool_of
from tests.support.web_server import eventually

ENGINE = "poollife.backends.postgresql"


@pytest.fixture
def alias(make_alias: MakeAlias, postgresql: PostgreSQL) -> str:
    """A pool of one session."""
    return make_alias(ENGINE, server=postgresql, POOL={"pool_size": 1, "max_overflow": 0, "timeout": 5})


@pytest.fixture
def pool(alias: str) -> LeasePool:
    """The pool of the alias."""
    return pool_of(alias)


def session(alias: str) -> Any:
    return ask(alias, "SELECT pg_backend_pid()")


def give_back(alias: str) -> None:
    connections[alias].close()


# --- packets ---------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(make_alias: MakeAlias, postgresql: PostgreSQL) -> Iterator[tuple[str, PacketProxy]]:
    """An alias whose packets are counted."""
    with PacketProxy(postgresql.host, postgresql.port) as proxy:
        alias = make_alias(ENGINE, server=postgresql, PORT=str(proxy.port))
        do(alias, "CREATE TABLE kit (id INT PRIMARY KEY, name TEXT)", "INSERT INTO kit VALUES (1, 'one')")
        give_back(alias)
        yield alias, proxy
        give_back(alias)
        pool_of(alias).drain("the test is over")


def test_session_opens_with_its_time_zone_and_no_statement(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    pool_of(alias).drain("another begins")
    with proxy.counting() as count:
        connections[alias].ensure_connection()
        # The pool asks once how long the server keeps idle sessions, and whether a proxy is in front of it.
        assert all("idle_session_timeout" in text or "backend_pid" in text for text in count.texts)
        assert ask(alias, "SHOW TimeZone") == "UTC"


def test_reset_is_one_packet_and_brings_the_time_zone_back(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    do(alias, "SET TIME ZONE 'Asia/Tokyo'", "SET ROLE pg_monitor")
    with proxy.counting() as count:
        give_back(alias)
    assert count.total == 1
    with proxy.counting() as count:
        assert ask(alias, "SELECT current_setting('TimeZone') || current_user") == "UTCpoollife"
    assert count.total == 1


def test_transaction_sends_what_it_sends_with_django(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    with proxy.counting() as count:
        with transaction.atomic(using=alias):
            ask(alias, "SELECT name FROM kit WHERE id = 1")
            do(alias, "UPDATE kit SET name = 'uno' WHERE id = 1")
        give_back(alias)
    assert count.total == 4


def test_transaction_that_was_left_open_costs_one_packet(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    connections[alias].set_autocommit(False)
    do(alias, "UPDATE kit SET name = 'eins' WHERE id = 1")
    with proxy.counting() as count:
        give_back(alias)
    assert (count.total, count.texts) == (1, ["ROLLBACK"])
    assert ask(alias, "SELECT name FROM kit WHERE id = 1") == "one"


# --- what psycopg keeps on its side -----------------------------------------------------------------------


def listen(raw: Any) -> object:
    raw.execute("LISTEN kit")
    return None


def suspended_notifies(raw: Any) -> object:
    raw.execute("LISTEN kit")
    raw.execute("NOTIFY kit")
    notifications = raw.notifies()
    next(notifications)
    return notifications


def open_transaction(raw: Any) -> object:
    block = raw.transaction()
    block.__enter__()
    return block


def prepared(raw: Any) -> object:
    raw.execute("CREATE TABLE two_phase (id INT)")
    raw.autocommit = False
    raw.tpc_begin(raw.xid(1, "kit", "one"))
    raw.execute("INSERT INTO two_phase VALUES (1)")
    raw.tpc_prepare()
    return None


def two_phase(raw: Any) -> object:
    raw.autocommit = False
    raw.tpc_begin(raw.xid(1, "kit", "two"))
    raw.execute("SELECT 1")
    return None


def handler(raw: Any) -> object:
    raw.add_notice_handler(print)
    return None


def adapter(raw: Any) -> object:
    raw.adapters.register_loader("text", psycopg.adapters.get_loader(17, psycopg.pq.Format.TEXT))
    return None


def row_factory(raw: Any) -> object:
    raw.row_factory = dict_row
    return None


def isolation(raw: Any) -> object:
    raw.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    return None


def read_only(raw: Any) -> object:
    raw.read_only = True
    return None


def threshold(raw: Any) -> object:
    raw.prepare_threshold = 0
    return None


def random_seed(raw: Any) -> object:
    raw.execute("SELECT setseed(0.5)")
    return None


@pytest.mark.parametrize(
    "leave",
    [
        *(listen, suspended_notifies, open_transaction, two_phase, handler, adapter, row_factory),
        *(isolation, read_only, threshold, random_seed),
    ],
)
def test_what_no_reset_removes_goes_with_its_session(
    leave: Callable[[Any], object], alias: str, pool: LeasePool
) -> None:
    connections[alias].ensure_connection()
    before = session(alias)
    left = leave(connections[alias].connection)
    give_back(alias)
    assert session(alias) != before
    assert ask(alias, "SELECT 'text'") == "text"
    give_back(alias)
    assert pool.out == 0
    del left
    gc.collect()


def test_prepared_two_phase_transaction_is_not_the_sessions(alias: str, postgresql: PostgreSQL) -> None:
    connections[alias].ensure_connection()
    prepared(connections[alias].connection)
    give_back(alias)
    do(alias, "SELECT 1")
    assert ask(alias, "SELECT COUNT(*) FROM pg_prepared_xacts") == 1
    do(alias, "ROLLBACK PREPARED '1_a2l0_b25l'")
    give_back(alias)


def test_prepared_statements_of_psycopg_live_on(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias(
        ENGINE,
        server=postgresql,
        OPTIONS={"sslmode": "disable", "server_side_binding": True, "prepare_threshold": 0},
        POOL={"pool_size": 1, "max_overflow": 0},
    )
    before = session(alias)
    for number in range(20):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT %s::int", [number])
            assert cursor.fetchone() == (number,)
        give_back(alias)
    assert session(alias) == before
    give_back(alias)


def test_named_cursor_that_was_left_open_is_closed(alias: str, pool: LeasePool) -> None:
    connections[alias].ensure_connection()
    cursor = connections[alias].chunked_cursor()
    cursor.execute("SELECT generate_series(1, 1000)")
    cursor.fetchmany(2)
    before, resets = session(alias), pool.resets
    give_back(alias)
    assert pool.resets == resets + 1
    assert session(alias) == before
    assert ask(alias, "SELECT COUNT(*) FROM pg_cursors") == 0
    give_back(alias)
    cursor.close()


def test_named_cursor_that_was_closed_leaves_nothing(alias: str, pool: LeasePool) -> None:
    resets = pool.resets
    with transaction.atomic(using=alias), connections[alias].chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert len(cursor.fetchall()) == 1000
    with connections[alias].chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert len(cursor.fetchmany(3)) == 3
    give_back(alias)
    assert pool.resets == resets


def test_cursor_without_poollifes_guard_makes_the_session_dirty(alias: str, pool: LeasePool) -> None:
    """``psycopg.Cursor(connection)`` passes no method of the connection but the ones that send."""
    connections[alias].ensure_connection()
    psycopg.Cursor(connections[alias].connection).execute("SET statement_timeout = 7777")
    give_back(alias)
    assert pool.resets == 1
    assert ask(alias, "SELECT current_setting('statement_timeout')") == "0"
    give_back(alias)


def test_reported_parameter_that_a_function_has_set_is_seen(alias: str, pool: LeasePool) -> None:
    """No text shows it, as with a trigger: the server's own report does."""
    do(
        alias,
        "CREATE FUNCTION pg_temp_like() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM set_config('application_name', 'left over', false); RETURN 1; END $$",
        "CREATE VIEW setting AS SELECT pg_temp_like()",
    )
    give_back(alias)
    resets = pool.resets
    do(alias, "SELECT * FROM setting")
    give_back(alias)
    assert pool.resets == resets + 1
    assert ask(alias, "SELECT current_setting('application_name')") == ""
    give_back(alias)


# --- the server ---------------------------------------------------------------------------------------------


def test_idle_session_timeout_limits_the_age_of_sessions(
    make_alias: MakeAlias, postgresql: PostgreSQL
) -> None:
    alias = make_alias(
        ENGINE, server=postgresql, OPTIONS={"sslmode": "disable", "options": "-c idle_session_timeout=60000"}
    )
    do(alias, "SELECT 1")
    give_back(alias)
    assert pool_of(alias).liveness.recycle == pytest.approx(54)


def test_timeouts_of_libpq_come_before_network_timeout(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    found = []
    for options in ({}, {"tcp_user_timeout": 5000}):
        alias = make_alias(ENGINE, server=postgresql, OPTIONS={"sslmode": "disable", **options})
        connections[alias].ensure_connection()
        with socket.socket(fileno=os.dup(connections[alias].connection.fileno())) as copy:
            found.append(copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        give_back(alias)
    assert found == [20000, 5000]


def test_read_only_transaction_of_the_borrower_renews_nothing(alias: str, pool: LeasePool) -> None:
    do(alias, "CREATE TABLE kit (id INT)")
    give_back(alias)
    before = session(alias)
    with pytest.raises(DatabaseError), transaction.atomic(using=alias):
        do(alias, "SET TRANSACTION READ ONLY", "INSERT INTO kit VALUES (1)")
    give_back(alias)
    assert session(alias) == before
    give_back(alias)


@pytest.mark.parametrize(
    "statements",
    [["SET default_transaction_read_only = on"], ["BEGIN", "SET LOCAL default_transaction_read_only = on"]],
)
def test_setting_of_the_borrower_is_no_failover(alias: str, statements: list[str]) -> None:
    before = session(alias)
    do(alias, *statements)
    give_back(alias)
    assert session(alias) == before
    assert ask(alias, "SHOW default_transaction_read_only") == "off"
    give_back(alias)


def test_server_that_became_read_only_renews_the_pool(alias: str, postgresql: PostgreSQL) -> None:
    do(alias, "CREATE TABLE kit (id INT)")
    give_back(alias)
    before = session(alias)
    try:
        postgresql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        postgresql.execute("SELECT pg_reload_conf()")
        for _ in range(100):
            if ask(alias, "SHOW default_transaction_read_only") == "on":
                break
        with pytest.raises(DatabaseError):
            do(alias, "INSERT INTO kit VALUES (1)")
        give_back(alias)
        assert session(alias) != before
        give_back(alias)
    finally:
        postgresql.execute("ALTER SYSTEM RESET default_transaction_read_only")
        postgresql.execute("SELECT pg_reload_conf()")
    give_back(alias)


@pytest.mark.parametrize("immediate", [False, True])
def test_restart_of_the_server_fails_no_request(alias: str, postgresql: PostgreSQL, immediate: bool) -> None:
    do(alias, "SELECT 1")
    give_back(alias)
    postgresql.execute("CHECKPOINT")
    postgresql.restart(immediate=immediate)
    for _ in range(50):
        assert ask(alias, "SELECT 1") == 1
        give_back(alias)


def test_password_that_is_wrong_is_no_outage(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias(ENGINE, server=postgresql, PASSWORD="wrong", POOL={"timeout": 60})
    with pytest.raises(OperationalError, match="password authentication failed"):
        do(alias, "SELECT 1")


def test_server_that_is_down_is_waited_for_and_then_refused(make_alias: MakeAlias) -> None:
    with PostgreSQL() as server:
        server.create_database("kit")
        settings = server.database("kit")
    alias = make_alias(ENGINE, **{**settings, "POOL": {"outage_wait": 0.3, "timeout": 5}})
    with pytest.raises(OperationalError, match="refused"):
        do(alias, "SELECT 1")
    with pytest.raises(OperationalError):
        do(alias, "SELECT 1")


def test_database_with_a_session_of_another_alias_is_dropped(
    make_alias: MakeAlias, postgresql: PostgreSQL
) -> None:
    """PostgreSQL refuses to while any session is on it."""
    first = make_alias(ENGINE, server=postgresql)
    settings = connections[first].settings_dict
    name = settings["NAME"]
    second = make_alias(ENGINE, server=postgresql, NAME=name)
    postgresql.create_database(f"{name}_test")
    settings["NAME"] = connections[second].settings_dict["NAME"] = f"{name}_test"
    do(second, "SELECT 1")
    give_back(second)
    assert pool_of(second).idle == 1
    connections[first].creation.destroy_test_db(suffix=None, old_database_name=None, verbosity=0)
    assert postgresql.execute("SELECT 1 FROM pg_database WHERE datname = %s", f"{name}_test") == []
    settings["NAME"] = connections[second].settings_dict["NAME"] = name


def test_type_that_was_added_renews_the_pool(alias: str) -> None:
    """Django's adapters know the types that were there when their session was opened."""
    before = session(alias)
    do(alias, "CREATE TYPE kit_mood AS ENUM ('good')")
    give_back(alias)
    after = session(alias)
    assert after != before
    give_back(alias)
    do(alias, "CREATE TABLE kit_moods (mood kit_mood)")
    give_back(alias)
    assert session(alias) == after
    give_back(alias)


# --- names of psycopg's -------------------------------------------------------------------------------------


def test_attributes_of_psycopg_are_no_marks(alias: str) -> None:
    connections[alias].ensure_connection()
    with psycopg.connect(**connections[alias].get_connection_params()) as fresh:
        assert vars(fresh).keys() <= GuardedConnection.CHANGING


#: The public names of a connection, by what poollife does about them.
KNOWN = {
    "guarded": {
        "adapters",
        "autocommit",
        "cancel",
        "cancel_safe",
        "close",
        "commit",
        "cursor",
        "lock",
    }
    | {"rollback", "wait", "transaction", "tpc_begin", "tpc_recover", "add_notice_handler"}
    | {"add_notify_handler", "set_autocommit"},
    "passes lock and wait()": {"execute", "notifies", "pipeline", "tpc_commit", "tpc_prepare", "tpc_rollback"}
    | {"set_isolation_level", "set_read_only", "set_deferrable"},
    "compared at the return": {"isolation_level", "read_only", "deferrable", "row_factory", "cursor_factory"}
    | {"server_cursor_factory", "prepare_threshold", "prepared_max"},
    "sends nothing": {"broken", "closed", "connect", "connection", "fileno", "info", "pgconn", "xid"}
    | {"remove_notice_handler", "remove_notify_handler"},
    "errors": {name for name in dir(psycopg.Connection) if name.endswith("Error") or name == "Warning"},
}


def test_every_public_name_of_psycopgs_connection_is_known() -> None:
    public = {name for name in dir(psycopg.Connection) if not name.startswith("_")}
    assert public - set().union(*KNOWN.values()) == set()


# --- found by a hostile reading -----------------------------------------------------------------------------


def test_stale_cursor_neither_streams_nor_copies(alias: str) -> None:
    do(alias, "CREATE TABLE kit (id INT)")
    stale = connections[alias].connection.cursor()
    give_back(alias)
    connections[alias].ensure_connection()
    with pytest.raises(psycopg.InterfaceError, match="went back to the pool"):
        next(stale.stream("SELECT 42"))
    with pytest.raises(psycopg.InterfaceError), stale.copy("COPY kit FROM STDIN") as copy:
        copy.write_row((99,))
    assert ask(alias, "SELECT COUNT(*) FROM kit") == 0
    give_back(alias)


def test_cursor_whose_lease_ends_in_the_middle_of_a_statement_does_not_run_it(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its check was right, and another thread returned the session before the statement was sent."""
    do(alias, "CREATE TABLE kit (id INT)")
    cursor = connections[alias].connection.cursor()
    note = GuardedConnection.note_statement

    def switch(self: GuardedConnection, statement: Any, is_template: bool = False) -> None:
        monkeypatch.undo()
        note(self, statement, is_template)
        give_back(alias)
        connections[alias].ensure_connection()

    monkeypatch.setattr(GuardedConnection, "note_statement", switch)
    with pytest.raises(psycopg.InterfaceError):
        cursor.execute("INSERT INTO kit VALUES (1)")
    assert ask(alias, "SELECT COUNT(*) FROM kit") == 0
    give_back(alias)


def test_session_that_another_thread_uses_is_not_lent(alias: str, pool: LeasePool) -> None:
    """Threads share a wrapper, and one of them returns it while the other waits for an answer."""
    connections[alias].ensure_connection()
    raw, before = connections[alias].connection, session(alias)
    found: list[BaseException] = []

    def sleep() -> None:
        try:
            raw.execute("SELECT pg_sleep(5)")
        except psycopg.Error as error:
            found.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    eventually(
        "the statement runs", lambda: raw.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
    )
    give_back(alias)
    assert ask(alias, "SELECT 1") == 1
    assert session(alias) != before
    thread.join()
    assert len(found) == 1
    give_back(alias)
    assert pool.out == 0


def test_session_with_out_of_date_plans_is_closed(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias(
        ENGINE,
        server=postgresql,
        OPTIONS={"sslmode": "disable", "server_side_binding": True, "prepare_threshold": 0},
        POOL={"pool_size": 1, "max_overflow": 0},
    )
    do(alias, "CREATE TABLE plan (id INT)", "INSERT INTO plan VALUES (1)")
    give_back(alias)
    do(alias, "CREATE TEMP TABLE plan AS SELECT 7 AS x, 'secret'::text AS y")
    do(alias, *["SELECT * FROM plan"] * 3)
    give_back(alias)
    assert ask(alias, "SELECT * FROM plan") == 1
    give_back(alias)


def test_named_cursor_that_was_dropped_is_closed(alias: str) -> None:
    for _ in range(3):
        connections[alias].ensure_connection()
        cursor = connections[alias].connection.cursor("kit", withhold=True)
        cursor.execute("SELECT 1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del cursor
        give_back(alias)


class Code:
    """An object whose adapter writes code."""


class CodeDumper(psycopg.adapt.Dumper):
    def dump(self, obj: Any) -> bytes:
        return b""

    def quote(self, obj: Any) -> bytes:
        return b"set_config('my.code', 'secret', false)"


def test_parameter_that_may_be_code_makes_the_session_dirty(alias: str, pool: LeasePool) -> None:
    connections[alias].ensure_connection()
    # As an adapter of all connections, which was there when this one was opened.
    AdaptersMap.register_dumper(connections[alias].connection.adapters, Code, CodeDumper)
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT %s", [cast(Any, Code())])
    give_back(alias)
    assert pool.resets == 1
    assert ask(alias, "SELECT COALESCE(current_setting('my.code', true), '')") == ""
    give_back(alias)


def test_parameters_of_plain_types_leave_the_session_clean(alias: str, pool: LeasePool) -> None:
    values = [
        1,
        "a",
        1.5,
        None,
        True,
        b"x",
        Decimal(1),
        datetime.now(),
        uuid4(),
        [1, 2],
        (3, "b"),
        Jsonb({"a": 1}),
    ]
    for value in values:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT %s IS NULL", [cast(Any, value)])
    give_back(alias)
    assert pool.resets == 0


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT TREAT(4711 AS pg_advisory_lock)",
        "SET LOCAL standard_conforming_strings = off",
        "SELECT set_config('standard_conforming_strings', 'off', true)",
        "SET LOCAL client_encoding = 'SJIS'",
    ],
)
def test_statement_that_changes_how_texts_are_read_is_dirty(statement: str) -> None:
    assert all(memory[statement] & LEAVES for memory in EFFECTS.values())


def test_error_in_a_transaction_block_of_psycopg_keeps_the_session(alias: str) -> None:
    before = session(alias)
    with pytest.raises(psycopg.errors.UndefinedTable), connections[alias].connection.transaction():
        connections[alias].connection.execute("SELECT 1 FROM kit_missing")
    with pytest.raises(psycopg.errors.SyntaxError):
        list(connections[alias].connection.cursor().stream("SELEC"))
    give_back(alias)
    assert session(alias) == before
    give_back(alias)


def test_late_cancel_of_a_former_borrower_does_nothing(alias: str) -> None:
    connections[alias].ensure_connection()
    raw = connections[alias].connection
    give_back(alias)
    raw.cancel()
    raw.cancel_safe()
    assert ask(alias, "SELECT 1") == 1
    give_back(alias)
