"""``manage.py check``: each bad setting by its id, with words that lead to the cure; nothing is connected."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test.utils import modify_settings, override_settings

from poollife import checks
from poollife.backends.mixin import PooledMixin
from poollife.middleware import PoolMiddleware
from tests.support import ROOT, needs

MYSQL = "poollife.backends.mysql"
SQLITE = "poollife.backends.sqlite3"
FIRST = "poollife.middleware.PoolMiddleware"
urlpatterns: list[Any] = []
COMMON = "django.middleware.common.CommonMiddleware"
SITE: dict[str, Any] = {"ROOT_URLCONF": __name__, "MIDDLEWARE": [FIRST, COMMON]}


class OwnPoolMiddleware(PoolMiddleware):
    """Somebody's own, which counts."""


Check = Callable[..., list[CheckMessage]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """A function that checks a site with these entries of DATABASES and these settings."""

    def refuse(*_: object) -> None:
        raise AssertionError("a check opens a connection")

    monkeypatch.setattr(PooledMixin, "connect", refuse)
    aliases: set[str] = set()

    def run(databases: dict[str, dict[str, Any]], tag: str | None = "poollife", **settings: Any) -> Any:
        known = {"default": {"ENGINE": "django.db.backends.dummy"}, **databases}
        monkeypatch.setattr(connections, "settings", connections.configure_settings(known))
        aliases.update(databases)
        with override_settings(**{**SITE, **settings}):
            issues = run_checks(tags=tag and [tag])
        return sorted(issues, key=lambda issue: issue.id or "")

    yield run
    for alias in aliases:
        if hasattr(connections._connections, alias):  # type: ignore[attr-defined]
            del connections[alias]


def mysql(**entry: Any) -> dict[str, Any]:
    return {"ENGINE": MYSQL, "NAME": "site", "HOST": "db", **entry}


def postgresql(**entry: Any) -> dict[str, Any]:
    return {"ENGINE": "poollife.backends.postgresql", "NAME": "site", "HOST": "db", **entry}


def behind(**entry: Any) -> dict[str, Any]:
    """An entry behind a transaction pooler."""
    pool = {"behind": "transaction_pooler"}
    return postgresql(**{"DISABLE_SERVER_SIDE_CURSORS": True, "POOL": pool, **entry})


def sqlite(**entry: Any) -> dict[str, Any]:
    return {"ENGINE": SQLITE, "NAME": "site.sqlite3", **entry}


# --- what is right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "databases",
    [
        {},
        {"shop": mysql()},
        {"shop": mysql(POOL={})},
        {"shop": mysql(POOL=True)},
        {"shop": mysql(POOL=False)},
        {
            "shop": mysql(
                POOL={"pool_size": 4, "max_overflow": 0, "timeout": 29.5, "recycle": -1, "ping_idle": 60}
            )
        },
        {"shop": mysql(POOL={"recycle": 600, "ping_idle": 30})},
        {"shop": mysql(POOL={"recycle": 10})},  # ping_idle is above it, but nobody asked for it
        {"shop": mysql(POOL={"pre_ping": True})},
        {"shop": mysql(POOL=MappingProxyType({"pool_size": 4}))},
        {"shop": mysql(OPTIONS={"charset": "utf8mb4", "connect_timeout": 3}, CONN_MAX_AGE=0)},
        {"shop": sqlite(POOL={"pool_size": 2}, OPTIONS={"timeout": 20})},
        {"shop": sqlite(NAME=":memory:")},
        {"shop": mysql(OPTIONS=None)},
        {"shop": mysql(POOL={"pool_size": 4}), "again": mysql(POOL={"pool_size": 4})},
        {"shop": mysql(POOL={"pool_size": 4}), "other": mysql(NAME="other", POOL={"max_overflow": 0})},
        {"shop": mysql(POOL={"preset": "fast_and_sane"}), "again": mysql(POOL={"preset": "fast_and_sane"})},
        {"shop": mysql(), "other": mysql(NAME="other", POOL=False)},  # which has no limit
        {"shop": mysql(), "file": sqlite(HOST="db"), "another": sqlite(HOST="db", NAME="b.sqlite3")},
        {"shop": mysql(POOL={"reset": "rollback"}, OPTIONS={"read_default_file": "my.cnf"})},
        {"shop": {**mysql(OPTIONS={"read_default_group": "x"}), "ENGINE": "poollife.backends.mysql_pymysql"}},
        {"shop": mysql(POOL={"pool_size": 4}), "replica": mysql(HOST="replica")},
        {"shop": mysql(POOL={"pool_size": 4}), "reader": mysql(USER="reader", POOL={"pool_size": 1})},
        {
            "shop": mysql(),
            "stock": {"ENGINE": "django.db.backends.sqlite3", "CONN_MAX_AGE": None, "ATOMIC_REQUESTS": True},
        },
        {"absent": {"ENGINE": "no.such.backend", "CONN_MAX_AGE": 60}},  # Django says so itself
        {"composed": {"ENGINE": "tests.support.engines.tenants", "NAME": "site"}},
        {"shop": behind()},
        {"shop": behind(OPTIONS={"prepare_threshold": None, "server_side_binding": True})},
        {"shop": postgresql(OPTIONS={"prepare_threshold": 5, "assume_role": "shop"})},
    ],
    ids=repr,
)
def test_nothing_to_say(check: Check, databases: dict[str, dict[str, Any]]) -> None:
    assert check(databases) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"MIDDLEWARE": [FIRST]},
        {"MIDDLEWARE": ["tests.interface.test_checks.OwnPoolMiddleware", COMMON]},
        {"MIDDLEWARE": [FIRST, FIRST]},
        {"MIDDLEWARE": [FIRST, "no.such.middleware"]},
        {"MIDDLEWARE": [], "ROOT_URLCONF": None},
        {"POOLLIFE_STATUS_ACCESS": "os.getpid"},
        {"POOLLIFE_STATUS_ACCESS": os.getpid},
    ],
    ids=repr,
)
def test_nothing_to_say_of_the_site(check: Check, settings: dict[str, Any]) -> None:
    assert check({"shop": mysql()}, **settings) == []


def test_a_site_without_our_engine_may_do_as_it_likes(check: Check) -> None:
    with modify_settings(INSTALLED_APPS={"remove": "poollife"}):
        assert check({}, MIDDLEWARE=[], MYSQLPOOL_BACKEND="QueuePool") == []


# --- what is not -----------------------------------------------------------------------------------------

#: Entries of DATABASES, the id, words of the message, words of the hint.
BAD_DATABASES: list[tuple[dict[str, dict[str, Any]], str, str, str]] = [
    (
        {"shop": behind(DISABLE_SERVER_SIDE_CURSORS=False)},
        "E006",
        "POOL['behind'] is 'transaction_pooler': QuerySet.iterator() would open cursors that outlive their",
        'Set "DISABLE_SERVER_SIDE_CURSORS": True in this entry.',
    ),
    (
        {"shop": behind(OPTIONS={"prepare_threshold": 0})},
        "E006",
        "OPTIONS has 'prepare_threshold', and a prepared statement stays in one session",
        "Leave it out",
    ),
    (
        {"shop": behind(OPTIONS={"assume_role": "shop"})},
        "E006",
        "OPTIONS has 'assume_role', and a SET ROLE stays in one session",
        "ALTER ROLE",
    ),
    (
        {"shop": mysql(POOL={"behind": "transaction_pooler"})},
        "E006",
        "DATABASES['shop']: POOL['behind'] is 'transaction_pooler': the ENGINE is not one for PostgreSQL",
        "Leave it out.",
    ),
    (
        {"shop": sqlite(POOL={"behind": "transaction_pooler"})},
        "E006",
        "the ENGINE is not one for PostgreSQL, and knows no such proxy",
        "Leave it out.",
    ),
    (
        {"shop": mysql(POOL={"behind": "pgbouncer"})},
        "E001",
        "'behind' takes \"transaction_pooler\"",
        "Correct",
    ),
    (
        {"shop": mysql(POOL={"pool_sise": 5})},
        "E001",
        "DATABASES['shop']: POOL['pool_sise'] is 5: unknown key; did you mean 'pool_size'?",
        "has a default",
    ),
    (
        {"shop": mysql(POOL={"POOL_SIZE": 5})},
        "E001",
        "POOL['POOL_SIZE'] is 5: unknown key; did you mean 'pool_size'?",
        "Correct it or leave it out",
    ),
    ({"shop": mysql(POOL={"max_size": 5})}, "E001", "did you mean 'max_overflow'?", "Correct it"),
    ({"shop": mysql(POOL={"pool_size": 0})}, "E001", "'pool_size' takes a whole number from 1", "Correct it"),
    ({"shop": mysql(POOL={"pool_size": "5"})}, "E001", "POOL['pool_size'] is '5'", "Correct it"),
    ({"shop": mysql(POOL={"max_overflow": -1})}, "E001", "takes a whole number from 0", "Correct it"),
    ({"shop": mysql(POOL={"timeout": None})}, "E001", "waiting for ever is not offered", "Correct it"),
    ({"shop": mysql(POOL={"recycle": 0})}, "E001", "at least one second, or -1 for never", "Correct it"),
    ({"shop": mysql(POOL={"pre_ping": 1})}, "E001", "'pre_ping' takes True or False", "Correct it"),
    ({"shop": mysql(POOL={"poolclass": "QueuePool"})}, "E001", "a dotted path", "Correct it"),
    (
        {"shop": mysql(POOL={"poolclass": "sqlalchemy.pool.NullPool", "pool_size": 5})},
        "E001",
        "POOL['pool_size'] is 5: leave it out: NullPool keeps no sessions",
        "Correct it",
    ),
    ({"shop": mysql(POOL="on")}, "E001", "POOL is 'on': use a dictionary of options, or False", "Correct it"),
    ({"shop": sqlite(POOL={"size": 5})}, "E001", "did you mean 'pool_size'?", "Correct it"),
    (
        {"shop": {**mysql(POOL=5), "ENGINE": "tests.support.engines.composed"}},
        "E001",
        "POOL is 5",
        "Correct it",
    ),
    (
        {"shop": mysql(OPTIONS={"pool": True})},
        "E002",
        "DATABASES['shop']: OPTIONS['pool'] is True: use DATABASES['shop']['POOL']",
        "OPTIONS goes to the driver",
    ),
    (
        {"shop": mysql(OPTIONS={"pool": {"min_size": 2}}, POOL={"pool_size": 2})},
        "E002",
        "OPTIONS['pool'] is {'min_size': 2}",
        "POOL stands beside it",
    ),
    ({"shop": mysql(CONN_MAX_AGE=60)}, "E003", "DATABASES['shop']: CONN_MAX_AGE is 60: ", "Leave it out"),
    ({"shop": mysql(CONN_MAX_AGE=None)}, "E003", "CONN_MAX_AGE is None", "POOL['recycle']"),
    ({"shop": mysql(CONN_MAX_AGE=60, POOL=False)}, "E003", "CONN_MAX_AGE is 60", "conn_max_age=0"),
    ({"shop": sqlite(CONN_MAX_AGE=600)}, "E003", "CONN_MAX_AGE is 600", "Leave it out"),
    (
        {"shop": {"ENGINE": "tests.support.engines.general", "CONN_MAX_AGE": 5}},
        "E003",
        "CONN_MAX_AGE is 5",
        "Leave it",
    ),
    (
        {"shop": mysql(OPTIONS={"pool_size": 5, "recycle": 60, "charset": "utf8mb4"})},
        "E004",
        "DATABASES['shop']: OPTIONS has 'pool_size', 'recycle'",
        "Move it to DATABASES['shop']['POOL']",
    ),
    (
        {"shop": sqlite(OPTIONS={"pre_ping": True, "timeout": 20})},
        "E004",
        "OPTIONS has 'pre_ping':",
        "Move it",
    ),
    (
        {"shop": {"ENGINE": "django.db.backends.sqlite3", "POOL": {"pool_size": 5}}},
        "W004",
        "DATABASES['shop']: POOL does nothing: ENGINE 'django.db.backends.sqlite3' does not pool",
        '"poollife.backends.mysql"',
    ),
    (
        {"shop": {"ENGINE": "django.db.backends.mysql", "POOL": False}},
        "W004",
        "POOL does nothing",
        "leave POOL out",
    ),
    ({"shop": mysql(CONN_HEALTH_CHECKS=True)}, "W005", "CONN_HEALTH_CHECKS adds nothing", "POOL['pre_ping']"),
    (
        {"shop": mysql(POOL={"pre_ping": True, "ping_idle": 5})},
        "W006",
        "POOL['ping_idle'] does nothing beside POOL['pre_ping']",
        "Leave one of the two out",
    ),
    (
        {"shop": mysql(POOL={"recycle": 30, "ping_idle": 30})},
        "W007",
        "POOL['ping_idle'] is 30: that has no effect, because a session is replaced",
        "Give a ping_idle below recycle",
    ),
    (
        {"shop": mysql(POOL={"timeout": 30})},
        "W008",
        "POOL['timeout'] is 30: gunicorn kills",
        "default is 10 seconds",
    ),
    (
        {"shop": mysql(POOL={"timeout": 3, "outage_wait": 4})},
        "W014",
        "POOL['outage_wait'] is 4, but no checkout waits for longer than POOL['timeout'], 3 seconds.",
        "no more than timeout",
    ),
    (
        {"shop": mysql(HOST="db1,db2:3307")},
        "W015",
        "HOST lists several servers, and POOL has no role: sessions lead to the first that listens",
        "'role': 'primary', or 'replica'",
    ),
    (
        {"shop": sqlite(POOL={"role": "primary"})},
        "E001",
        "POOL['role'] is 'primary': leave it out: this database has no replicas",
        "each option has a default",
    ),
    ({"shop": mysql(POOL={"timeout": 86400})}, "W008", "POOL['timeout'] is 86400", "well below the timeout"),
    (
        {"shop": sqlite(NAME=":memory:", POOL={"pool_size": 2})},
        "W009",
        "DATABASES['shop']: POOL does nothing for a database in memory",
        "the path of a file",
    ),
    (
        {"shop": mysql(POOL={"pool_size": 4}), "again": mysql(POOL={"pool_size": 5})},
        "W010",
        "DATABASES['shop'] and DATABASES['again'] are the same database, but their POOL differs",
        "max_connections",
    ),
    (
        {"shop": mysql(PORT="3306"), "again": mysql(PORT=3306, POOL={"timeout": 5})},
        "W010",
        "the same database",
        "a pool of its own",
    ),
    (
        {"shop": mysql(POOL_OPTIONS={"POOL_SIZE": 10})},
        "W011",
        "DATABASES['shop']['POOL_OPTIONS'] does nothing: poollife reads only POOL",
        '"POOL": {"pool_size": 5',
    ),
    (
        {"shop": mysql(pool_size=5)},
        "W011",
        "DATABASES['shop']['pool_size'] does nothing",
        "names in lower case",
    ),
    ({"shop": mysql(RECYCLE=60)}, "W011", "DATABASES['shop']['RECYCLE'] does nothing", "Move it there"),
    (
        {"shop": mysql(ATOMIC_REQUESTS=True)},
        "I001",
        "ATOMIC_REQUESTS borrows a connection for every request",
        "transaction.non_atomic_requests",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.mariadb")},
        "E005",
        "DATABASES['shop']: ENGINE 'poollife.backends.mariadb' does not exist",
        "Did you mean 'poollife.backends.mysql'? There are 'poollife.backends.jdbc', ",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.jdbc.oracel")},
        "E005",
        "ENGINE 'poollife.backends.jdbc.oracel' does not exist",
        "Did you mean 'poollife.backends.jdbc.oracle'?",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.oceanbase")},
        "E005",
        "ENGINE 'poollife.backends.oceanbase' does not exist",
        "Did you mean 'poollife.backends.jdbc.oceanbase'?",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.jdbc")},
        "E009",
        "DATABASES['shop'] has no JDBC_DRIVER and no JDBC_URL, which ENGINE 'poollife.backends.jdbc' needs.",
        "Such as 'JDBC_DRIVER': 'org.mariadb.jdbc.Driver', 'JDBC_URL': 'jdbc:mariadb://{HOST}:{PORT}/{NAME}'.",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.jdbc", JDBC_DRIVER="org.h2.Driver", JDBC_URL="")},
        "E009",
        "DATABASES['shop'] has no JDBC_URL, which",
        "Such as 'JDBC_URL': ",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.jdbc.oracle")},
        "I004",
        "was never tried with Oracle's JDBC driver",
        "'poollife.backends.oracle' needs no Java",
    ),
    (
        {"shop": mysql(ENGINE="poollife.backends.jdbc.oceanbase")},
        "I004",
        "DATABASES['shop']: ENGINE 'poollife.backends.jdbc.oceanbase' is experimental",
        "For a tenant in MySQL mode use 'poollife.backends.mysql', which needs no Java.",
    ),
    (
        {"shop": mysql(), "other": mysql(ENGINE="poollife.backends.sqlite", POOL={"pool_size": 1})},
        "E005",
        "DATABASES['other']: ENGINE 'poollife.backends.sqlite' does not exist",
        "Did you mean 'poollife.backends.sqlite3'?",
    ),
    (
        {"shop": mysql(ENGINE="poollife.mysql.base")},
        "E005",
        "ENGINE 'poollife.mysql.base' does not exist",
        "There are 'poollife.backends.jdbc', 'poollife.backends.jdbc.oceanbase', "
        "'poollife.backends.jdbc.oracle', 'poollife.backends.mysql', 'poollife.backends.mysql_gis', "
        "'poollife.backends.mysql_pymysql', 'poollife.backends.oracle', 'poollife.backends.postgis', "
        "'poollife.backends.postgresql', 'poollife.backends.sqlite3'.",
    ),
    (
        {"shop": mysql(ENGINE="django.db.backends.mysql")},
        "W012",
        "INSTALLED_APPS and MIDDLEWARE have poollife, but no ENGINE in DATABASES pools "
        "('shop': 'django.db.backends.mysql')",
        "something replaces it later",
    ),
    (
        {"shop": {"ENGINE": "django.db.backends.sqlite3"}, "other": {"ENGINE": "django.db.backends.mysql"}},
        "W012",
        "('shop': 'django.db.backends.sqlite3', 'other': 'django.db.backends.mysql')",
        "silence this",
    ),
    (
        {"shop": mysql(POOL={"reset": "always"}, OPTIONS={"read_default_file": "/etc/mysql/my.cnf"})},
        "W013",
        "OPTIONS has 'read_default_file': a session can't be reset",
        "Say in DATABASES what the file says",
    ),
    (
        {"shop": mysql(OPTIONS={"read_default_file": "my.cnf", "read_default_group": "shop"})},
        "I003",
        "OPTIONS has 'read_default_file', 'read_default_group': a session can't be reset",
        "plain queries",
    ),
    (
        {
            "shop": {
                **mysql(OPTIONS={"read_default_file": "my.cnf"}),
                "ENGINE": "tests.support.engines.composed",
            }
        },
        "I003",
        "costs a connect",
        "silence this",
    ),
    (
        {
            "shop": mysql(POOL={"pool_size": 4}),
            "other": mysql(NAME="other"),
            "replica": mysql(HOST="replica"),
        },
        "I002",
        "DATABASES has 2 aliases on one server: each process may open 14 (shop) + 15 (other) = 29 conn",
        "Give each its pool_size",
    ),
    (
        {"shop": mysql(), "again": mysql()},
        "I002",
        "15 (shop) + 15 (again) = 30 connections",
        "max_connections",
    ),
]

BAD_SITES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"MIDDLEWARE": []}, "W002", f"MIDDLEWARE has no {FIRST}", f'MIDDLEWARE = ["{FIRST}", ...]'),
    ({"MIDDLEWARE": [COMMON, "no.such.middleware"]}, "W002", "however slow the client is", FIRST),
    ({"MIDDLEWARE": [COMMON, FIRST]}, "W003", f"{COMMON} stands before {FIRST}", "Put PoolMiddleware first"),
    (
        {"MIDDLEWARE": [COMMON, "tests.interface.test_checks.OwnPoolMiddleware"]},
        "W003",
        f"{COMMON} stands before",
        "first",
    ),
    (
        {"POOLLIFE_STATUS_ACCESS": "no.such"},
        "E007",
        "is 'no.such': ModuleNotFoundError: No module",
        "leave the setting",
    ),
    ({"POOLLIFE_STATUS_ACCESS": "..x.y"}, "E007", "is '..x.y': TypeError: ", "function"),
    ({"POOLLIFE_STATUS_ACCESS": "os.name"}, "E007", "is 'os.name': it is neither a callable nor", "function"),
    (
        {"POOLLIFE_STATUS_ACCESS": None},
        "E007",
        "is None: it is neither a callable nor the dotted",
        "function",
    ),
    ({"MYSQLPOOL_BACKEND": "QueuePool"}, "W011", "MYSQLPOOL_BACKEND does nothing", "Move it there"),
    ({"MYSQLPOOL_ARGUMENTS": {"pool_size": 5}}, "W011", "MYSQLPOOL_ARGUMENTS does nothing", '"POOL": {'),
    ({"DATABASE_POOL_ARGS": {"pool_size": 5}}, "W011", "DATABASE_POOL_ARGS does nothing", '"POOL": {'),
]


def assert_says(issues: list[CheckMessage], name: str, text: str, hint: str) -> None:
    """Exactly one issue, of this id, and its level is that of its letter."""
    (issue,) = issues
    assert issue.id == f"poollife.{name}"
    assert type(issue).__name__ == {"E": "Error", "W": "Warning", "I": "Info"}[name[0]]
    assert text in issue.msg
    assert issue.hint
    assert hint in issue.hint


@pytest.mark.parametrize(
    ("databases", "name", "text", "hint"), BAD_DATABASES, ids=lambda item: str(item)[:70]
)
def test_bad_databases(
    check: Check, databases: dict[str, dict[str, Any]], name: str, text: str, hint: str
) -> None:
    assert_says(check(databases), name, text, hint)


@pytest.mark.parametrize(("settings", "name", "text", "hint"), BAD_SITES, ids=lambda item: str(item)[:70])
def test_bad_sites(check: Check, settings: dict[str, Any], name: str, text: str, hint: str) -> None:
    assert_says(check({"shop": mysql()}, **settings), name, text, hint)


def test_the_app_is_missing(check: Check) -> None:
    """Loading the ENGINE has registered the checks."""
    with modify_settings(INSTALLED_APPS={"remove": "poollife"}):
        issues = check({"shop": mysql()})
    assert_says(issues, "W001", "INSTALLED_APPS has no poollife", 'INSTALLED_APPS = ["poollife", ...]')


def test_an_alias_that_mirrors_another_one_adds_nothing_up(check: Check) -> None:
    """It is there on purpose: for commands without the limits of requests, say."""
    mirror = mysql(TEST={"MIRROR": "shop"})
    assert check({"shop": mysql(), "slow": mirror}) == []
    issues = check({"shop": mysql(), "slow": mirror, "other": mysql(NAME="other")})
    assert_says(issues, "I002", "15 (shop) + 15 (other) = 30", "max_connections")


@pytest.mark.parametrize(
    ("app", "middleware", "parts"),
    [
        (True, [COMMON], "INSTALLED_APPS has"),
        (False, [COMMON, FIRST], "MIDDLEWARE has"),
        (False, [COMMON], ""),
    ],
)
def test_either_of_app_and_middleware_wants_an_engine(
    check: Check, app: bool, middleware: list[str], parts: str
) -> None:
    stock = {"shop": mysql(ENGINE="django.db.backends.mysql")}
    with modify_settings(INSTALLED_APPS={} if app else {"remove": "poollife"}):
        issues = check(stock, MIDDLEWARE=middleware)
    if parts:
        assert_says(issues, "W012", f"{parts} poollife, but no ENGINE", "silence this")
    else:
        assert issues == []


def test_all_at_once(check: Check) -> None:
    """One bad setting hides no other."""
    issues = check(
        {
            "a": mysql(
                CONN_MAX_AGE=60, ATOMIC_REQUESTS=True, POOL={"timeout": 60, "pre_ping": True, "ping_idle": 1}
            ),
            "b": mysql(POOL={"pool_size": 0}, CONN_MAX_AGE=1, CONN_HEALTH_CHECKS=True),
            "c": {"ENGINE": "django.db.backends.sqlite3", "POOL": {}},
        },
        MIDDLEWARE=[],
    )
    names = [issue.id.removeprefix("poollife.") for issue in issues if issue.id]
    assert names == ["E001", "E003", "E003", "I001", "W002", "W004", "W005", "W006", "W008", "W010"]


def test_without_any_tag(check: Check) -> None:
    """As `manage.py check`, `runserver` and others do."""
    issues = check({"shop": mysql(CONN_MAX_AGE=60)}, tag=None)
    assert "poollife.E003" in {issue.id for issue in issues}


def test_driver_that_the_process_cannot_use_is_told(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of Oracle's client, which ``init_oracle_client()`` loads, are not here."""
    needs.python_oracledb()
    monkeypatch.setattr("oracledb.is_thin_mode", lambda: False)
    (issue,) = check({"shop": {"ENGINE": "poollife.backends.oracle", "NAME": "db/shop"}})
    assert issue.id == "poollife.E008"
    assert "needs python-oracledb's thin mode" in issue.msg
    assert issue.hint == "Leave out oracledb.init_oracle_client()."


def test_every_check_is_documented() -> None:
    """``docs/checks.md`` has a row for each id, and none for others."""
    sources = Path(checks.__file__).parent.rglob("*.py")
    ids = {name for file in sources for name in re.findall(r'id="poollife\.(\w+)"', file.read_text())}
    rows = set(re.findall(r"^\| `poollife\.(\w+)` \|", (ROOT / "docs/checks.md").read_text(), re.MULTILINE))
    assert rows == ids
    assert {name for _, name, *_ in [*BAD_DATABASES, *BAD_SITES]} | {"W001", "E008"} == ids


# --- in a project of its own -----------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


def project(
    *arguments: str, port: int, pool: object = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python in the project."""
    default = mysql(HOST="127.0.0.1", PORT=port, POOL=pool)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.support.checks_site.settings",
        "CHECKS_SITE": json.dumps({"DATABASES": {"default": default}, **settings}),
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


CHECK = ("-m", "django", "check", "--tag", "poollife")
CHECK_ALL = ("-m", "django", "check")
SERVE = ("-c", "from django.core.wsgi import get_wsgi_application; get_wsgi_application()")


@pytest.mark.slow
def test_a_good_project(port: int) -> None:
    done = project(*CHECK, port=port)
    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), (
        done.stderr
    )
    assert project(*SERVE, port=port).returncode == 0


@pytest.mark.slow
def test_an_engine_that_was_replaced_after_the_settings_were_written(port: int) -> None:
    """As nautobot does where its metrics are on: nothing pools, and nothing else says so."""
    done = project(*CHECK, port=port, DATABASES={"default": mysql(ENGINE="django.db.backends.sqlite3")})
    assert done.returncode == 0
    assert "(poollife.W012) INSTALLED_APPS and MIDDLEWARE have poollife, but no ENGINE" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [CHECK, SERVE])
def test_an_engine_that_does_not_exist_is_named_before_a_model_is_imported(
    port: int, command: tuple[str, ...]
) -> None:
    """Django's own error for that comes first otherwise, and names only Django's ENGINEs."""
    done = project(*command, port=port, DATABASES={"default": mysql(ENGINE="poollife.backends.mariadb")})
    assert done.returncode == 1
    assert "DATABASES['default']: ENGINE 'poollife.backends.mariadb' does not exist." in done.stderr
    assert "Did you mean 'poollife.backends.mysql'? There are 'poollife.backends.jdbc'," in done.stderr
    assert "django.db.backends.XXX" not in done.stderr


@pytest.mark.slow
def test_a_bad_pool(port: int) -> None:
    """Although there are models, whose import makes a DatabaseWrapper."""
    done = project(*CHECK, port=port, pool={"pool_sise": 5})
    assert done.returncode == 1
    assert "(poollife.E001) DATABASES['default']: POOL['pool_sise'] is 5: unknown key" in done.stderr


@pytest.mark.slow
def test_a_bad_pool_is_no_traceback(port: int) -> None:
    """Nor where Django's own checks of the models ask for a connection before ours get to say anything."""
    done = project(*CHECK_ALL, port=port, pool={"pool_sise": 5})
    assert done.returncode == 1
    assert "DATABASES['default']: POOL['pool_sise'] is 5: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_web_server_refuses_a_bad_pool_at_once(port: int) -> None:
    """It runs no checks."""
    done = project(*SERVE, port=port, pool={"pool_sise": 5})
    assert done.returncode == 1
    assert "DATABASES['default']: POOL['pool_sise'] is 5: unknown key" in done.stderr


def test_read_options_refuses_what_contradicts_the_pooler(check: Check) -> None:
    """Web servers run no checks: the middleware reads the options at their start."""
    check({"shop": behind(OPTIONS={"prepare_threshold": 0})})
    with pytest.raises(ImproperlyConfigured, match=r"stays in one session\. Leave it out"):
        checks.read_options()
    with pytest.raises(ImproperlyConfigured, match=r"stays in one session\. Leave it out"):
        _ = connections["shop"].pool_options  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_missing_app_is_noticed_by_the_backend(port: int) -> None:
    apps = ["django.contrib.contenttypes", "django.contrib.auth"]
    done = project(*CHECK, port=port, INSTALLED_APPS=apps)
    assert done.returncode == 0
    assert "(poollife.W001) DATABASES has an ENGINE of poollife's" in done.stderr


@pytest.mark.slow
def test_silenced(port: int) -> None:
    done = project(*CHECK, port=port, MIDDLEWARE=[], SILENCED_SYSTEM_CHECKS=["poollife.W002"])
    assert (done.returncode, done.stdout) == (0, "System check identified no issues (1 silenced).\n"), (
        done.stderr
    )
