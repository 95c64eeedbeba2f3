"""ENGINEs that people put together, and what importing poollife needs: nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import MySQLdb
import pytest
from django.conf import settings
from django.db import OperationalError, connections
from django.db.backends.mysql.creation import DatabaseCreation
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQLWrapper

import poollife
from poollife.backends.creation import PooledCreation, pooled_creation
from poollife.backends.mixin import PooledMixin
from poollife.backends.mysql.base import PooledMySQLMixin
from poollife.backends.postgresql.base import PooledPostgreSQLMixin
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.engines.composed import base as composed
from tests.support.engines.general import base as general
from tests.support.engines.tenants import base as tenants
from tests.support.engines.vendor import VendorCreation, VendorFeatures, VendorWrapper
from tests.support.web_server import eventually

both = pytest.mark.parametrize("engine", ["tests.support.engines.composed", "tests.support.engines.general"])


@pytest.fixture(autouse=True)
def _count_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VendorWrapper, "opened", [])
    monkeypatch.setattr(VendorWrapper, "initialised", [])


@pytest.fixture
def make_wrapper(make_alias: MakeAlias) -> Callable[..., Any]:
    """A function that returns this thread's connection to a new alias."""

    def make(engine: str, **entry: Any) -> Any:
        return connections[make_alias(engine, **entry)]

    return make


def ask(wrapper: Any, sql: str) -> Any:
    """The only value of the only row."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        (value,) = cursor.fetchone()
    return value


# --- home-made engines ------------------------------------------------------------------------------------


@both
def test_one_opening_for_many_checkouts(make_wrapper: Callable[..., Any], engine: str) -> None:
    """All that the vendor adds happens once per session, and each borrower finds it."""
    wrapper = make_wrapper(engine)
    for _ in range(3):
        assert ask(wrapper, "SELECT @@group_concat_max_len") == 4321
        wrapper.close()
    assert ask(wrapper, "SELECT @vendor") == "here"
    assert len(wrapper.opened) == 1
    assert wrapper.initialised == wrapper.opened
    assert (wrapper.lease_pool.opened, wrapper.lease_pool.checkouts) == (1, 4)


@both
def test_the_connection_is_a_guarded_one(make_wrapper: Callable[..., Any], engine: str) -> None:
    wrapper = make_wrapper(engine)
    wrapper.ensure_connection()
    assert type(wrapper.connection) is GuardedConnection


@both
def test_the_vendors_classes_are_used(make_wrapper: Callable[..., Any], engine: str) -> None:
    wrapper = make_wrapper(engine)
    assert isinstance(wrapper, VendorWrapper)
    assert type(wrapper.features) is VendorFeatures
    assert isinstance(wrapper.creation, VendorCreation)
    assert isinstance(wrapper.creation, PooledCreation)
    assert wrapper.creation.__class__.__mro__.index(PooledCreation) == 1
    assert wrapper.creation.__class__.__name__ == "VendorCreation"
    assert VendorWrapper.creation_class is VendorCreation


@both
def test_a_test_database_of_the_vendors(
    make_wrapper: Callable[..., Any], mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Invariant 8 holds for it too."""
    wrapper = make_wrapper(engine)
    monkeypatch.setitem(settings.DATABASES, wrapper.alias, wrapper.settings_dict)
    real = ask(wrapper, "SELECT DATABASE()")
    old = wrapper.lease_pool
    name = wrapper.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        assert name == f"vendor_{real}"
        assert ask(wrapper, "SELECT DATABASE()") == name
        assert old.disposed
        assert (old.out, old.idle) == (0, 0)
    finally:
        wrapper.creation.destroy_test_db(real, verbosity=0)
    assert ask(wrapper, "SELECT DATABASE()") == real
    assert mariadb.execute("SHOW DATABASES LIKE %s", name) == []


def test_a_backend_made_from_a_pooled_one() -> None:
    """Its creation class is not wrapped twice."""
    assert tenants.DatabaseWrapper.creation_class is composed.DatabaseWrapper.creation_class
    mro = tenants.DatabaseWrapper.creation_class.__mro__
    assert mro.count(PooledCreation) == 1


def test_a_creation_class_given_later() -> None:
    """Whoever replaces it in a subclass need not know of pools either."""

    class Creation(DatabaseCreation):
        pass

    class Wrapper(composed.DatabaseWrapper):
        creation_class = Creation

    assert issubclass(Wrapper.creation_class, PooledCreation)
    assert issubclass(Wrapper.creation_class, Creation)


@pytest.mark.parametrize(
    ("mixin", "backend"),
    [
        (PooledMixin, VendorWrapper),
        (PooledMySQLMixin, VendorWrapper),
        (PooledPostgreSQLMixin, PostgreSQLWrapper),
    ],
)
def test_the_mixin_comes_first(mixin: type, backend: type) -> None:
    """After the backend it would do nothing at all, and no error would say so."""
    with pytest.raises(TypeError, match="Wrong: put poollife's mixin before the backend that it pools"):
        type("Wrong", (backend, mixin), {})


def test_the_same_creation_class_for_the_same_parent() -> None:
    pooled: Any = pooled_creation
    assert pooled(DatabaseCreation) is pooled(DatabaseCreation)
    assert pooled(pooled(DatabaseCreation)) is pooled(DatabaseCreation)
    assert general.DatabaseWrapper.creation_class is composed.DatabaseWrapper.creation_class


def test_tenants(
    make_wrapper: Callable[..., Any], new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of one's own: two databases under one alias, and a session for each."""
    wrapper = make_wrapper("tests.support.engines.tenants")
    one, two = new_database(), new_database()
    sessions = []
    for tenant in [one, two, one, two]:
        monkeypatch.setattr(tenants.DatabaseWrapper, "tenant", tenant)
        assert ask(wrapper, "SELECT DATABASE()") == tenant
        sessions.append(ask(wrapper, "SELECT CONNECTION_ID()"))
        wrapper.close()
    assert sessions[:2] == sessions[2:] == wrapper.opened


def test_a_tenant_of_who_borrows(
    make_wrapper: Callable[..., Any],
    new_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is held ready is opened in another thread, which has another tenant, or none."""

    class Tenant(threading.local):
        name = ""

        def __get__(self, wrapper: object, owner: object) -> str:
            return self.name

    caplog.set_level("INFO", "poollife")
    wrapper = make_wrapper("tests.support.engines.tenants", POOL={"min_idle": 1})
    monkeypatch.setattr(tenants.DatabaseWrapper, "tenant", tenant := Tenant())
    tenant.name = new_database()
    assert ask(wrapper, "SELECT DATABASE()") == tenant.name
    pool = wrapper.lease_pool
    eventually("it was given up", lambda: "more than settings decides" in caplog.text)
    assert (pool.opened, pool.idle, pool.connect_error) == (1, 0, None)
    wrapper.close()


# --- vendors' errors --------------------------------------------------------------------------------------


class VendorError(Exception):
    """Not one of the driver's."""


def fail(*_: object) -> None:
    raise VendorError("on purpose")


@both
@pytest.mark.parametrize("moment", ["while_opening", "while_initialising"])
def test_an_error_costs_no_slot(
    make_wrapper: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, engine: str, moment: str
) -> None:
    """It arrives as it was raised, and the pool of one is as good as before."""
    wrapper = make_wrapper(engine, POOL={"pool_size": 1, "max_overflow": 0, "timeout": 1})
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(VendorWrapper, moment, staticmethod(fail))
            with pytest.raises(VendorError, match="on purpose"):
                wrapper.ensure_connection()
        assert wrapper.connection is None
        assert (wrapper.lease_pool.out, wrapper.lease_pool.idle) == (0, 0)
    assert ask(wrapper, "SELECT @vendor") == "here"
    assert wrapper.lease_pool.out == 1


class Proxy:
    """What APM tools put around a connection, after wrapt's fashion."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


@both
def test_a_proxy_around_the_connection(
    make_wrapper: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The borrower gets the proxy, and what is in it is guarded."""
    monkeypatch.setattr(VendorWrapper, "while_opening", staticmethod(lambda it: Proxy(Proxy(it))))
    wrapper = make_wrapper(engine)
    for _ in range(2):
        assert ask(wrapper, "SELECT @vendor") == "here"
        assert type(wrapper.connection) is Proxy
        assert type(wrapper.connection.__wrapped__.__wrapped__) is GuardedConnection
        wrapper.close()
    assert len(wrapper.opened) == 1


@both
def test_a_proxy_that_hides_the_connection(
    make_wrapper: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """What can't be guarded is refused."""

    class Opaque:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

    monkeypatch.setattr(VendorWrapper, "while_opening", staticmethod(Opaque))
    wrapper = make_wrapper(engine, POOL={"pool_size": 1, "max_overflow": 0, "timeout": 1})
    for _ in range(2):
        with pytest.raises(TypeError, match=r"Opaque.*__wrapped__.*safe across forks"):
            wrapper.ensure_connection()
        assert wrapper.lease_pool.out == 0


@both
def test_the_drivers_own_error(make_wrapper: Callable[..., Any], engine: str) -> None:
    """As Django's, with the driver's as its cause."""
    wrapper = make_wrapper(engine, PASSWORD="wrong", POOL={"pool_size": 1, "max_overflow": 0, "timeout": 1})
    for _ in range(2):
        with pytest.raises(OperationalError, match="Access denied") as caught:
            wrapper.ensure_connection()
        assert isinstance(caught.value.__cause__, MySQLdb.OperationalError)
    assert wrapper.opened == []


# --- what importing needs ---------------------------------------------------------------------------------

PACKAGE = Path(poollife.__file__).parent
DRIVERS = {"mysql": "MySQLdb", "mysql_pymysql": "pymysql", "postgresql": "psycopg", "sqlite3": "sqlite3"}
#: Django's settings are not there, nor is any driver.
BARE = """
import importlib, sys

class NoDrivers:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("MySQLdb", "sqlite3", "_sqlite3", "psycopg", "psycopg2", "oracledb"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, NoDrivers())
module = importlib.import_module(sys.argv[1])
from django.conf import settings
assert not settings.configured
"""


def run(*arguments: str) -> str:
    """Run Python, without any of Django's settings, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=PACKAGE.parent,
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "poollife",
        "poollife.apps",
        "poollife.backends.creation",
        "poollife.backends.mixin",
        "poollife.conf",
        "poollife.process.atfork",
        "poollife.drivers.cursors",
        "poollife.process.guard",
        "poollife.errors",
        "poollife.middleware",
        "poollife.monitoring.stats",
        "poollife.pools.registry",
    ],
)
def test_importing_needs_no_settings_and_no_driver(module: str) -> None:
    run("-c", BARE, module)


def test_stats_need_no_settings_and_no_driver() -> None:
    run("-c", f"{BARE}\nassert module.pool_stats() == {{}}", "poollife")


def test_importing_poollife_is_cheap() -> None:
    """Neither Django's settings nor its database layer, nor SQLAlchemy."""
    program = "import sys; before = set(sys.modules); import poollife; print(*set(sys.modules) - before)"
    loaded = run("-c", program).split()
    assert "poollife" in loaded
    assert [name for name in loaded if name.partition(".")[0] in {"django", "sqlalchemy", "MySQLdb"}] == []
    # 14 of about 120 when this was written; most of the others come with asgiref's asyncio.
    assert len([name for name in loaded if name.startswith("poollife")]) <= 18
    assert len(loaded) <= 160


def test_errors_are_names_of_the_package_and_imported_when_they_are_asked_for() -> None:
    program = (
        "import sys, poollife, pickle\n"
        "assert 'poollife.errors' not in sys.modules\n"
        "from poollife import ForkedTransaction, PoolOverloaded, PoolTimeout\n"
        "from poollife import errors\n"
        "assert PoolTimeout is errors.PoolTimeout and issubclass(PoolOverloaded, PoolTimeout)\n"
        "assert not hasattr(poollife, 'NoSuchName')\n"
        "print('as expected')"
    )
    assert run("-c", program) == "as expected\n"


def test_loading_an_engine_imports_few_modules() -> None:
    """SQLAlchemy is imported by the first checkout, or by the middleware: most commands have neither."""
    modules = run(
        "-c",
        "import sys\n"
        "import django.db.backends.mysql.base\n"
        "before = set(sys.modules)\n"
        "import poollife.backends.mysql.base\n"
        # Those that are a part of the interpreter cost nothing.
        "print(*set(sys.modules) - before - set(sys.builtin_module_names))",
    ).split()
    assert not [name for name in modules if name.startswith("sqlalchemy")]
    # 64 when this was written, most of them poollife's own; SQLAlchemy adds more than all of these.
    assert len(modules) <= 75, sorted(modules)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "driver"), DRIVERS.items())
def test_a_driver_is_imported_by_its_backend(engine: str, driver: str) -> None:
    """Nobody's else."""
    loaded = run("-c", f"import sys, poollife.backends.{engine}.base; print(*sys.modules)").split()
    assert driver in loaded
    # Django's backend looks for mysqlclient, whoever does the work.
    expected = {driver, "MySQLdb"} if engine.startswith("mysql") else {driver}
    assert [other for other in DRIVERS.values() if other not in expected and other in loaded] == []
    # A driver may have a second module, such as psycopg3_cursors.
    names = sorted(driver_modules().intersection(loaded))
    assert names
    assert all(name.startswith(names[0]) for name in names)


def test_something_else_under_mysqlclients_name() -> None:
    """A stub: what ``pymysql.install_as_MySQLdb()`` leaves, as far as it matters."""
    run(
        "-c",
        "import sys, types\n"
        "driver, connections = types.ModuleType('MySQLdb'), types.ModuleType('MySQLdb.connections')\n"
        "driver.__file__, driver.connections, connections.Connection = 'pymysql.py', connections, object\n"
        "converters = types.ModuleType('MySQLdb.converters')\n"
        "converters.conversions = {}\n"
        "sys.modules.update({'MySQLdb': driver, 'MySQLdb.connections': connections})\n"
        "sys.modules['MySQLdb.converters'] = converters\n"
        "try:\n"
        "    import poollife.drivers.mysql.mysqlclient\n"
        "except ImportError as error:\n"
        "    assert 'here MySQLdb is something else (pymysql.py). Install mysqlclient' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n",
    )


@pytest.mark.slow
def test_a_site_without_mysql() -> None:
    """Set up with poollife installed and SQLite's backend in use."""
    run(
        "-c",
        "import django, sys\n"
        "from django.conf import settings\n"
        "settings.configure(\n"
        "    INSTALLED_APPS=['poollife'],\n"
        "    DATABASES={'default': {'ENGINE': 'poollife.backends.sqlite3', 'NAME': ':memory:'}},\n"
        "    MIDDLEWARE=['poollife.middleware.PoolMiddleware'],\n"
        ")\n"
        "django.setup()\n"
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('SELECT 1')\n"
        "assert 'MySQLdb' not in sys.modules\n",
    )


# --- who may import whom ----------------------------------------------------------------------------------


def driver_modules() -> set[str]:
    """Those of poollife/drivers that import a driver."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in (PACKAGE / "drivers").rglob("*.py")
        if any(name.partition(".")[0] in {*DRIVERS.values(), "psycopg2"} for name in imports(path))
    }


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, but for the type checker."""
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs: what is under ``if TYPE_CHECKING`` does not."""
    yield node
    skipped = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) else []
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from runtime_nodes(child)


def files(folder: str) -> list[Path]:
    found = sorted((PACKAGE / folder).rglob("*.py"))
    assert found
    return found


def test_there_are_driver_modules() -> None:
    """What the tests below stand on."""
    modules = {
        *("mysql.mysqlclient", "mysql.pymysql", "sqlite.connection"),
        *("postgresql.psycopg3", "postgresql.psycopg3_connection", "postgresql.psycopg3_cursors"),
        *("postgresql.psycopg2", "postgresql.psycopg2_connection", "postgresql.psycopg2_cursors"),
    }
    assert driver_modules() == {f"poollife.drivers.{name}" for name in modules}


@pytest.mark.slow
@pytest.mark.parametrize("path", files("."), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_backends_import_driver_modules(path: Path) -> None:
    # A helper may have the beginning of its name in common with a driver's module.
    inside = tuple(f"{module}." for module in driver_modules())
    # The modules of one driver begin with its name, such as psycopg3_cursors.
    own = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).partition("_")[0]
    imported = [name for name in imports(path) if f"{name}.".startswith(inside) and not name.startswith(own)]
    if path.relative_to(PACKAGE).parts[0] != "backends":
        assert imported == []
