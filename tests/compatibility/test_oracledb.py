"""python-oracledb and Django's Oracle backend, on the stand-in. (tests/kit/ has the invariants.)"""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import DatabaseError, IntegrityError, connections, models, transaction
from django.db.models import F, Max, Sum

from poollife.errors import BadPoolOption
from poollife.process.atfork import is_connected_to
from servers import OracleStandIn, Via
from tests.conftest import MakeAlias
from tests.kit.backends import ask, do
from tests.support.counting import pool_of

oracledb: Any = pytest.importorskip("oracledb")

ENGINE = "poollife.backends.oracle"
apps = Apps()


class Thing(models.Model):
    """A row with a column of each type."""

    objects: models.Manager[Thing] = models.Manager()
    name = models.CharField(max_length=20, unique=True, null=True)
    text = models.TextField(blank=True)
    data = models.JSONField(null=True)
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    when = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    took = models.DurationField(null=True)
    sold = models.BooleanField(default=False)
    weight = models.FloatField(null=True)
    raw = models.BinaryField(null=True)
    number = models.IntegerField(default=0)

    class Meta:
        apps = apps
        app_label = "oracledb"


def thing(name: str, **given: Any) -> Thing:
    return Thing(
        name=name,
        text="text " * 2000,
        data={"k": [1, "ü"]},
        price=Decimal("12.50"),
        when=dt.datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=dt.UTC),
        day=dt.date(2026, 1, 2),
        took=dt.timedelta(days=-1, seconds=3, microseconds=7),
        sold=True,
        weight=0.25,
        raw=b"\0\1\2" * 3000,
        **given,
    )


@pytest.fixture
def alias(oracle: OracleStandIn, make_alias: MakeAlias) -> str:
    return make_alias(ENGINE, server=oracle, POOL={"pool_size": 2, "max_overflow": 0, "timeout": 5})


def driver_of(alias: str) -> Any:
    """Return the description of the driver."""
    return connections[alias].driver  # type: ignore[attr-defined]


@contextmanager
def table(alias: str) -> Iterator[Any]:
    """Have the table of Thing, and yield its manager."""
    with connections[alias].schema_editor() as editor:
        editor.create_model(Thing)
    try:
        yield Thing.objects.using(alias)
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(Thing)


# --- Django -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["tcp", "tls"])
@pytest.mark.parametrize("engine", [ENGINE, "django.db.backends.oracle"])
def test_orm(oracle: OracleStandIn, make_alias: MakeAlias, engine: str, via: Via) -> None:
    """Django's own backend has the same results: the stand-in is one for it, too."""
    alias = make_alias(engine, server=oracle, via=via)
    with table(alias) as things:
        saved = thing("a", number=3)
        saved.save(using=alias)
        found = things.get(pk=saved.pk)
        fields = [field.name for field in Thing._meta.fields]
        assert {name: getattr(found, name) for name in fields} == {
            name: getattr(saved, name) for name in fields
        }

        things.bulk_create([thing(f"b{number}", number=number) for number in range(3)])
        assert list(things.order_by("-name").values_list("name", flat=True)[1:3]) == ["b1", "b0"]
        assert things.filter(name__contains="b", when__lte=saved.when, number__gte=1).count() == 2
        assert things.filter(name__icontains="A").update(number=F("number") + 1) == 1
        assert things.aggregate(Max("number"), Sum("price")) == {"number__max": 4, "price__sum": Decimal(50)}
        assert sum(1 for _ in things.iterator(2)) == 4
        with transaction.atomic(using=alias):
            things.create(name="c")
            with pytest.raises(IntegrityError), transaction.atomic(using=alias):
                things.create(name="c")
            assert things.select_for_update().get(name="c").text in ("", None)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            things.all().delete()
            raise ZeroDivisionError
        assert things.filter(name__in=["a", "c"]).delete()[0] == 2
        assert things.count() == 3


def test_wrapper_that_gets_a_warm_session_knows_the_operators(
    alias: str, thread: Callable[..., Any], oracle: OracleStandIn
) -> None:
    """Django asks for them when a wrapper opens its first session."""
    with table(alias) as things:
        things.create(name="a")
        connections[alias].close()  # the definition of a table costs the session
        do(alias, "SELECT 1 FROM DUAL")
        connections[alias].close()
        before = len(oracle.calls())
        assert thread(lambda: things.filter(name__icontains="A").count()) == 1
        assert [call.kind for call in oracle.calls(before)] == ["execute"]


def test_server_is_asked_once_for_a_pool_what_all_its_sessions_share(
    alias: str, thread: Callable[..., Any], oracle: OracleStandIn, make_alias: MakeAlias
) -> None:
    def texts() -> list[str]:
        return [call.text.partition(" = ")[0][:40] for call in oracle.calls(before)]

    # Of the idle limit each server is asked once for all pools.
    do(alias, "SELECT 1 FROM DUAL")
    alias = make_alias(ENGINE, server=oracle)
    before = len(oracle.calls())
    do(alias, "SELECT 1 FROM DUAL")
    settings = ["ALTER SESSION SET NLS_TERRITORY", "ALTER SESSION SET NLS_DATE_FORMAT"]
    assert texts() == [
        "POOLLIFE",
        *settings,
        "SELECT 1 FROM DUAL WHERE DUMMY LIKE TRAN",
        "SELECT 1 FROM DUAL",
    ]
    before = len(oracle.calls())
    thread(do, alias, "SELECT 1 FROM DUAL")
    assert texts() == ["POOLLIFE", *settings, "SELECT 1 FROM DUAL"]


def test_djangos_own_pool_is_refused(oracle: OracleStandIn, make_alias: MakeAlias) -> None:
    alias = make_alias(ENGINE, server=oracle, OPTIONS={"pool": True})
    with pytest.raises(BadPoolOption, match=r"use DATABASES\['alias_\d+'\]\['POOL'\]"):
        connections[alias].ensure_connection()


# --- the driver ---------------------------------------------------------------------------------------------


def test_no_name_of_the_drivers_means_something_else() -> None:
    """Methods of a driver connection that poollife has for itself."""
    from poollife.drivers.contract import Guarded
    from poollife.drivers.oracle.connection import OracleConnection

    own = {*dir(Guarded), *Guarded.CHANGING, *OracleConnection.CHANGING, "number_at_server", "begun"}
    drivers = {*dir(oracledb.Connection)}
    assert {name for name in own & drivers if not name.startswith("_")} == set()


@pytest.mark.parametrize("via", ["tcp", "tls"])
def test_socket_is_found(oracle: OracleStandIn, make_alias: MakeAlias, via: Via) -> None:
    from poollife.drivers.oracle.driver import socket_of

    alias = make_alias(ENGINE, server=oracle, via=via)
    connections[alias].ensure_connection()
    driver = connections[alias].lease.driver  # type: ignore[attr-defined]
    found = socket_of(driver)
    assert found.fileno() == driver.guard.fd
    addresses = driver_of(alias).remote_addresses({"dsn": connections[alias].dsn})  # type: ignore[attr-defined]
    assert is_connected_to(found.fileno(), addresses)


@pytest.mark.parametrize(
    ("dsn", "addresses"),
    [
        ("10.0.0.1/service", {("10.0.0.1", 1521)}),
        ("10.0.0.1:1522/service", {("10.0.0.1", 1522)}),
        (
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=10.0.0.1)(PORT=1))"
            "(ADDRESS=(PROTOCOL=tcp)(HOST=10.0.0.2)(PORT=2))(CONNECT_DATA=(SERVICE_NAME=s)))",
            {("10.0.0.1", 1), ("10.0.0.2", 2)},
        ),
        ("a_name_of_tnsnames_ora", set()),
    ],
)
def test_addresses_of_a_connect_string(dsn: str, addresses: set[Any]) -> None:
    """A fork in the middle of a handshake looks for the socket by them."""
    from poollife.drivers.oracle.driver import driver

    assert driver.remote_addresses({"dsn": dsn}) == addresses


def test_limit_of_the_users_profile_is_read_in_minutes(alias: str) -> None:
    connection: Any = connections[alias]
    connection.ensure_connection()
    driver, session = driver_of(alias), connection.lease.driver
    assert driver.idle_limit(session) is None
    do(alias, "ALTER SESSION SET IDLE_TIME = 30")
    assert driver.idle_limit(session) == 1800.0


def test_connection_whose_socket_is_not_found_is_refused(monkeypatch: pytest.MonkeyPatch, alias: str) -> None:
    """A later version may keep it elsewhere."""
    from poollife.drivers.oracle import driver

    monkeypatch.setattr(driver, "STEPS", 1)
    with pytest.raises(DatabaseError, match="keeps its socket where poollife does not find it"):
        connections[alias].ensure_connection()


def test_thick_mode_is_refused() -> None:
    """A stub: the libraries of Oracle's client are not here."""
    from poollife.drivers.oracle.driver import driver

    class Thick(oracledb.Connection):  # type: ignore[misc]
        thin = False
        _impl = None

        def __init__(self) -> None:
            pass

    with pytest.raises(oracledb.NotSupportedError, match="needs python-oracledb's thin mode"):
        driver.adopt(Thick(), 1, {})


def set_module(connection: Any) -> None:
    connection.module = "m"


def set_identifier(connection: Any) -> None:
    connection.client_identifier = "m"


def set_schema(connection: Any) -> None:
    connection.current_schema = "SYS"


def set_timeout(connection: Any) -> None:
    connection.call_timeout = 5000


def set_handler(connection: Any) -> None:
    connection.outputtypehandler = lambda *_: None


def call_procedure(connection: Any) -> None:
    connection.cursor().callproc("p")


def parse(connection: Any) -> None:
    connection.cursor().parse("CREATE TABLE parsed (a INT)")


def begin(connection: Any) -> None:
    connection.begin()


def execute_prepared(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.prepare("ALTER SESSION SET TIME_ZONE = '+01:00'")
    cursor.execute(None)


LEAVING = [set_module, set_identifier, set_schema, set_timeout, set_handler, call_procedure, parse, begin]


@pytest.mark.parametrize("leave", [*LEAVING, execute_prepared])
def test_session_in_which_a_call_of_the_driver_left_something_is_closed(
    alias: str, leave: Callable[[Any], None]
) -> None:
    connection = connections[alias]
    connection.ensure_connection()
    closed = pool_of(alias).closed
    leave(connection.connection)
    connection.close()
    assert pool_of(alias).closed == closed + 1
    assert ask(alias, "SELECT 40 + 2") == 42


def test_session_in_which_a_call_of_the_driver_left_nothing_is_kept(alias: str) -> None:
    connection = connections[alias]
    connection.ensure_connection()
    closed = pool_of(alias).closed
    raw = connection.connection
    raw.ping()
    raw.commit()
    raw.rollback()
    assert raw.is_healthy()
    assert raw.createlob(oracledb.DB_TYPE_CLOB).size() == 0
    cursor = raw.cursor()
    cursor.executemany("SELECT :1 FROM DUAL", [[1]])
    del cursor
    connection.close()
    assert pool_of(alias).closed == closed


def test_transaction_that_the_server_does_not_report_ends_with_its_borrower(
    alias: str, oracle: OracleStandIn
) -> None:
    connection = connections[alias]
    connection.set_autocommit(False)
    do(alias, "SET TRANSACTION READ ONLY")
    before = len(oracle.calls())
    connection.close()
    assert [call.kind for call in oracle.calls(before)] == ["rollback"]


class Struck(Exception):
    """A time limit."""


@contextmanager
def struck(seconds: float) -> Iterator[None]:
    """Raise ``Struck`` in the block."""

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_session_whose_call_was_interrupted_is_closed(
    alias: str, make_alias: MakeAlias, oracle: OracleStandIn
) -> None:
    """The answer to that call, or to its interruption, may still come. The statement leaves nothing."""
    connection = connections[alias]
    do(alias, "CREATE TABLE locked (a INT)", "INSERT INTO locked VALUES (1)")
    connection.close()
    other = make_alias(ENGINE, server=oracle, NAME=connection.settings_dict["NAME"])
    with transaction.atomic(using=other):
        do(other, "UPDATE locked SET a = 2")
        connection.ensure_connection()
        closed = pool_of(alias).closed
        with pytest.raises(Struck), struck(0.2):
            do(alias, "UPDATE locked SET a = 3")
        connection.close()
    assert pool_of(alias).closed == closed + 1
    for _ in range(3):
        assert ask(alias, "SELECT 40 + 2") == 42
        connection.close()
    assert ask(alias, "SELECT a FROM locked") == 2


def test_block_of_a_cursor_of_the_drivers_ends_it(alias: str) -> None:
    def query() -> int:
        with connections[alias].connection.cursor() as kept:
            kept.execute("SELECT 1 FROM DUAL")
        lease = connections[alias].lease  # type: ignore[attr-defined]
        assert kept is not None
        return int(lease.open_cursors)

    connections[alias].ensure_connection()
    assert query() == 0


class Proxy:
    """An object that APM tools put around a connection, after wrapt's fashion: it passes attributes on."""

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "__wrapped__"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "__wrapped__"), name, value)


def test_proxy_of_an_apm_tool_is_kept(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = oracledb.connect
    monkeypatch.setattr(oracledb, "connect", lambda **params: Proxy(connect(**params)))
    for _ in range(2):
        assert ask(alias, "SELECT 40 + 2 FROM DUAL") == 42
        assert type(connections[alias].connection) is Proxy
        connections[alias].close()
    assert pool_of(alias).opened == 1


def test_password_is_asked_for_each_session(oracle: OracleStandIn, make_alias: MakeAlias) -> None:
    """Django's backend reads the settings when it connects, and not before."""
    asked: list[str] = []

    def password() -> str:
        asked.append(oracle.password)
        return oracle.password

    alias = make_alias(ENGINE, server=oracle, PASSWORD=password)
    for _ in range(2):
        assert ask(alias, "SELECT 40 + 2 FROM DUAL") == 42
        connections[alias].close()
    assert len(asked) == 1


def test_cursor_is_freed_in_the_driver(alias: str) -> None:
    """The driver's destructor returns the statement to its cache."""
    raw: Any = connections[alias]
    raw.ensure_connection()
    freed: list[object] = []
    cursor = raw.connection.cursor()
    cursor.execute("SELECT 1 FROM DUAL")
    cursor._impl = SimpleNamespace(close=lambda **_: freed.append(1))
    del cursor
    assert freed == [1]
