"""``DATABASES[alias]["POOL"]``: what may stand there, and what an error says about what may not."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from sqlalchemy.pool import (
    AssertionPool,
    AsyncAdaptedQueuePool,
    NullPool,
    PoolProxiedConnection,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

import tests
from poollife.conf import DEFAULTS, FAIR_ONLY, PRESETS, UNPOOLED, WITHOUT_POOL, Bounds, PoolOptions
from poollife.drivers.mysql.mysqlclient import driver as mysql
from poollife.drivers.sqlite.connection import driver as sqlite
from poollife.option_values import READERS
from poollife.pools.fair_queue import FairQueuePool
from tests.conftest import MakeAlias


class OwnQueuePool(QueuePool):
    """Somebody's own, which counts."""

    checkouts: ClassVar[int] = 0

    def connect(self) -> PoolProxiedConnection:
        type(self).checkouts += 1
        return super().connect()


class OwnNullPool(NullPool):
    """The same, without pooling."""

    checkouts: ClassVar[int] = 0

    def connect(self) -> PoolProxiedConnection:
        type(self).checkouts += 1
        return super().connect()


def read(pool: object) -> PoolOptions:
    """The options of the alias "default" with this POOL."""
    return PoolOptions.from_settings("default", {"OPTIONS": {}, "POOL": pool})


# --- what may stand there ---------------------------------------------------------------------------------


def test_defaults() -> None:
    assert asdict(DEFAULTS) == {
        "pool_size": 5,
        "max_overflow": 10,
        "core_size": None,
        "min_idle": 0,
        "unload_timeout": 0.0,
        "retire_interval": 5.0,
        "retire_quantity": 1,
        "max_pool_idle": 3600.0,
        "timeout": 10.0,
        "outage_wait": 5.0,
        "max_waiting": None,
        "recycle": None,
        "ping_idle": 30.0,
        "pre_ping": False,
        "network_timeout": 20.0,
        "reset": "auto",
        "release": "work",
        "lazy_begin": False,
        "role": None,
        "behind": None,
        "application_name": None,
        "leak_after": None,
        "trace": False,
        "stats": False,
        "credentials": None,
        "poolclass": None,
    }
    assert DEFAULTS.pooled
    assert DEFAULTS.limit == 15


@pytest.mark.parametrize("pool", [None, True, {}])
def test_nothing_said(pool: object) -> None:
    assert read(pool) == DEFAULTS


@pytest.mark.parametrize("entry", [{}, {"OPTIONS": {}}, {"OPTIONS": {"charset": "utf8mb4"}}])
def test_left_out(entry: dict[str, object]) -> None:
    assert PoolOptions.from_settings("default", entry) == DEFAULTS


def test_switched_off() -> None:
    options = read(False)
    assert options == UNPOOLED
    assert not options.pooled
    assert options.limit is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pool_size", 1),
        ("pool_size", 100),
        ("max_overflow", 0),
        ("core_size", 0),
        ("core_size", 15),
        ("core_size", None),
        ("min_idle", 0),
        ("min_idle", 15),
        ("unload_timeout", 0),
        ("unload_timeout", 2),
        ("retire_interval", 0.5),
        ("retire_quantity", 1),
        ("max_pool_idle", 0.5),
        ("max_pool_idle", None),
        ("max_waiting", 0),
        ("max_waiting", None),
        ("timeout", 0),
        ("timeout", 2),
        ("timeout", 0.25),
        ("outage_wait", 0),
        ("outage_wait", 8),
        ("outage_wait", 0.5),
        ("recycle", 1),
        ("recycle", -1),
        ("recycle", None),
        ("ping_idle", 0),
        ("ping_idle", 12.5),
        ("pre_ping", True),
        ("pre_ping", False),
        ("network_timeout", None),
        ("network_timeout", 0.5),
        ("network_timeout", 32767),
        ("reset", "auto"),
        ("reset", "always"),
        ("reset", "rollback"),
        ("role", "primary"),
        ("role", "replica"),
        ("role", None),
        ("behind", "transaction_pooler"),
        ("behind", None),
        ("application_name", None),
        ("application_name", "{alias} {pid} {host}"),
        ("leak_after", None),
        ("leak_after", 30),
        ("leak_after", 0.5),
        ("trace", True),
        ("trace", False),
        ("stats", True),
        ("stats", False),
        ("credentials", None),
        ("credentials", print),
        ("poolclass", QueuePool),
        ("poolclass", NullPool),
        ("poolclass", OwnQueuePool),
        ("poolclass", OwnNullPool),
    ],
)
def test_a_good_value(key: str, value: object) -> None:
    options = read({key: value})
    assert asdict(options) == {**asdict(DEFAULTS), key: value}


def test_all_keys_at_once() -> None:
    given = {
        "pool_size": 3,
        "max_overflow": 4,
        "core_size": 2,
        "min_idle": 1,
        "unload_timeout": 0.5,
        "retire_interval": 2.5,
        "retire_quantity": 3,
        "max_pool_idle": 60.0,
        "timeout": 1.5,
        "outage_wait": 1.0,
        "max_waiting": 20,
        "recycle": 60,
        "ping_idle": 5.0,
        "pre_ping": True,
        "network_timeout": 7.5,
        "reset": "always",
        "release": "statement",
        "lazy_begin": True,
        "role": "primary",
        "behind": None,
        "application_name": "shop {pid}",
        "leak_after": 30.0,
        "trace": True,
        "stats": True,
        "credentials": print,
        "poolclass": FairQueuePool,
    }
    assert given.keys() == READERS.keys()
    assert asdict(read(given)) == given
    assert read(given).limit == 7


@pytest.mark.parametrize("reset", ["auto", "rollback"])
def test_no_session_is_reset_behind_a_transaction_pooler(reset: str) -> None:
    """The reset would run in the session of another client."""
    assert read({"behind": "transaction_pooler", "reset": reset}).resets == (False, False)
    assert read({"behind": None}).resets == (False, True)
    assert read({"behind": "transaction_pooler", "poolclass": NullPool}).behind == "transaction_pooler"


@pytest.mark.parametrize("options", [{"reset": "always"}, {"preset": "slow_and_safe"}])
def test_always_resetting_is_refused_behind_a_transaction_pooler(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match="where no session can be reset"):
        read({"behind": "transaction_pooler", **options})


@pytest.mark.parametrize("value", ["session", "pgbouncer", True, 6432, ["transaction_pooler"]])
def test_unknown_proxies_are_refused(value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match="'behind' takes \"transaction_pooler\", or None"):
        read({"behind": value})


@pytest.mark.parametrize("value", ["master", "read-write", True, ["primary"]])
def test_unknown_roles_are_refused(value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match='\'role\' takes "primary", "replica", or None'):
        read({"role": value})


def test_role_is_refused_for_a_database_without_replicas() -> None:
    entry = {"POOL": {"role": "primary"}}
    with pytest.raises(ImproperlyConfigured, match="leave it out: this database has no replicas"):
        PoolOptions.from_settings("default", entry, sqlite)
    assert PoolOptions.from_settings("default", entry, mysql).role == "primary"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset(name: str) -> None:
    """Any key beside its name overrides it."""
    assert read({"preset": name}) == PoolOptions(**PRESETS[name])
    assert read({"preset": name, "pool_size": 7}) == PoolOptions(**{**PRESETS[name], "pool_size": 7})


@pytest.mark.parametrize("name", ["fast", None, ["fast_and_sane"]])
def test_an_unknown_preset(name: object) -> None:
    cure = "'preset' takes one of 'slow_and_safe', 'fast_and_sane', 'fast_and_wild'"
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"preset": name})
    assert str(caught.value) == f"DATABASES['default']: POOL['preset'] is {name!r}: {cure}"


@pytest.mark.parametrize("key", ["core_size", "min_idle"])
def test_no_more_than_the_limit(key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"pool_size \+ max_overflow, which is 4"):
        read({"pool_size": 2, "max_overflow": 2, key: 5})


@pytest.mark.parametrize("key", FAIR_ONLY)
def test_what_sqlalchemys_queue_can_not_do(key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="QueuePool knows nothing of it, FairQueuePool does"):
        read({"poolclass": QueuePool, key: 2})


def test_what_the_sizes_come_to() -> None:
    assert read({"pool_size": 4, "max_overflow": 2}).bounds == Bounds(6, 4)
    everything = {"pool_size": 4, "max_overflow": 2, "core_size": 1, "max_waiting": 9, "unload_timeout": 2}
    assert read(everything).bounds == Bounds(6, 1, 0, 9, 2.0)
    assert read({"core_size": 1, "min_idle": 3}).bounds == Bounds(15, 3, 3)


@pytest.mark.parametrize(
    ("path", "poolclass"),
    [
        ("sqlalchemy.pool.QueuePool", QueuePool),
        ("sqlalchemy.pool.NullPool", NullPool),
        ("sqlalchemy.NullPool", NullPool),
        ("tests.interface.test_conf.OwnQueuePool", OwnQueuePool),
        ("tests.interface.test_conf.OwnNullPool", OwnNullPool),
    ],
)
def test_a_dotted_path(path: str, poolclass: type) -> None:
    assert read({"poolclass": path}).poolclass is poolclass


@pytest.mark.parametrize("options", [DEFAULTS, UNPOOLED, read({"pool_size": 3})], ids=repr)
def test_frozen(options: PoolOptions) -> None:
    for field in fields(options):
        with pytest.raises(FrozenInstanceError):
            setattr(options, field.name, getattr(options, field.name))
    with pytest.raises((AttributeError, TypeError)):
        options.another = 1  # type: ignore[attr-defined]
    assert hash(options) == hash(PoolOptions(**{f.name: getattr(options, f.name) for f in fields(options)}))


def test_the_settings_may_change_later() -> None:
    """They are read once."""
    given = {"pool_size": 3}
    options = read(given)
    given["pool_size"] = 4
    assert options.pool_size == 3
    assert read({}) == DEFAULTS


# --- what may not -----------------------------------------------------------------------------------------

WHOLE = "a whole number"
SECONDS = "a finite number of seconds from 0"
SUBCLASS = "a subclass of sqlalchemy.pool.QueuePool or NullPool"

BAD_VALUES: list[tuple[str, Any, str]] = [
    ("pool_size", 0, f"{WHOLE} from 1"),
    ("pool_size", -1, f"{WHOLE} from 1"),
    ("pool_size", "5", f"{WHOLE} from 1"),
    ("pool_size", 5.0, f"{WHOLE} from 1"),
    ("pool_size", True, f"{WHOLE} from 1"),
    ("pool_size", None, f"{WHOLE} from 1"),
    ("max_overflow", -1, f"{WHOLE} from 0"),
    ("max_overflow", 2.5, f"{WHOLE} from 0"),
    ("max_overflow", False, f"{WHOLE} from 0"),
    ("core_size", -1, f"{WHOLE} from 0"),
    ("core_size", "5", f"{WHOLE} from 0"),
    ("min_idle", -1, f"{WHOLE} from 0"),
    ("min_idle", None, f"{WHOLE} from 0"),
    ("unload_timeout", -1, SECONDS),
    ("retire_interval", 0, "more than 0"),
    ("retire_interval", math.inf, SECONDS),
    ("retire_quantity", 0, f"{WHOLE} from 1"),
    ("max_pool_idle", 0, "more than 0"),
    ("max_pool_idle", -1, SECONDS),
    ("max_pool_idle", True, SECONDS),
    ("max_waiting", -1, f"{WHOLE} from 0"),
    ("max_waiting", 2.5, f"{WHOLE} from 0"),
    ("timeout", -0.5, SECONDS),
    ("timeout", None, SECONDS),
    ("timeout", math.inf, SECONDS),
    ("timeout", math.nan, SECONDS),
    ("timeout", "10", SECONDS),
    ("timeout", True, SECONDS),
    ("outage_wait", -1, SECONDS),
    ("outage_wait", None, SECONDS),
    ("outage_wait", math.inf, SECONDS),
    ("timeout", Fraction(1, 2), SECONDS),
    ("recycle", 0, "at least one second, or -1 for never"),
    ("recycle", -2, "-1 for never"),
    ("recycle", 60.5, "-1 for never"),
    ("recycle", "3600", "-1 for never"),
    ("recycle", False, "-1 for never"),
    ("ping_idle", -1, SECONDS),
    ("ping_idle", None, SECONDS),
    ("ping_idle", [30], SECONDS),
    ("pre_ping", 1, "True or False"),
    ("pre_ping", "yes", "True or False"),
    ("pre_ping", None, "True or False"),
    ("network_timeout", 0, "more than 0 seconds, up to 32767, or None for the system's own limits"),
    ("network_timeout", 32768, "up to 32767, or None"),
    ("network_timeout", -1, SECONDS),
    ("network_timeout", True, SECONDS),
    ("network_timeout", "20", SECONDS),
    ("network_timeout", math.inf, SECONDS),
    ("leak_after", 0, "more than 0 seconds, or None for no warnings"),
    ("leak_after", -1, SECONDS),
    ("leak_after", False, SECONDS),
    ("leak_after", math.inf, SECONDS),
    ("trace", 1, "True or False"),
    ("stats", 1, "True or False"),
    ("trace", None, "True or False"),
    ("poolclass", None, SUBCLASS),
    ("poolclass", object, SUBCLASS),
    ("poolclass", QueuePool(lambda: None), SUBCLASS),  # type: ignore[arg-type]
    ("poolclass", SingletonThreadPool, SUBCLASS),
    ("poolclass", StaticPool, SUBCLASS),
    ("poolclass", AssertionPool, SUBCLASS),
    ("poolclass", "sqlalchemy.pool.StaticPool", SUBCLASS),
    ("poolclass", "sqlalchemy.pool.SingletonThreadPool", SUBCLASS),
    ("poolclass", "math.pi", SUBCLASS),
    ("poolclass", AsyncAdaptedQueuePool, "AsyncAdaptedQueuePool is made for asyncio drivers"),
    ("poolclass", "sqlalchemy.pool.AsyncAdaptedQueuePool", "is made for asyncio drivers"),
    ("poolclass", "QueuePool", "a dotted path that can be imported"),
    ("poolclass", "no.such.module.Pool", "a dotted path that can be imported (No module named 'no'"),
    ("poolclass", "sqlalchemy.pool.QueuedPool", "a dotted path that can be imported"),
    ("poolclass", "", "a dotted path that can be imported"),
    ("poolclass", ".QueuePool", "a dotted path that can be imported"),
    ("poolclass", "..QueuePool", "a dotted path that can be imported"),
]


@pytest.mark.parametrize(("key", "value", "cure"), BAD_VALUES, ids=lambda item: repr(item)[:40])
def test_a_bad_value(key: str, value: object, cure: str) -> None:
    """The message names the alias, the key, the value, and what would be right."""
    with pytest.raises(ImproperlyConfigured) as caught:
        PoolOptions.from_settings("reports", {"OPTIONS": {}, "POOL": {key: value}})
    message = str(caught.value)
    assert message.startswith(f"DATABASES['reports']: POOL[{key!r}] is {value!r}: {key!r} takes ")
    assert cure in message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("pool_sise", "pool_size"),
        ("poolsize", "pool_size"),
        ("POOL_SIZE", "pool_size"),
        ("size", "pool_size"),
        ("min_size", "pool_size"),
        ("max_overflows", "max_overflow"),
        ("MAX_OVERFLOW", "max_overflow"),
        ("overflow", "max_overflow"),
        ("max_size", "max_overflow"),
        ("core_pool_size", "core_size"),
        ("django_core_pool_size", "core_size"),
        ("django_retire_interval", "retire_interval"),
        ("presets", "preset"),
        ("pool_timeout", "timeout"),
        ("time_out", "timeout"),
        ("pool_recycle", "recycle"),
        ("max_lifetime", "recycle"),
        ("CONN_MAX_AGE", "recycle"),
        ("pool_pre_ping", "pre_ping"),
        ("preping", "pre_ping"),
        ("ping", "pre_ping"),
        ("pingidle", "ping_idle"),
        ("netwrok_timeout", "network_timeout"),
        ("tcp_user_timeout", "network_timeout"),
        ("socket_timeout", "network_timeout"),
        ("validation_timeout", "network_timeout"),
        ("keepalives_idle", "network_timeout"),
        ("reset_on_return", "reset"),
        ("leak_afer", "leak_after"),
        ("leak_detection_threshold", "leak_after"),
        ("tracing", "trace"),
        ("pool_class", "poolclass"),
        ("class", "poolclass"),
    ],
)
def test_an_unknown_key(key: str, nearest: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        PoolOptions.from_settings("reports", {"OPTIONS": {}, "POOL": {key: 3}})
    assert str(caught.value).startswith(
        f"DATABASES['reports']: POOL[{key!r}] is 3: unknown key; did you mean {nearest!r}?"
    )


@pytest.mark.parametrize("key", ["echo", "use_lifo", "xyz", ""])
def test_an_unknown_key_like_no_other(key: str) -> None:
    """No guess is better than a wild one."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read({key: True})
    assert str(caught.value) == (
        f"DATABASES['default']: POOL[{key!r}] is True: unknown key; known are {', '.join(READERS)}"
    )


@pytest.mark.parametrize("key", [1, None, ("pool_size",)])
def test_a_key_that_is_no_string(key: object) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read({key: 3})
    assert str(caught.value).startswith(f"DATABASES['default']: POOL[{key!r}] is 3: unknown key")


@pytest.mark.parametrize("pool", [5, 0, 1, "on", [("pool_size", 5)], QueuePool, PoolOptions()], ids=repr)
def test_no_dictionary(pool: object) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read(pool)
    assert str(caught.value) == (
        f"DATABASES['default']: POOL is {pool!r}: use a dictionary of options, or False to switch pooling off"
    )


@pytest.mark.parametrize("pool", [True, {"min_size": 2}])
def test_djangos_own_pool_is_refused(pool: object) -> None:
    """``OPTIONS["pool"]`` would make Celery close the pool at each task."""
    with pytest.raises(ImproperlyConfigured) as caught:
        PoolOptions.from_settings("reports", {"OPTIONS": {"pool": pool}, "POOL": {}})
    assert str(caught.value) == (
        f"DATABASES['reports']: OPTIONS['pool'] is {pool!r}: use DATABASES['reports']['POOL']"
    )


@pytest.mark.parametrize("pool", [False, None, {}])
def test_djangos_own_pool_may_be_switched_off(pool: object) -> None:
    PoolOptions.from_settings("reports", {"OPTIONS": {"pool": pool}, "POOL": {}})


@pytest.mark.parametrize("poolclass", [NullPool, OwnNullPool, "sqlalchemy.pool.NullPool"])
@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, value in asdict(DEFAULTS).items() if key not in WITHOUT_POOL],
)
def test_an_option_that_would_do_nothing(poolclass: Any, key: str, value: object) -> None:
    """Even where it is the default: whoever writes it believes in it."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"poolclass": poolclass, key: value})
    name = "OwnNullPool" if poolclass is OwnNullPool else "NullPool"
    assert str(caught.value) == (
        f"DATABASES['default']: POOL[{key!r}] is {value!r}: leave it out: {name} keeps no sessions"
    )


def test_what_does_something_without_a_pool() -> None:
    assert read({"poolclass": NullPool, "credentials": print}).credentials is print
    assert read({"poolclass": NullPool, "network_timeout": None}).network_timeout is None


BAD_CREDENTIALS: list[tuple[Any, str]] = [
    (3, "a function, or the dotted path of one"),
    ({"USER": "shop"}, "a function, or the dotted path of one"),
    ("", "a function, or the dotted path of one that can be imported"),
    ("print", "a function, or the dotted path of one that can be imported"),
    ("no.such.module", "a function, or the dotted path of one that can be imported"),
    ("math.pi", "a function, or the dotted path of one that can be imported"),
    ("tests.broken_credentials.ask", "that can be imported (No module named 'no_such_library')"),
]


@pytest.mark.parametrize(("value", "cure"), BAD_CREDENTIALS, ids=str)
def test_bad_credentials(value: object, cure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The value may be a secret by mistake."""
    (tmp_path / "broken_credentials.py").write_text("import no_such_library")
    monkeypatch.setattr("tests.__path__", [*tests.__path__, str(tmp_path)])
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"credentials": value})
    start = (
        "DATABASES['default']: POOL['credentials'] is a value that is not shown here: 'credentials' takes "
    )
    assert str(caught.value).startswith(start)
    assert cure in str(caught.value)


# --- through the backend ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"POOL": {"pool_sise": 3}}, "POOL['pool_sise'] is 3: unknown key; did you mean 'pool_size'?"),
        ({"POOL": {"pool_size": 0}}, "POOL['pool_size'] is 0: 'pool_size' takes a whole number from 1"),
        ({"POOL": "on"}, "POOL is 'on': use a dictionary of options, or False to switch pooling off"),
        ({"OPTIONS": {"pool": True}}, "OPTIONS['pool'] is True: use "),
    ],
)
def test_the_backend_refuses(make_alias: MakeAlias, entry: dict[str, Any], text: str) -> None:
    """The error comes before anything is opened, each time. test_checks.py tests the checks."""
    alias = make_alias(**entry)
    try:
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured) as caught:
                connections[alias].ensure_connection()
            assert str(caught.value).startswith(f"DATABASES[{alias!r}]: {text}")
            assert connections[alias].connection is None
    finally:
        connections.settings[alias].update(POOL={}, OPTIONS={})


def test_the_backend_takes_the_options(make_alias: MakeAlias) -> None:
    wrapper: Any = connections[make_alias(POOL={"pool_size": 2, "max_overflow": 1})]
    assert wrapper.pool_options == PoolOptions(pool_size=2, max_overflow=1)
    assert wrapper.lease_pool.options is wrapper.pool_options


def two_sessions(alias: str) -> list[int]:
    """The server's numbers of two checkouts, one after the other."""
    numbers: list[int] = []
    for _ in range(2):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            numbers.append(cursor.fetchone()[0])
        connections[alias].close()
    return numbers


@pytest.mark.parametrize("poolclass", [OwnQueuePool, "tests.interface.test_conf.OwnQueuePool"])
def test_a_queue_pool_of_ones_own_is_used(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch, poolclass: object
) -> None:
    monkeypatch.setattr(OwnQueuePool, "checkouts", 0)
    one, two = two_sessions(make_alias(POOL={"poolclass": poolclass}))
    assert OwnQueuePool.checkouts == 2
    assert one == two


@pytest.mark.parametrize("poolclass", [OwnNullPool, "tests.interface.test_conf.OwnNullPool"])
def test_a_null_pool_of_ones_own_is_used(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch, poolclass: object
) -> None:
    monkeypatch.setattr(OwnNullPool, "checkouts", 0)
    one, two = two_sessions(make_alias(POOL={"poolclass": poolclass}))
    assert OwnNullPool.checkouts == 2
    assert one != two


@pytest.mark.parametrize(("pool", "kept"), [(None, True), (True, True), ({}, True), (False, False)])
def test_switched_on_and_off(make_alias: MakeAlias, pool: object, kept: bool) -> None:
    one, two = two_sessions(make_alias(POOL=pool))
    assert (one == two) is kept
