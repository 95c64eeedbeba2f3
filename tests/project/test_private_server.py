"""The private servers that the other tests rely on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import MySQLdb
import psycopg
import psycopg2
import pytest

from servers import Certificates, MariaDB, Missing, PgBouncer, PostgreSQL, PrivateServer, Via
from servers import postgresql as module_of_postgresql
from servers.ports import RANGE, free_port
from tests.conftest import MakeAlias, NewDatabase
from tests.support.web_server import eventually

pytestmark = pytest.mark.slow

Kind = type[MariaDB] | type[PostgreSQL]
KINDS: list[Kind] = [MariaDB, PostgreSQL]
both_kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
#: The errors of a driver that can't connect.
ERRORS = (MySQLdb.OperationalError, psycopg.OperationalError)


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> PrivateServer:
    """Each of the servers that all tests share."""
    found: PrivateServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that each user of the machine can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="poollife-kept-"))
    yield folder
    shutil.rmtree(folder)


def connect(settings: dict[str, Any], driver: Any) -> Any:
    """Connect as Django's own backend would with these settings."""
    login = {"user": settings["USER"], "password": settings["PASSWORD"], **settings["OPTIONS"]}
    if driver is not MySQLdb:
        place = {"host": settings["HOST"], "port": settings["PORT"]}
        return driver.connect(dbname=settings["NAME"] or "postgres", **place, **login)
    place = {"host": settings["HOST"], "port": int(settings["PORT"] or 0)}
    if settings["HOST"].startswith("/"):
        place = {"unix_socket": settings["HOST"]}
    return driver.connect(database=settings["NAME"], **place, **login)


@contextmanager
def cursor(server: PrivateServer, settings: dict[str, Any]) -> Iterator[Any]:
    """Yield a cursor in autocommit mode, and close its connection at the end."""
    connection = connect(settings, MySQLdb if isinstance(server, MariaDB) else psycopg)
    with closing(connection):
        if isinstance(server, PostgreSQL):
            connection.autocommit = True
        with connection.cursor() as result:
            yield result


def ask(server: PrivateServer, settings: dict[str, Any], sql: str) -> tuple[Any, ...]:
    """Return the first row of the answer."""
    with cursor(server, settings) as result:
        result.execute(sql)
        row: tuple[Any, ...] = result.fetchone()
        return row


def is_alive(pid: int) -> bool:
    """Does the process run, or at least wait for its end to be noticed?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(server: PrivateServer) -> int:
    assert server.pid
    return server.pid


# --- the same with each server -----------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["tcp", "socket", "tls"])
def test_user_logs_in_by_each_kind_of_connection(
    server: PrivateServer, new_database: NewDatabase, via: Via
) -> None:
    name = new_database(server)
    settings = server.database(name, via=via)

    local = via == "socket"

    if isinstance(server, MariaDB):
        sql = "SELECT DATABASE(), SUBSTRING_INDEX(USER(), '@', -1)"
        assert ask(server, settings, sql) == (name, "localhost" if local else "127.0.0.1")
        # Without "tls" it is up to the client library whether the connection is encrypted.
        assert via != "tls" or ask(server, settings, "SHOW STATUS LIKE 'Ssl_cipher'")[1]
    else:
        sql = (
            "SELECT current_database(), host(inet_server_addr()), ssl"
            " FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        assert ask(server, settings, sql) == (name, None if local else "127.0.0.1", via == "tls")


def test_tls_verifies_the_certificate(server: PrivateServer, tmp_path: Path) -> None:
    settings = server.database("", via="tls")
    other = str(Certificates(tmp_path).ca)
    if isinstance(server, MariaDB):
        settings["OPTIONS"]["ssl"]["ca"] = other
    else:
        settings["OPTIONS"]["sslrootcert"] = other

    with pytest.raises(ERRORS, match=r"(?i)certificate|SSL"):
        ask(server, settings, "SELECT 1")


@pytest.mark.parametrize("via", ["tcp", "socket"])
def test_wrong_password_is_refused(server: PrivateServer, via: Via) -> None:
    with pytest.raises(ERRORS, match=r"Access denied|authentication failed"):
        ask(server, server.database("", via=via) | {"PASSWORD": "wrong"}, "SELECT 1")


def test_administrator_is_not_let_in_over_tcp(server: PrivateServer) -> None:
    name = "root" if isinstance(server, MariaDB) else "postgres"

    with pytest.raises(ERRORS):
        ask(server, server.database("") | {"USER": name, "PASSWORD": ""}, "SELECT 1")


def test_many_connections_are_allowed(server: PrivateServer) -> None:
    ((limit,),) = server.execute(
        "SHOW max_connections" if server.name == "PostgreSQL" else "SELECT @@max_connections"
    )
    assert int(limit) >= 300


def test_sessions_are_those_of_users(server: PrivateServer, new_database: NewDatabase) -> None:
    name = new_database(server)
    own_id = "SELECT CONNECTION_ID()" if isinstance(server, MariaDB) else "SELECT pg_backend_pid()"

    with cursor(server, server.database(name)) as result:
        result.execute(own_id)
        found = [session for session in server.sessions() if session.db == name]
        assert [(session.id, session.user, session.is_idle) for session in found] == [
            (result.fetchone()[0], "poollife", True)
        ]
        assert server.sessions(user="nobody") == []


def test_killed_session_is_gone_at_the_return(server: PrivateServer, new_database: NewDatabase) -> None:
    name = new_database(server)

    with cursor(server, server.database(name)) as result:
        (session,) = [session for session in server.sessions() if session.db == name]
        server.kill(session.id)
        assert [session for session in server.sessions() if session.db == name] == []
        with pytest.raises(ERRORS):
            result.execute("SELECT 1")


def test_session_whose_client_is_gone_counts_as_aborted(
    server: PrivateServer, new_database: NewDatabase
) -> None:
    name = new_database(server)
    aborted = server.aborted()

    def number_when_ended() -> int:
        eventually("the session ends", lambda: all(each.db != name for each in server.sessions()))
        return server.aborted() - aborted

    with cursor(server, server.database(name)):
        pass
    assert number_when_ended() == 0

    with cursor(server, server.database(name)) as result:
        with socket.socket(fileno=os.dup(result.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
        assert number_when_ended() == 1


def test_killing_an_unknown_session_is_an_error(server: PrivateServer) -> None:
    with pytest.raises((LookupError, MySQLdb.OperationalError)):
        server.kill(2**30)


def test_create_database_replaces_one_that_is_in_use(
    server: PrivateServer, new_database: NewDatabase
) -> None:
    name = new_database(server)
    with cursor(server, server.database(name)) as result:
        result.execute("CREATE TABLE things (id integer)")
        server.create_database(name)

    with cursor(server, server.database(name)) as result:
        result.execute("CREATE TABLE things (id integer)")


def test_alias_leads_to_a_new_database_of_its_server(server: PrivateServer, make_alias: MakeAlias) -> None:
    from django.db import connections

    engine = {"MariaDB": "poollife.backends.mysql", "PostgreSQL": "django.db.backends.postgresql"}
    alias = make_alias(engine[server.name], server=server)

    with connections[alias].cursor() as result:
        result.execute("SELECT 1")
    names = {session.db for session in server.sessions()}
    assert connections[alias].settings_dict["NAME"] in names


@both_kinds
def test_stop_removes_everything(kind: Kind) -> None:
    with kind() as server:
        pid = pid_of(server)
        assert server.execute("SELECT %s + 1", 1) == [(2,)]

    assert not is_alive(pid)
    assert server.pid is None
    assert not server.folder.exists()
    server.stop()


@both_kinds
def test_stop_ends_open_sessions(kind: Kind) -> None:
    with kind() as server, cursor(server, server.database("")):
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10


@both_kinds
def test_data_in_a_given_folder_stay(kind: Kind, open_folder: Path) -> None:
    with kind(open_folder) as server:
        server.create_database("kept")
        pid = pid_of(server)
        server.restart()
        assert pid_of(server) != pid

    with kind(open_folder) as server, cursor(server, server.database("kept")) as result:
        result.execute("SELECT 1")


@both_kinds
@pytest.mark.parametrize("immediate", [False, True])
def test_restart_keeps_data_and_port(kind: Kind, immediate: bool) -> None:
    with kind() as server:
        server.create_database("kept")
        settings = server.database("kept")
        with cursor(server, settings) as result:
            result.execute("CREATE TABLE things (id integer)")
            if immediate:  # otherwise the last commits are lost
                server.execute("FLUSH LOGS" if kind is MariaDB else "CHECKPOINT")
            server.restart(immediate=immediate)
            with pytest.raises(ERRORS):
                result.execute("SELECT 1")

        assert server.database("kept") == settings
        assert ask(server, settings, "SELECT count(*) FROM things") == (0,)


@both_kinds
def test_forked_child_leaves_the_server_alone(kind: Kind) -> None:
    """It calls stop(), and exits normally, with all that atexit and the ends of with blocks bring along."""
    program = f"""
import os, sys
from servers import {kind.__name__}

with {kind.__name__}() as server:
    pid = os.fork()
    if pid == 0:
        server.stop()
        sys.exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert server.folder.exists()
    print(server.execute("SELECT 'still there'")[0][0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("still there\n", "")


@both_kinds
def test_server_ends_when_its_owner_is_killed(kind: Kind) -> None:
    """An open session does not keep it."""
    program = f"""
import sys
from servers import {kind.__name__}

server = {kind.__name__}().start()
print(server.pid, server.port, server.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        pid, port, folder = owner.stdout.readline().split()
        assert is_alive(int(pid))
        settings = kind().database("") | {"PORT": port}
        with closing(connect(settings, MySQLdb if kind is MariaDB else psycopg)):
            owner.send_signal(signal.SIGKILL)
            owner.wait()  # to the guard a process that has not been waited for is alive
            eventually("the folder is removed", lambda: not Path(folder).exists(), 30)


@both_kinds
def test_bad_option_is_reported(kind: Kind) -> None:
    server = kind(options=["--no-such-option=1"])

    with pytest.raises(RuntimeError, match=r"did not start(?s:.*)no.such.option"):
        server.start()
    assert not server.folder.exists()


@both_kinds
def test_missing_server_is_reported(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "find", staticmethod(lambda: None))

    with pytest.raises(Missing, match=rf"missing: a {kind.name} server; .*tools/system_packages"):
        kind().start()


@both_kinds
def test_tls_needs_certificates(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no certificates"):
        kind(tmp_path).database("", via="tls")


@both_kinds
def test_too_long_a_path_is_reported(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        kind(tmp_path / ("long" * 25)).start()


def test_a_free_port_is_given_once() -> None:
    """Its server takes it only later. By chance, two of 500 would be the same in nearly all runs."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == 500
    assert set(ports) <= set(RANGE)


# --- MariaDB -----------------------------------------------------------------------------------------------


def test_user_of_mariadb_may_do_everything(mariadb: MariaDB) -> None:
    with cursor(mariadb, mariadb.database("")) as result:
        result.execute("CREATE DATABASE made_by_user")
        result.execute("CREATE USER limited@'%' IDENTIFIED BY 'limited'")
        result.execute("GRANT SELECT ON made_by_user.* TO limited@'%'")
        result.execute("DROP USER limited@'%'")
        result.execute("DROP DATABASE made_by_user")


def test_looking_at_the_counters_adds_to_them(mariadb: MariaDB) -> None:
    questions = [mariadb.status("Questions") for _ in range(20)]
    connections = [mariadb.status("Connections") for _ in range(20)]

    assert {b - a for a, b in pairwise(questions)} == {MariaDB.QUESTIONS_PER_EXECUTE}
    assert {b - a for a, b in pairwise(connections)} == {1}


# --- PostgreSQL --------------------------------------------------------------------------------------------


def test_user_of_postgresql_makes_databases_but_runs_no_programs(postgresql: PostgreSQL) -> None:
    """Other users of the machine know the password, and could run programs as the server's user."""
    with cursor(postgresql, postgresql.database("")) as result:
        result.execute("CREATE DATABASE made_by_user")
        result.execute("DROP DATABASE made_by_user")
        for sql in ("COPY (SELECT 1) TO PROGRAM 'true'", "GRANT pg_execute_server_program TO poollife"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                result.execute(sql)


def test_superuser_has_a_password_of_its_own() -> None:
    with PostgreSQL(superuser=True) as server:
        assert ask(server, server.database(""), "SELECT current_setting('is_superuser')") == ("on",)
        with pytest.raises(psycopg.OperationalError):
            ask(server, server.database("") | {"PASSWORD": "poollife"}, "SELECT 1")


def test_administrator_of_postgresql_is_the_owner_alone(postgresql: PostgreSQL) -> None:
    """The server's user reaches the socket, but is not let in."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    psql = [shutil.which("psql") or str(PostgreSQL._binary(postgresql).with_name("psql"))]
    command = [
        *psql,
        "-h",
        str(postgresql.socket.parent),
        "-p",
        str(postgresql.port),
        "-U",
        "postgres",
        "-c",
        "",
    ]
    done = subprocess.run(command, capture_output=True, text=True, **postgresql._identity)

    assert "Peer authentication failed" in done.stderr


def test_statement_of_the_administrator_runs_in_a_database(
    postgresql: PostgreSQL, new_database: NewDatabase
) -> None:
    name = new_database(postgresql)
    postgresql.execute("CREATE EXTENSION hstore", database=name)

    sql = "SELECT count(*) FROM pg_extension WHERE extname = 'hstore'"
    assert ask(postgresql, postgresql.database(name), sql) == (1,)


@pytest.mark.parametrize("driver", [psycopg, psycopg2], ids=["psycopg", "psycopg2"])
def test_each_driver_runs_statements_and_leaves_no_session(
    postgresql: PostgreSQL, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_postgresql, "driver_module", lambda: driver)
    count = "SELECT count(*)::integer FROM pg_stat_activity WHERE backend_type = 'client backend'"

    assert postgresql.execute("SELECT %s + 1, %s", 1, "text") == [(2, "text")]
    assert [postgresql.execute(count) for _ in range(20)] == [[(1,)]] * 20
    assert postgresql.execute("SET work_mem = '8MB'") == []


def test_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(Missing, match=r"missing: psycopg or psycopg2; pip install"):
        PostgreSQL().start()


def test_closed_folder_above_the_server_is_reported(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root runs the server as another user")
    tmp_path.chmod(0o700)

    with pytest.raises(ValueError, match="one of the folders above it is closed"):
        PostgreSQL(tmp_path / "server").start()


def test_newest_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(folder: Path) -> Path:
        folder.mkdir(parents=True)
        binary = folder / "postgres"
        binary.touch(mode=0o755)
        return binary

    find: Callable[[], Path | None] = PostgreSQL.find
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(module_of_postgresql, "FOLDERS", [(str(tmp_path), "*/bin")])
    assert find() is None
    install(tmp_path / "9.6/bin")
    newest = install(tmp_path / "15/bin")
    assert find() == newest
    on_path = install(tmp_path / "path")
    assert find() == on_path


# --- PgBouncer ----------------------------------------------------------------------------------------------


def test_pgbouncer_leads_to_the_databases_of_its_server(
    transaction_pgbouncer: PgBouncer, postgresql: PostgreSQL, new_database: NewDatabase
) -> None:
    settings = transaction_pgbouncer.database(new_database(postgresql))

    with closing(connect(settings, psycopg)) as connection:
        row = connection.execute("SELECT current_database(), pg_backend_pid()").fetchone()
        assert row[0] == settings["NAME"]
        assert row[1] != connection.info.backend_pid
    pools = {pool["database"]: pool["pool_mode"] for pool in transaction_pgbouncer.ask("SHOW POOLS")}
    assert pools[settings["NAME"]] == "transaction"
    with pytest.raises(ValueError, match="no tls"):
        transaction_pgbouncer.database("", via="tls")


@pytest.mark.parametrize("immediate", [False, True])
def test_pgbouncer_restarts_on_its_port(postgresql: PostgreSQL, immediate: bool) -> None:
    with PgBouncer(postgresql, settings={"max_client_conn": "7"}) as pgbouncer:
        before = pgbouncer.pid, pgbouncer.port, pgbouncer.folder

        pgbouncer.restart(immediate=immediate)

        assert pgbouncer.pid != before[0]
        assert (pgbouncer.port, pgbouncer.folder) == before[1:]
        config = {row["key"]: row["value"] for row in pgbouncer.ask("SHOW CONFIG")}
        assert config["max_client_conn"] == "7"
    assert not pgbouncer.folder.exists()


def test_pgbouncer_ends_when_its_owner_is_killed() -> None:
    program = """
import sys
from servers import PgBouncer, PostgreSQL

server = PostgreSQL().start()
pgbouncer = PgBouncer(server).start()
print(pgbouncer.pid, pgbouncer.folder, server.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        pid, *folders = owner.stdout.readline().split()
        assert is_alive(int(pid))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        eventually("the folders are removed", lambda: not any(map(os.path.exists, folders)), 30)
        assert not is_alive(int(pid))


def test_missing_pgbouncer_is_reported(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PgBouncer, "find", staticmethod(lambda: None))

    with pytest.raises(Missing, match=r"missing: PgBouncer; .*tools/system_packages"):
        PgBouncer(postgresql).start()
