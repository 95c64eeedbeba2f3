"""PostgreSQL behind PgBouncer: session mode without a setting, and transaction mode with POOL["behind"]."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction

from poollife.backends.postgresql import base
from poollife.drivers.postgresql import poolers
from poollife.pools.registry import registry
from servers import PacketProxy, PgBouncer, PostgreSQL
from servers.postgresql import driver_module
from tests.conftest import MakeAlias
from tests.kit.backends import POSTGRESQL, POSTGRESQL_LEAVES, ask, do
from tests.support.counting import pool_of
from tests.support.web_server import eventually

pytestmark = pytest.mark.slow

ENGINE = "poollife.backends.postgresql"
ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 5}
psycopg3_only = pytest.mark.skipif(POSTGRESQL == "psycopg2", reason="psycopg2 has no such thing")


def give_back(alias: str) -> None:
    connections[alias].close()


def behind(make_alias: MakeAlias, pgbouncer: PgBouncer, **entry: Any) -> str:
    """An alias with the settings for transaction mode."""
    pool = {**ONE, **entry.pop("POOL", {}), "behind": "transaction_pooler"}
    return make_alias(ENGINE, server=pgbouncer, DISABLE_SERVER_SIDE_CURSORS=True, POOL=pool, **entry)


@pytest.fixture
def in_session_mode(make_alias: MakeAlias, session_pgbouncer: PgBouncer) -> str:
    """A pool of one session."""
    return make_alias(ENGINE, server=session_pgbouncer, POOL=ONE)


@pytest.fixture
def in_transaction_mode(make_alias: MakeAlias, transaction_pgbouncer: PgBouncer) -> str:
    """A pool of one connection to the pooler."""
    return behind(make_alias, transaction_pgbouncer)


@pytest.fixture(params=["in_session_mode", "in_transaction_mode"])
def alias(request: pytest.FixtureRequest) -> str:
    """A pool for each mode."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["session", "transaction"])
def own(request: pytest.FixtureRequest, make_alias: MakeAlias) -> Iterator[tuple[str, PgBouncer]]:
    """A pool of eight sessions, and a PgBouncer and a server of its own, for each mode."""
    with PostgreSQL() as server, PgBouncer(server, request.param) as pgbouncer:
        pool = {"pool_size": 8, "max_overflow": 0, "timeout": 10}
        if request.param == "transaction":
            alias = behind(make_alias, pgbouncer, POOL=pool)
        else:
            alias = make_alias(ENGINE, server=pgbouncer, POOL=pool)
        do(alias, "CREATE TABLE kit (id SERIAL PRIMARY KEY, name TEXT)")
        give_back(alias)
        yield alias, pgbouncer
        give_back(alias)
        registry.dispose(alias, "the test is over")


def other_client(alias: str, sql: str) -> Any:
    """Return the first value of an answer to another client of the proxy."""
    settings = connections[alias].settings_dict
    connection = driver_module().connect(
        host=settings["HOST"],
        port=settings["PORT"],
        dbname=settings["NAME"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        sslmode="disable",
    )
    with closing(connection):
        connection.autocommit = True
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]


def real_session(alias: str) -> int:
    """Return the number of the server's session."""
    return int(ask(alias, "SELECT pg_backend_pid()"))


def requests(alias: str, number: int, *, threads: int = 8) -> list[Exception]:
    """Make requests, each with an INSERT and a block, in several threads. Return their errors."""
    failed: list[Exception] = []

    def work() -> None:
        for _ in range(number // threads):
            try:
                do(alias, "INSERT INTO kit (name) VALUES ('plain')")
                with transaction.atomic(using=alias):
                    do(alias, "INSERT INTO kit (name) VALUES ('block')", "SELECT 1")
            except DatabaseError as error:
                failed.append(error)
            finally:
                give_back(alias)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failed


# --- the state of a borrower --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POSTGRESQL_LEAVES)
def test_state_of_a_borrower_reaches_nobody(kind: str, alias: str, postgresql: PostgreSQL) -> None:
    """In session mode the pool resets; in transaction mode it refuses the statement."""
    left = POSTGRESQL_LEAVES[kind]
    with suppress(Exception):
        postgresql.execute("CREATE ROLE kit_other")
    do(alias, "CREATE TABLE kit (id INT PRIMARY KEY, name VARCHAR(20))", "INSERT INTO kit VALUES (1, 'one')")
    give_back(alias)
    resets = pool_of(alias).resets
    refused = None
    try:
        do(alias, *left.leave)
    except InterfaceError as error:
        refused = error
    except DatabaseError:
        pass
    give_back(alias)
    if connections[alias].pool_options.behind:  # type: ignore[attr-defined]
        assert (refused is not None) == ("transaction" not in kind)
        assert pool_of(alias).resets == 0
    else:
        assert refused is None
        assert pool_of(alias).resets == resets + ("transaction" not in kind and kind != "listening")
    for answer in (ask(alias, left.ask), other_client(alias, left.ask.replace("%%", "%"))):
        assert answer == left.clean
    give_back(alias)


REFUSED = {
    "SET statement_timeout = 5": "SET LOCAL",
    "/* a */ SET ROLE pg_monitor": "SET LOCAL",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SET LOCAL",
    "BEGIN; SET my.a = '1'; COMMIT": "SET LOCAL",
    "RESET ALL": "needs no RESET",
    "DISCARD ALL": "needs no RESET",
    "SELECT set_config('my.a', '1', false)": "SET LOCAL",
    "SELECT pg_catalog.\"set_config\"('my.a', '1', false)": "SET LOCAL",
    "EXPLAIN ANALYZE SELECT set_config('my.a', '1', false)": "SET LOCAL",
    "UPDATE pg_settings SET setting = '1' WHERE name = 'statement_timeout'": "SET LOCAL",
    "SELECT pg_advisory_lock(1)": "pg_advisory_xact_lock",
    "SELECT pg_try_advisory_lock_shared(1)": "pg_advisory_xact_lock",
    "SELECT pg_advisory_unlock_all()": "pg_advisory_xact_lock",
    "CREATE TEMP TABLE a (id int)": "ON COMMIT DROP",
    "CREATE TEMPORARY TABLE a (id int) ON COMMIT DELETE ROWS": "ON COMMIT DROP",
    "CREATE OR REPLACE TEMP VIEW a AS SELECT 1": "ON COMMIT DROP",
    "CREATE TABLE pg_temp.a (id int)": "ON COMMIT DROP",
    "SELECT 1 AS id INTO TEMPORARY TABLE a": "ON COMMIT DROP AS",
    "DECLARE a CURSOR WITH HOLD FOR SELECT 1": "WITHOUT HOLD",
    "LISTEN a": "leads past the pooler",
    "UNLISTEN *": "leads past the pooler",
    "PREPARE a AS SELECT 1": "the statement itself",
    "EXECUTE a": "the statement itself",
    "DEALLOCATE ALL": "the statement itself",
    "LOAD 'auto_explain'": "session_preload_libraries",
    "SELECT setseed(0.5)": "Python",
    "SET LOCAL seed = 0.5": "Python",
    "DO $$ BEGIN PERFORM set_config('my.a', '1', false); END $$": "SET LOCAL",
    "DO $x$ BEGIN SET my.a = '1'; END $x$": "SET LOCAL",
    "DO 'BEGIN PERFORM set_config(''my.a'', ''1'', false); END'": "SET LOCAL",
}


def do_in_block(alias: str, *statements: str) -> None:
    with transaction.atomic(using=alias):
        do(alias, *statements)


@pytest.mark.parametrize("run", [do, do_in_block])
@pytest.mark.parametrize("statement", REFUSED)
def test_statement_that_leaves_something_is_refused_with_the_cure(
    statement: str, run: Callable[..., None], in_transaction_mode: str
) -> None:
    alias = in_transaction_mode
    with pytest.raises(InterfaceError, match=REFUSED[statement]):
        run(alias, statement)
    assert ask(alias, "SELECT 1") == 1
    give_back(alias)


ACCEPTED = [
    "SELECT set_config('my.a', '1', true)",
    "SET LOCAL statement_timeout = 5000",
    "SET TRANSACTION READ ONLY",
    "CREATE TEMP TABLE a (id int) ON COMMIT DROP",
    "CREATE TEMP TABLE a ON COMMIT DROP AS SELECT 1",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql SET search_path = public AS "
    "$$ SELECT set_config('my.a', '1', false) $$",
    "CREATE VIEW v AS SELECT set_config('my.a', '1', false)",
    "ALTER TABLE kit ALTER COLUMN name SET NOT NULL",
    "ALTER TABLE kit SET (fillfactor = 70)",
    "INSERT INTO kit (name) VALUES (quote_ident('SET x = 1; LISTEN y'))",
    "CREATE TABLE copied AS SELECT * FROM kit",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "DECLARE a CURSOR FOR SELECT 1",
    "NOTIFY x",
    "SELECT setval(pg_get_serial_sequence('kit', 'id'), 50)",
    "DO $$ BEGIN PERFORM set_config('my.a', '1', true); UPDATE kit SET name = 'x'; END $$",
    "DO $$ BEGIN SET LOCAL my.a = '1'; END $$",
]


@pytest.mark.parametrize("statement", ACCEPTED)
def test_statement_that_ends_with_its_transaction_runs(statement: str, in_transaction_mode: str) -> None:
    alias = in_transaction_mode
    do(alias, "CREATE TABLE kit (id SERIAL PRIMARY KEY, name TEXT)")
    do_in_block(alias, statement)
    give_back(alias)
    assert pool_of(alias).resets == 0
    assert (other_client(alias, "SELECT current_setting('my.a', true)") or "") == ""


def test_number_of_a_sequence_is_told_in_its_transaction_only(in_transaction_mode: str) -> None:
    alias = in_transaction_mode
    do(alias, "CREATE TABLE kit (id SERIAL PRIMARY KEY, name TEXT)")
    insert, question = "INSERT INTO kit (name) VALUES ('one')", "SELECT lastval()"
    do(alias, insert)
    with pytest.raises(InterfaceError, match=r"lastval\(\) tells .* one transaction\.atomic\(\)"):
        ask(alias, question)
    with transaction.atomic(using=alias):
        do(alias, insert)
        assert ask(alias, question) == 2
    with pytest.raises(InterfaceError, match="tells"):
        do_in_block(alias, "SELECT 1", question)
    assert ask(alias, "SELECT COUNT(*) FROM kit") == 2
    give_back(alias)


def test_named_cursor_works_in_a_transaction_only(in_transaction_mode: str) -> None:
    alias = in_transaction_mode
    connections[alias].ensure_connection()
    with transaction.atomic(using=alias), connections[alias].chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert len(cursor.fetchmany(10)) == 10
    cursor = connections[alias].chunked_cursor()
    with pytest.raises(InterfaceError, match="DISABLE_SERVER_SIDE_CURSORS"):
        cursor.execute("SELECT generate_series(1, 1000)")
    give_back(alias)
    assert other_client(alias, "SELECT COUNT(*) FROM pg_cursors") == 0


@psycopg3_only
def test_parameters_that_the_server_binds_leave_no_prepared_statement(
    make_alias: MakeAlias, transaction_pgbouncer: PgBouncer
) -> None:
    options = {"sslmode": "disable", "server_side_binding": True}
    aliases = [behind(make_alias, transaction_pgbouncer, OPTIONS=options) for _ in range(2)]
    for _ in range(10):
        for alias in aliases:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT %s::int", [5])
                assert cursor.fetchone() == (5,)
            give_back(alias)
    assert other_client(aliases[0], "SELECT COUNT(*) FROM pg_prepared_statements") == 0


def test_time_zone_of_each_client_is_its_own(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    """One session of the server serves both."""
    with PgBouncer(postgresql, "transaction", sessions=1) as pgbouncer:
        tokyo = behind(make_alias, pgbouncer, TIME_ZONE="Asia/Tokyo")
        name = connections[tokyo].settings_dict["NAME"]
        lima = behind(make_alias, pgbouncer, TIME_ZONE="America/Lima", NAME=name)
        for _ in range(5):
            assert ask(tokyo, "SELECT current_setting('TimeZone')") == "Asia/Tokyo"
            assert ask(lima, "SELECT current_setting('TimeZone')") == "America/Lima"
            give_back(tokyo)
            give_back(lima)
        assert real_session(tokyo) == real_session(lima)
        for alias in (tokyo, lima):
            give_back(alias)
            registry.dispose(alias, "the test is over")


def test_connection_whose_time_zone_was_changed_is_closed(in_transaction_mode: str) -> None:
    alias = in_transaction_mode
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT set_config('TimeZone', %s, false)", ["Asia/Tokyo"])
    closed = pool_of(alias).closed
    give_back(alias)
    assert pool_of(alias).closed == closed + 1
    assert ask(alias, "SELECT current_setting('TimeZone')") == "UTC"
    give_back(alias)


@pytest.mark.skipif(POSTGRESQL != "psycopg2", reason="psycopg sends nothing for them")
@pytest.mark.parametrize("name", ["readonly", "deferrable", "isolation_level"])
def test_attribute_that_psycopg2_sets_for_the_session_is_refused(name: str, in_transaction_mode: str) -> None:
    alias = in_transaction_mode
    connections[alias].ensure_connection()
    raw = connections[alias].connection
    for set_it in (lambda: setattr(raw, name, 1), lambda: raw.set_session(**{name: 1})):
        with pytest.raises(driver_module().InterfaceError, match="SET for the whole session"):
            set_it()
    give_back(alias)


def test_isolation_level_contradicts_the_pooler_with_psycopg2_only() -> None:
    from poollife.drivers.postgresql.psycopg2 import driver

    entry = {"DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": {"isolation_level": 3}}
    assert [problem.partition(",")[0] for problem, _ in driver.objections(entry)] == [
        "OPTIONS has 'isolation_level'"
    ]
    assert poolers.objections(entry) == []


# --- packets ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["session", "transaction"])
def proxied(
    request: pytest.FixtureRequest, make_alias: MakeAlias
) -> Iterator[tuple[str, PacketProxy, PgBouncer]]:
    """An alias in another time zone than the server's, whose packets are counted, for each mode."""
    pgbouncer: PgBouncer = request.getfixturevalue(f"{request.param}_pgbouncer")
    with PacketProxy(pgbouncer.host, pgbouncer.port) as proxy:
        entry: dict[str, Any] = {"PORT": str(proxy.port), "TIME_ZONE": "Asia/Tokyo"}
        if request.param == "transaction":
            alias = behind(make_alias, pgbouncer, POOL={"pool_size": 2}, **entry)
        else:
            alias = make_alias(ENGINE, server=pgbouncer, POOL={**ONE, "pool_size": 2}, **entry)
        base.refusing.clear()
        yield alias, proxy, pgbouncer
        give_back(alias)
        pool_of(alias).drain("the test is over")


def test_warm_checkout_sends_nothing(proxied: tuple[str, PacketProxy, PgBouncer]) -> None:
    alias, proxy, _ = proxied
    ask(alias, "SELECT 1")
    give_back(alias)

    def work() -> None:
        for _ in range(10):
            ask(alias, "SELECT 1")
            give_back(alias)

    with proxy.counting() as count:
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert count.texts == ["SELECT 1"] * 20


def test_time_zone_is_set_by_a_statement_where_the_login_can_not(
    proxied: tuple[str, PacketProxy, PgBouncer],
) -> None:
    alias, proxy, pgbouncer = proxied
    in_sessions = pgbouncer.pool_mode == "session"
    with proxy.counting() as count:
        assert ask(alias, "SHOW TimeZone") == "Asia/Tokyo"
    # Refused once, and the next session of this process does not try any more.
    assert count.kinds["Startup"] == 1 + in_sessions
    assert "set_config('TimeZone'" in count.texts[0]
    assert count.total == 3 + in_sessions  # the idle limit; in session mode the search for a proxy
    other = connections.create_connection(alias)
    with proxy.counting() as count, closing(other), other.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        assert cursor.fetchone() == ("Asia/Tokyo",)
    assert (count.kinds["Startup"], count.total) == (1, 2)


def test_reset_in_session_mode_is_one_packet_and_one_for_the_time_zone(
    proxied: tuple[str, PacketProxy, PgBouncer],
) -> None:
    alias, proxy, pgbouncer = proxied
    if pgbouncer.pool_mode == "transaction":
        return  # there is no reset
    ask(alias, "SELECT 1")
    do(alias, "SET TIME ZONE 'Europe/Rome'", "SET ROLE pg_monitor")
    with proxy.counting() as count:
        give_back(alias)
    assert count.total == 1
    with proxy.counting() as count:
        assert ask(alias, "SELECT current_setting('TimeZone') || current_user") == "Asia/Tokyopoollife"
    assert count.total == 2


# --- a proxy is found ---------------------------------------------------------------------------------------


def lines_about_proxies(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in caplog.records if "a proxy, such as" in r.getMessage()]


def test_proxy_is_logged_once_for_each_pool(
    make_alias: MakeAlias, session_pgbouncer: PgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poollife")
    aliases = [make_alias(ENGINE, server=session_pgbouncer) for _ in range(2)]
    for alias in aliases * 2:
        do(alias, "SET my.a = '1'")  # a reset follows, and the session is initialised anew
        give_back(alias)
    found = lines_about_proxies(caplog)
    assert [level for level, _ in found] == ["INFO", "INFO"]
    for alias, (_, line) in zip(aliases, found, strict=True):
        assert line.startswith(f"Pool {alias!r}: a proxy, such as PgBouncer, is in front of its server.")
        assert "With pool_mode = transaction POOL needs 'behind': 'transaction_pooler'" in line


def test_nothing_is_logged_without_a_proxy_or_with_the_setting(
    make_alias: MakeAlias,
    postgresql: PostgreSQL,
    in_transaction_mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "poollife")
    for alias in (make_alias(ENGINE, server=postgresql), in_transaction_mode):
        ask(alias, "SELECT 1")
        give_back(alias)
    assert lines_about_proxies(caplog) == []


# --- sessions and servers that end --------------------------------------------------------------------------


def test_session_that_the_server_ends_while_it_is_idle_fails_no_request(
    alias: str, postgresql: PostgreSQL
) -> None:
    for _ in range(5):
        session = real_session(alias)
        give_back(alias)
        postgresql.kill(session)
        assert ask(alias, "SELECT 1") == 1
        give_back(alias)


def test_session_that_the_server_ends_in_a_transaction_fails_that_request_only(
    alias: str, postgresql: PostgreSQL
) -> None:
    do(alias, "CREATE TABLE kit (id INT)")

    def request() -> None:
        with transaction.atomic(using=alias):
            do(alias, "INSERT INTO kit VALUES (1)")
            postgresql.kill(real_session(alias))
            do(alias, "INSERT INTO kit VALUES (2)")

    with pytest.raises(OperationalError):
        request()
    give_back(alias)
    for _ in range(10):
        assert ask(alias, "SELECT COUNT(*) FROM kit") == 0
        give_back(alias)


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("what", ["pgbouncer", "server"])
def test_restart_fails_none_of_the_next_thousand_requests(
    own: tuple[str, PgBouncer], what: str, immediate: bool
) -> None:
    alias, pgbouncer = own
    assert requests(alias, 80) == []
    if what == "pgbouncer":
        pgbouncer.restart(immediate=immediate)
    else:
        pgbouncer.server.execute("CHECKPOINT")
        pgbouncer.server.restart(immediate=immediate)
    assert requests(alias, 1000) == []
    assert ask(alias, "SELECT COUNT(*) FROM kit") == 2 * 1080


def test_restart_under_load_fails_the_requests_it_interrupts(own: tuple[str, PgBouncer]) -> None:
    """At most one for each thread, as each thread had one request under way."""
    alias, pgbouncer = own
    failed: list[Exception] = []
    load = threading.Thread(target=lambda: failed.extend(requests(alias, 4000)))
    load.start()
    eventually("requests are under way", lambda: pool_of(alias).checkouts > 400)
    pgbouncer.restart()
    load.join()
    assert len(failed) <= 8
    assert requests(alias, 400) == []


# --- more clients than sessions -----------------------------------------------------------------------------


def test_eight_threads_share_two_sessions_of_the_server(
    make_alias: MakeAlias, postgresql: PostgreSQL
) -> None:
    with PgBouncer(postgresql, "transaction", sessions=2) as pgbouncer:
        pool = {"pool_size": 8, "max_overflow": 0, "timeout": 10}
        alias = behind(make_alias, pgbouncer, POOL=pool)
        do(alias, "CREATE TABLE kit (id SERIAL PRIMARY KEY, thread INT, number INT)")
        give_back(alias)
        wrong: list[object] = []
        started = threading.Barrier(8)

        def work(thread: int) -> None:
            try:
                connections[alias].ensure_connection()
                started.wait(10)  # each thread has a connection to the pooler
                for number in range(50):
                    one_request(alias, thread, number)
                    give_back(alias)
            except BaseException as error:
                wrong.append(error)
            finally:
                give_back(alias)

        run_all(work)
        assert wrong == []
        assert pool_of(alias).opened == 8
        assert pool_of(alias).resets == 0
        sessions = [s for s in postgresql.sessions() if s.db == connections[alias].settings_dict["NAME"]]
        assert len(sessions) <= 2
        assert ask(alias, "SELECT COUNT(*) FROM kit") == 8 * 50 * 2
        assert ask(alias, "SELECT COUNT(DISTINCT (thread, number)) FROM kit") == 8 * 50
        give_back(alias)
        registry.dispose(alias, "the test is over")


def run_all(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def one_request(alias: str, thread: int, number: int) -> None:
    """Insert two rows, one of them in a block with state of its own, and a third one that is rolled back."""
    sql = "INSERT INTO kit (thread, number) VALUES (%s, %s) RETURNING id"
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, [thread, number])
        (first,) = cursor.fetchone()
        cursor.execute("SELECT thread, number FROM kit WHERE id = %s", [first])
        assert cursor.fetchone() == (thread, number)
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute("SELECT set_config('my.thread', %s, true)", [str(thread)])
        cursor.execute(sql, [thread, number])
        (second,) = cursor.fetchone()
        cursor.execute("SELECT lastval(), current_setting('my.thread')")
        assert cursor.fetchone() == (second, str(thread))
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute(sql, [thread, number])
        raise ZeroDivisionError
