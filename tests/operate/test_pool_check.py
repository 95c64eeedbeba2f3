"""``manage.py pool_check``, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction

from poollife.board.layout import OPENED
from poollife.monitoring.dialects.mysql import galera, passing_read_only
from servers import MariaDB, PgBouncer, PostgreSQL, Proxy
from servers.ports import free_port
from servers.postgresql import REPLICATES
from tests.conftest import MakeAlias
from tests.support.counting import pool_of

Findings = dict[str, dict[str, str]]
POSTGRESQL = "poollife.backends.postgresql"
#: ``make_alias`` of MySQL or PostgreSQL.
Make = Callable[..., str]


def check(*aliases: str) -> tuple[dict[str, Findings], int]:
    """Return the findings by alias and by subject, and the exit status."""
    out, status = StringIO(), 0
    try:
        call_command("pool_check", *aliases, "--json", stdout=out)
    except CommandError as error:
        status = error.returncode
    report = json.loads(out.getvalue())
    assert (report["problems"] > 0) == (status == 1)
    return {
        alias: {each["subject"]: each for each in found} for alias, found in report["aliases"].items()
    }, status


def findings(alias: str) -> Findings:
    return check(alias)[0][alias]


def levels(found: Findings) -> dict[str, str]:
    """Return the levels that are not "ok"."""
    return {subject: each["level"] for subject, each in found.items() if each["level"] != "ok"}


def value(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


@pytest.fixture(params=["mysql", "mysql_pymysql", "postgresql"])
def make(request: pytest.FixtureRequest, make_alias: MakeAlias) -> Make:
    """Makes an alias whose user has no privilege too much."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        return lambda **entry: make_alias(POSTGRESQL, server=server, **entry)
    new_user = request.getfixturevalue("new_user")
    return lambda **entry: make_alias(f"poollife.backends.{request.param}", **new_user("ALL"), **entry)


@pytest.fixture
def new_user(mariadb: MariaDB) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes a user with privileges on the databases of tests, and others, and returns its settings."""
    names: list[str] = []

    def make(privileges: str = "ALL", everywhere: str = "", options: str = "") -> dict[str, Any]:
        name = f"user_{len(names)}"
        mariadb.execute(f"CREATE USER {name} IDENTIFIED BY 'secret' {options}")
        names.append(name)
        mariadb.execute(f"GRANT {privileges} ON `test\\_%`.* TO {name}")
        if everywhere:
            mariadb.execute(f"GRANT {everywhere} ON *.* TO {name}")
        return {"USER": name, "PASSWORD": "secret"}

    yield make
    for name in names:
        mariadb.execute(f"DROP USER {name}")


@contextmanager
def is_read_only(server: MariaDB) -> Iterator[None]:
    server.execute("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        server.execute("SET GLOBAL read_only = 0")


def test_all_is_well_on_a_server_of_ones_own(make: Make) -> None:
    alias = make()
    found, status = check(alias)
    assert (levels(found[alias]), status) == ({}, 0)
    assert found[alias].keys() >= {"role", "privileges", "proxy", "TLS", "idle sessions", "limit", "reset"}
    assert found[alias]["proxy"]["text"].startswith("none is seen")
    assert found[alias]["round trip"]["text"].endswith(" ms, the median of 20")


def test_connection_goes_back_and_is_as_others_expect_it(make: Make) -> None:
    alias = make(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 5})
    is_postgresql = connections[alias].vendor == "postgresql"
    # Django sets both in each new session: a reset sets MariaDB's back.
    question = "SHOW TimeZone" if is_postgresql else "SELECT @@tx_isolation"
    is_new = value(alias, question)
    assert is_new == ("UTC" if is_postgresql else "READ-COMMITTED")
    connections[alias].close()
    for _ in range(2):
        assert check(alias)[1] == 0
        assert (pool_of(alias).out, connections[alias].connection) == (0, None)
    assert value(alias, question) == is_new
    assert pool_of(alias).counters[OPENED] == 1


def test_a_transaction_of_the_caller_goes_on(make: Make) -> None:
    alias = make()
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE kit (id INTEGER)")
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("INSERT INTO kit VALUES (1)")
        found = findings(alias)
        assert value(alias, "SELECT COUNT(*) FROM kit") == 1
        transaction.set_rollback(True, using=alias)
    assert "reset" not in found
    assert levels(found) == {}
    assert value(alias, "SELECT COUNT(*) FROM kit") == 0


@pytest.mark.parametrize("everywhere", ["", "SUPER", "READ_ONLY ADMIN", "ALL PRIVILEGES"])
def test_privileges_that_pass_read_only_are_those_that_write(
    make_alias: MakeAlias, new_user: Callable[..., dict[str, Any]], mariadb: MariaDB, everywhere: str
) -> None:
    alias = make_alias(**new_user("ALL", everywhere))
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE kit (id INTEGER)")
    connections[alias].close()
    writable, status = check(alias)
    assert status == 0
    with is_read_only(mariadb):
        read_only, status = check(alias)
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute("INSERT INTO kit VALUES (1)")
            writes = True
        except DatabaseError:
            writes = False
        connections[alias].close()
    assert writable[alias]["privileges"]["level"] == ("warning" if writes else "ok")
    assert read_only[alias]["privileges"]["level"] == ("problem" if writes else "ok")
    assert (writable[alias]["role"]["level"], read_only[alias]["role"]["level"]) == ("ok", "warning")
    assert (status == 1) == writes


def test_privileges_that_pass_read_only_depend_on_the_version() -> None:
    assert "SUPER" in passing_read_only("10.6.12-MariaDB-log")
    assert "SUPER" not in passing_read_only("10.11.19-MariaDB-0+deb12u1")
    assert {"SUPER", "CONNECTION_ADMIN"} <= passing_read_only("8.0.36")
    assert "READ_ONLY ADMIN" not in passing_read_only("8.0.36")


@pytest.mark.parametrize(
    ("pool", "level"),
    [
        ({}, "warning"),
        ({"ping_idle": 5}, "ok"),
        ({"pre_ping": True}, "ok"),
        ({"ping_idle": 5, "recycle": 10}, "ok"),
        ({"ping_idle": 5, "recycle": 20}, "warning"),
        ({"ping_idle": 5, "recycle": -1}, "warning"),
    ],
    ids=str,
)
def test_server_that_ends_idle_sessions_early(make: Make, pool: dict[str, Any], level: str) -> None:
    alias = make(POOL=pool)
    entry = connections[alias].settings_dict
    if connections[alias].vendor == "postgresql":
        entry["OPTIONS"]["options"] = "-c idle_session_timeout=20000"
    else:
        entry["OPTIONS"]["init_command"] = "SET SESSION wait_timeout = 20"
    found = findings(alias)["idle sessions"]
    assert (found["level"], found["text"].partition(",")[0]) == (level, "the server ends them after 20 s")


def test_server_out_of_reach_is_a_problem_and_others_are_asked(make: Make) -> None:
    away, there = make(PORT=str(free_port())), make()
    found, status = check(away, there)
    assert status == 1
    assert levels(found[away]) == {"connection": "problem"}
    assert levels(found[there]) == {}


def test_failing_credentials_function_is_a_problem(make: Make) -> None:
    def ask() -> str:
        raise RuntimeError("the vault is sealed")

    alias = make(POOL={"credentials": ask})
    assert findings(alias)["connection"]["text"] == "RuntimeError: the vault is sealed"


@pytest.mark.parametrize(
    ("options", "pool", "expected"),
    [
        ({}, {}, {"read_timeout": "warning", "recycle": "warning"}),
        ({"read_timeout": 30}, {"recycle": 3600}, {"recycle": "warning"}),
        ({"read_timeout": 30}, {"recycle": 300}, {}),
    ],
    ids=str,
)
def test_mysql_behind_a_proxy_needs_a_read_timeout_and_a_short_life(
    make_alias: MakeAlias,
    new_user: Callable[..., dict[str, Any]],
    mariadb: MariaDB,
    options: dict[str, Any],
    pool: dict[str, Any],
    expected: dict[str, str],
) -> None:
    with Proxy(mariadb.host, mariadb.port) as proxy:
        alias = make_alias(PORT=str(proxy.port), OPTIONS=options, POOL=pool, **new_user())
        found = findings(alias)
    assert levels(found) == expected
    assert f"port {proxy.port} was called, and the server has port {mariadb.port}" in found["proxy"]["text"]


def test_postgresql_behind_a_proxy(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    with Proxy(postgresql.host, postgresql.port) as proxy:
        found = findings(make_alias(POSTGRESQL, server=postgresql, PORT=str(proxy.port)))
    assert levels(found) == {"recycle": "warning"}
    assert f"port {proxy.port} was called" in found["proxy"]["text"]


def test_pooler_is_seen(
    make_alias: MakeAlias, session_pgbouncer: PgBouncer, transaction_pgbouncer: PgBouncer
) -> None:
    found = findings(make_alias(POSTGRESQL, server=session_pgbouncer))
    assert levels(found) == {"proxy": "warning"}
    alias = make_alias(
        POSTGRESQL,
        server=transaction_pgbouncer,
        DISABLE_SERVER_SIDE_CURSORS=True,
        POOL={"behind": "transaction_pooler"},
    )
    found = findings(alias)
    assert levels(found) == {}
    assert found["reset"]["text"] == "none behind a transaction pooler"


def test_pooler_that_is_not_there_is_a_warning(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    pool = {"behind": "transaction_pooler"}
    alias = make_alias(POSTGRESQL, server=postgresql, DISABLE_SERVER_SIDE_CURSORS=True, POOL=pool)
    assert levels(findings(alias)) == {"proxy": "warning"}


@pytest.mark.parametrize(("via", "text"), [("tls", "encrypted: TLS"), ("socket", "over a socket")])
def test_way_to_the_server(
    make_alias: MakeAlias,
    new_user: Callable[..., dict[str, Any]],
    mariadb: MariaDB,
    postgresql: PostgreSQL,
    via: Any,
    text: str,
) -> None:
    mysql = make_alias(via=via, **new_user())
    for alias in (mysql, make_alias(POSTGRESQL, server=postgresql, via=via)):
        found = findings(alias)
        assert text in found["TLS"]["text"]
        assert levels(found) == {}


def test_limit_above_that_of_the_account_is_a_problem(
    make_alias: MakeAlias, new_user: Callable[..., dict[str, Any]], postgresql: PostgreSQL
) -> None:
    user = new_user(options="WITH MAX_USER_CONNECTIONS 3")
    large, small = make_alias(**user), make_alias(**user, POOL={"pool_size": 2, "max_overflow": 0})
    assert check(large)[1] == 1
    assert "max_user_connections of" in findings(large)["limit"]["text"]
    assert check(small)[1] == 0
    database = make_alias(POSTGRESQL, server=postgresql)
    name = connections[database].settings_dict["NAME"]
    postgresql.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 4")
    assert levels(findings(database)) == {"limit": "problem"}


@pytest.mark.slow
def test_standby_is_a_warning(make_alias: MakeAlias) -> None:
    with PostgreSQL(options=REPLICATES) as primary, primary.standby() as standby:
        alias = make_alias(POSTGRESQL, server=standby, NAME="postgres")
        found = findings(alias)
        connections[alias].close()
        pool_of(alias).close_idle()
    assert levels(found) == {"role": "warning"}
    assert found["role"]["text"] == "a standby: writes fail"


def test_postgresql_that_is_read_only_and_a_superuser(make_alias: MakeAlias) -> None:
    with PostgreSQL(superuser=True) as server:
        options = {**server.database("")["OPTIONS"], "options": "-c default_transaction_read_only=on"}
        alias = make_alias(POSTGRESQL, server=server, NAME="postgres", OPTIONS=options)
        assert levels(findings(alias)) == {"role": "warning", "privileges": "warning"}
        pool_of(alias).close_idle()


def test_node_out_of_its_cluster_is_a_problem() -> None:
    """No node of Galera's takes part in the tests: its variables are those that one had."""
    node = {"wsrep_on": "ON", "wsrep_ready": "ON", "wsrep_cluster_size": "3", "wsrep_sync_wait": "0"}
    assert list(galera({"wsrep_on": "OFF", "wsrep_ready": "OFF"})) == []
    assert [each.level for each in galera(node)] == ["ok", "warning"]
    assert [each.level for each in galera({**node, "wsrep_sync_wait": "1"})] == ["ok"]
    assert [each.level for each in galera({**node, "wsrep_ready": "OFF"})] == ["problem", "warning"]


def test_sqlite_and_other_engines_have_nothing_to_be_asked(make_alias: MakeAlias) -> None:
    sqlite = make_alias("poollife.backends.sqlite3", NAME=":memory:")
    found, status = check("default", sqlite)
    assert status == 0
    assert found["default"]["pool"]["text"] == "not asked: django.db.backends.dummy is none of poollife's"
    assert found[sqlite]["server"]["text"] == "nothing to ask: SQLite has no server"


def test_tables_have_each_line_with_its_cure(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias, out = make_alias(), StringIO()
    with is_read_only(mariadb), pytest.raises(CommandError, match=r"^1 problem$"):
        call_command("pool_check", alias, stdout=out)
    (line,) = [line for line in out.getvalue().splitlines() if "privileges" in line]
    assert "problem" in line
    assert "ALL PRIVILEGES" in line


def test_unknown_alias_is_refused() -> None:
    with pytest.raises(CommandError, match="not in DATABASES: no_such_alias"):
        call_command("pool_check", "no_such_alias")
