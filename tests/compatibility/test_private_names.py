"""The private names that poollife relies on: a release that changes them fails here."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import MySQLdb
import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections
from django.db.backends.base import base as django_base
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.creation import BaseDatabaseCreation
from django.utils.functional import cached_property
from MySQLdb import _mysql
from MySQLdb.connections import Connection
from sqlalchemy import event
from sqlalchemy.pool import NullPool, Pool, QueuePool
from sqlalchemy.pool import base as sqlalchemy_pool

from poollife.backends.mixin import PooledMixin
from poollife.drivers.mysql.mysqlclient import GuardedConnection, driver
from poollife.drivers.sqlite import connection as sqlite
from poollife.executors import runs_sync_code, waits_for_job
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.registry import registry
from poollife.pools.sqlalchemy import detach_finalizer
from poollife.pools.tickets import Ticket
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE
from tests.support.counting import pool_of
from tests.support.web_server import eventually

# --- executors and asgiref ----------------------------------------------------------------------------------


def test_a_worker_of_an_executor_is_seen_to_wait_and_to_work() -> None:
    """Covers ``concurrent.futures``; tests/invariants/inv2_return/test_reclaim.py covers AnyIO."""
    begun, go_on = threading.Event(), threading.Event()

    def job() -> threading.Thread:
        begun.set()
        go_on.wait(PATIENCE)
        return threading.current_thread()

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(job)
        begun.wait(PATIENCE)
        (thread,) = executor._threads
        assert not waits_for_job(thread)
        go_on.set()
        assert future.result(PATIENCE) is thread
        eventually("it waits for the next", lambda: waits_for_job(thread))
    assert not waits_for_job(thread)
    assert not waits_for_job(threading.main_thread())


def test_the_thread_of_a_contexts_sync_code_is_known() -> None:
    """``SyncToAsync.thread_handler``, its ``threadlocal`` and ``_thread_sensitive``."""

    async def ask() -> list[bool]:
        anywhere = sync_to_async(runs_sync_code, thread_sensitive=False)
        return [
            await sync_to_async(runs_sync_code)(),
            await asyncio.to_thread(runs_sync_code),
            await anywhere(),
            # In a thread that such a call has come to.
            await asyncio.to_thread(runs_sync_code),
        ]

    async def ask_in_context() -> list[bool]:
        async with ThreadSensitiveContext():
            return await ask()

    for way in (ask, ask_in_context):
        assert asyncio.run(way()) == [True, False, False, False]
        assert async_to_sync(way)() == [True, False, False, False]


# --- SQLAlchemy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_do_get", "_do_return_conn"])
def test_the_queue_replaces_what_is_there(name: str) -> None:
    ours, theirs = (inspect.signature(vars(c)[name]).parameters for c in (FairQueuePool, QueuePool))
    assert len(ours) == len(theirs)
    assert f".{name}(" in inspect.getsource(sqlalchemy_pool)


def test_the_queue_makes_records_as_the_pool_does() -> None:
    assert "self._create_connection()" in inspect.getsource(QueuePool)


def test_a_record_without_a_handle_opens_and_keeps_its_session() -> None:
    """``take()`` does what ``_ConnectionRecord.checkout()`` does, and ``put()`` what ``checkin()`` does."""
    pool = FairQueuePool(Recorded, reset_on_return=None)
    record = sqlalchemy_pool._ConnectionRecord
    assert "rec.get_connection()" in inspect.getsource(record.checkout)
    assert "dispatch.checkin(connection, self)" in inspect.getsource(record.checkin)
    taken = pool.take(Ticket())
    session = taken.dbapi_connection
    assert isinstance(session, Recorded)
    pool.put(taken)
    assert (pool.take(Ticket()).dbapi_connection, session.calls) == (session, [])


@pytest.mark.parametrize("name", ["checkout", "checkin"])
def test_listeners_are_told(make_alias: MakeAlias, name: str) -> None:
    """Only they cost a handle."""
    alias, told = make_alias(), []
    sessions = pool_of(alias)._sessions
    event.listen(sessions, name, lambda connection, *_: told.append(connection))
    for _ in range(2):
        connections[alias].ensure_connection()
        driver = connections[alias].connection
        connections[alias].close()
    assert [id(each) for each in told] == [id(driver)] * 2
    pool = pool_of(alias)
    assert (pool.out, pool.idle, pool.opened) == (0, 1, 1)


class Recorded:
    """A driver's connection that notes what is done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def rollback(self) -> None:
        self.calls.append("rollback")

    def close(self) -> None:
        self.calls.append("close")


#: poollife's pools do not reset; their leases do.
each_pool = pytest.mark.parametrize(
    ("poolclass", "resets"), [(QueuePool, True), (QueuePool, False), (NullPool, True)]
)


def make_pool(poolclass: type[Pool], connection: Any, resets: bool = True) -> Pool:
    return poolclass(lambda: connection, reset_on_return=resets)


@each_pool
def test_a_dropped_handle_acts(poolclass: type[Pool], resets: bool) -> None:
    """What detach_finalizer() is there to prevent; the next test would be worth nothing without it."""
    connection = Recorded()
    pool = make_pool(poolclass, connection, resets)
    handle = pool.connect()
    record = cast(Any, handle)._connection_record
    assert record.fairy_ref is not None
    del handle
    gc.collect()
    assert record.fairy_ref is None
    if isinstance(pool, QueuePool):
        assert (pool.checkedout(), pool.checkedin()) == (0, 1)
        assert connection.calls == (["rollback"] if resets else [])
    else:
        assert connection.calls == ["rollback", "close"]


@each_pool
def test_a_detached_handle_does_nothing_when_dropped(poolclass: type[Pool], resets: bool) -> None:
    connection = Recorded()
    pool = make_pool(poolclass, connection, resets)
    handle = pool.connect()
    detach_finalizer(handle)
    del handle
    gc.collect()
    assert connection.calls == []
    if isinstance(pool, QueuePool):
        assert (pool.checkedout(), pool.checkedin()) == (1, 0)


def test_detaching_twice_is_harmless() -> None:
    connection = Recorded()
    handle = make_pool(QueuePool, connection).connect()
    detach_finalizer(handle)
    detach_finalizer(handle)
    del handle
    gc.collect()
    assert connection.calls == []


def test_detaching_what_has_come_back_is_harmless() -> None:
    connection = Recorded()
    pool = make_pool(QueuePool, connection)
    handle = pool.connect()
    handle.close()
    detach_finalizer(handle)
    assert connection.calls == ["rollback"]
    pool.connect().close()
    assert connection.calls == ["rollback", "rollback"]


AT_EXIT = """
import sys
from sqlalchemy.pool import QueuePool
from poollife.pools.sqlalchemy import detach_finalizer

class Connection:
    def rollback(self):
        print("rollback")
    def close(self):
        print("close")

class Cycle:
    pass

kept = [QueuePool(Connection), Cycle(), Cycle()]
kept[1].handle = kept[0].connect()
kept[1].itself = kept[1]
kept[2].handle = kept[0].connect()
if "detached" in sys.argv:
    detach_finalizer(kept[1].handle)
    detach_finalizer(kept[2].handle)
"""


def test_a_detached_handle_does_nothing_at_exit() -> None:
    """Whether it is freed by the interpreter's shutdown or by a finalizer registered for its exit."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, "detached"], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


# --- Django -----------------------------------------------------------------------------------------------


def assigned_on_self(method: Any) -> set[str]:
    """The names of the attributes that the method's source assigns on self."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


#: What a wrapper may carry from the connection that it had before.
USED: dict[str, Any] = {
    "in_atomic_block": True,
    "savepoint_ids": ["s1", "s2"],
    "atomic_blocks": ["a block"],
    "needs_rollback": True,
    "health_check_enabled": "used",
    "close_at": "used",
    "closed_in_transaction": True,
    "errors_occurred": True,
    "health_check_done": False,
    "connection": None,
    "autocommit": "used",
    # close() empties it.
    "run_on_commit": [],
    # Set by set_autocommit(), which connect() calls.
    "run_commit_hooks_on_set_autocommit_on": True,
}
#: poollife's own.
OWN = {"lease", "_configured_for"}


def test_what_connect_assigns_is_known() -> None:
    """A new attribute would have to be assigned in ``_resume`` too, and to be spoiled in the test below."""
    names = assigned_on_self(BaseDatabaseWrapper.connect)
    assert "in_atomic_block" in names  # the source was found
    assert names <= USED.keys()
    assert names <= assigned_on_self(PooledMixin._resume)
    assert names | {"autocommit", "run_commit_hooks_on_set_autocommit_on"} == USED.keys()


def changed_by_connect(wrapper: Any) -> dict[str, Any]:
    """Spoil it, connect it, and return the attributes that are not what they were before."""
    vars(wrapper).update(
        {name: value.copy() if isinstance(value, list) else value for name, value in USED.items()}
    )
    before = dict(vars(wrapper))
    wrapper.connect()
    missing = object()
    changed = {
        name: value
        for name, value in vars(wrapper).items()
        if value is not before.get(name, missing)
        # Whatever it has asked the server and will not ask again.
        and not isinstance(inspect.getattr_static(type(wrapper), name, None), cached_property)
    }
    return {name: value for name, value in changed.items() if name not in OWN}


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize(("max_age", "health_checks"), [(None, False), (60, True)])
def test_a_warm_checkout_leaves_the_wrapper_as_a_cold_one_does(
    make_alias: MakeAlias, autocommit: bool, max_age: int | None, health_checks: bool
) -> None:
    """Compares the attributes after Django's own ``connect()`` with those after ``_resume()``."""
    alias = make_alias(AUTOCOMMIT=autocommit, CONN_MAX_AGE=max_age, CONN_HEALTH_CHECKS=health_checks)
    cold_wrapper, warm_wrapper = connections.create_connection(alias), connections.create_connection(alias)

    cold = changed_by_connect(cold_wrapper)
    cold_wrapper.close()
    warm = changed_by_connect(warm_wrapper)
    stats = warm_wrapper.lease_pool  # type: ignore[attr-defined]
    assert (stats.opened, stats.checkouts) == (1, 2)
    warm_wrapper.close()

    assert warm.keys() == cold.keys()
    if max_age is not None:
        assert 0 <= warm.pop("close_at") - cold.pop("close_at") < max_age
    assert warm == cold
    assert warm["autocommit"] is autocommit


def test_the_alias_of_no_database(make_alias: MakeAlias) -> None:
    assert django_base.NO_DB_ALIAS == "__no_db__"
    with connections[make_alias()]._nodb_cursor() as cursor:
        assert cursor.db.alias == django_base.NO_DB_ALIAS
        assert cursor.db.settings_dict["NAME"] is None
        assert not cursor.db.pool_options.pooled


@pytest.mark.parametrize(
    "name",
    [
        "create_test_db",
        "clone_test_db",
        "destroy_test_db",
        "set_as_test_mirror",
        "setup_worker_connection",
    ],
)
def test_the_steps_of_the_test_runner(name: str) -> None:
    """Each step that gives an alias another database is one that poollife knows."""
    assert callable(getattr(BaseDatabaseCreation, name))


def test_no_other_step_changes_the_database() -> None:
    """Whatever writes NAME has to dispose of the pools."""
    writers = {
        name
        for name, method in vars(BaseDatabaseCreation).items()
        if inspect.isfunction(method) and changes_settings(method)
    }
    assert writers == {"create_test_db", "destroy_test_db", "set_as_test_mirror", "setup_worker_connection"}


def changes_settings(method: Any) -> bool:
    """Whether its source has ``settings_dict[...] = ...`` or ``settings_dict.update(...)``."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            target: ast.expr = node.value
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update"
        ):
            target = node.func.value
        else:
            continue
        if isinstance(target, ast.Attribute) and target.attr == "settings_dict":
            return True
    return False


@pytest.mark.parametrize("name", ["connection", "in_atomic_block", "closed_in_transaction", "needs_rollback"])
def test_what_losing_a_lease_sets(name: str) -> None:
    """In a child, so that an atomic block of the parent's fails there."""
    assert name in assigned_on_self(BaseDatabaseWrapper.__init__)
    assert "_close" in vars(BaseDatabaseWrapper)


# --- mysqlclient ------------------------------------------------------------------------------------------

#: Answered by the client library from what it knows already.
NO_IO: dict[str, tuple[Any, ...]] = {
    "affected_rows": (),
    "character_set_name": (),
    "errno": (),
    "error": (),
    "escape": ("text", {str: lambda value, _: value}),
    "escape_string": (b"text",),
    "field_count": (),
    "fileno": (),
    "get_autocommit": (),
    "get_character_set_info": (),
    "get_host_info": (),
    "get_proto_info": (),
    "get_server_info": (),
    "info": (),
    "insert_id": (),
    "literal": ("text",),
    "sqlstate": (),
    "string_literal": (b"text",),
    "thread_id": (),
    "warning_count": (),
}
if hasattr(_mysql.connection, "more_results"):  # mysqlclient 2.3
    NO_IO["more_results"] = ()
#: Made of guarded ones.
COMPOSED: dict[str, tuple[Any, ...]] = {
    "begin": (),
    "set_sql_mode": ("ANSI",),
    "show_warnings": (),
}
#: They reach the server, so they are GuardedConnection's own.
GUARDED: dict[str, tuple[Any, ...]] = {
    "autocommit": (True,),
    "change_user": ("user", "password", "database"),
    "commit": (),
    "cursor": (),
    "discard_result": (),
    "dump_debug_info": (),
    "kill": (1,),
    "next_result": (),
    "ping": (),
    "query": (b"SELECT 1",),
    "read_query_result": (),
    "rollback": (),
    "select_db": ("mysql",),
    "send_query": (b"SELECT 1",),
    "set_character_set": ("utf8mb4",),
    "set_server_option": (0,),
    "shutdown": (),
    "stat": (),
    "store_result": (),
    "use_result": (),
}


@pytest.fixture
def foreign(mariadb: MariaDB) -> Iterator[GuardedConnection]:
    """A guarded connection that thinks itself in another process than its own."""
    options = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    connection = driver.adopt(MySQLdb.connect(**options), os.getpid(), options)
    pid = connection.guard.pid
    connection.guard.pid = -1
    yield connection
    connection.guard.pid = pid
    connection.close()


def public_methods(*classes: type) -> set[str]:
    return {
        name
        for each in classes
        for name, value in vars(each).items()
        if not name.startswith("_") and callable(value) and not inspect.isclass(value)
    }


def test_every_method_of_the_driver_is_known() -> None:
    """A new one has to be guarded, or to be found to send and read nothing."""
    assert public_methods(Connection, _mysql.connection) == {*GUARDED, *COMPOSED, *NO_IO, "close"}


def test_special_methods_of_the_driver() -> None:
    """``__exit__`` closes, and ``close`` is guarded."""
    special = {
        name
        for each in (Connection, _mysql.connection)
        for name, value in vars(each).items()
        if name.startswith("__") and callable(value) and not inspect.isclass(value)
    }
    assert special - {"__new__", "__init__", "__repr__"} == {
        "__delattr__",
        "__enter__",
        "__exit__",
        "__getattribute__",
        "__setattr__",
    }


@pytest.mark.parametrize("name", GUARDED)
def test_a_guarded_method_refuses(foreign: GuardedConnection, name: str) -> None:
    assert getattr(GuardedConnection, name) is not getattr(Connection, name)
    with pytest.raises(MySQLdb.InterfaceError, match="belongs to process -1"):
        getattr(foreign, name)(*GUARDED[name])


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_method_refuses(foreign: GuardedConnection, name: str) -> None:
    with pytest.raises(MySQLdb.InterfaceError, match="belongs to process -1"):
        getattr(foreign, name)(*COMPOSED[name])


@pytest.mark.parametrize("name", NO_IO)
def test_a_method_without_io(foreign: GuardedConnection, name: str) -> None:
    """It works with /dev/null in place of the socket, where nothing could be read."""
    foreign.guard.cover()
    getattr(foreign, name)(*NO_IO[name])


def test_io_would_have_failed(foreign: GuardedConnection) -> None:
    """What the test above stands on."""
    foreign.guard.cover()
    with pytest.raises(MySQLdb.OperationalError):
        Connection.ping(foreign)


def test_leaving_a_with_block_closes_nothing(foreign: GuardedConnection) -> None:
    """In a foreign process it only lets go."""
    with foreign:
        pass
    assert foreign.open


def test_a_connection_changes_its_class(make_alias: MakeAlias) -> None:
    """``adopt`` does so with what ``MySQLdb.connect`` has made, and it stays the same object."""
    wrapper: Any = connections[make_alias()]
    params = wrapper.get_connection_params()
    plain = MySQLdb.connect(**params)
    assert type(plain) is Connection
    guarded = driver.adopt(plain, os.getpid(), params)
    assert guarded is plain
    assert type(guarded) is GuardedConnection
    guarded.ping()
    guarded.close()
    assert not guarded.open


# --- sqlite3 ----------------------------------------------------------------------------------------------

#: What the connection's own methods do to the file or its locks, so GuardedConnection has its own.
SQLITE_GUARDED: dict[str, tuple[Any, ...]] = {
    "__call__": ("SELECT 1",),
    "__exit__": (None, None, None),
    "backup": (sqlite3.connect(":memory:"),),
    "blobopen": ("t", "b", 1),
    "commit": (),
    "cursor": (),
    "deserialize": (b"",),
    "execute": ("SELECT 1",),
    "executemany": ("INSERT INTO t VALUES (?)", []),
    "executescript": ("",),
    "load_extension": ("extension",),
    "rollback": (),
    "serialize": (),
}
#: Guarded or not: they only prepare what a statement would use.
SQLITE_NO_IO = {
    "create_aggregate",
    "create_collation",
    "create_function",
    "create_window_function",
    "enable_load_extension",
    "getconfig",
    "getlimit",
    "interrupt",
    "set_authorizer",
    "set_progress_handler",
    "set_trace_callback",
    "setconfig",
    "setlimit",
}


@pytest.fixture
def foreign_handle(tmp_path: Path) -> Iterator[Any]:
    """The same for SQLite: with a write transaction under way."""
    connection: Any = sqlite.guarded_factory(sqlite3.Connection)(tmp_path / "database.sqlite3")
    connection.execute("CREATE TABLE t (b BLOB)")
    connection.execute("INSERT INTO t VALUES (x'00')")
    pid = connection.guard.pid
    connection.guard.pid = -1
    yield connection
    connection.guard.pid = pid
    connection.close()


def test_every_method_of_sqlite_is_known() -> None:
    """Some are missing in older versions of Python."""
    special = {"__call__", "__exit__"}
    methods = public_methods(sqlite3.Connection) | (special & vars(sqlite3.Connection).keys())
    assert methods <= {*SQLITE_GUARDED, *SQLITE_NO_IO, "close", "iterdump"}


@pytest.mark.parametrize("name", [name for name in SQLITE_GUARDED if hasattr(sqlite3.Connection, name)])
def test_a_guarded_method_of_sqlite_refuses(foreign_handle: Any, name: str) -> None:
    with pytest.raises(sqlite3.InterfaceError, match="belongs to process -1"):
        getattr(type(foreign_handle), name)(foreign_handle, *SQLITE_GUARDED[name])
    assert foreign_handle.in_transaction


def test_iterdump_refuses(foreign_handle: Any) -> None:
    with pytest.raises(sqlite3.InterfaceError, match="belongs to process -1"):
        list(foreign_handle.iterdump())


@pytest.mark.parametrize(("name", "value"), [("isolation_level", None), ("autocommit", True)])
def test_an_assignment_that_commits_refuses(foreign_handle: Any, name: str, value: object) -> None:
    """Setting ``isolation_level`` to None commits, as does ``autocommit = True`` from Python 3.12 on."""
    if not hasattr(sqlite3.Connection, name):
        pytest.skip(f"this Python has no {name}")
    with pytest.raises(sqlite3.InterfaceError, match="belongs to process -1"):
        setattr(foreign_handle, name, value)
    assert foreign_handle.in_transaction


def test_closing_a_foreign_handle_does_nothing(foreign_handle: Any) -> None:
    foreign_handle.close()
    assert foreign_handle.in_transaction


@pytest.fixture(autouse=True)
def _no_pools_left() -> Iterator[None]:
    """Nothing in here leaves a pool behind."""
    yield
    assert [pool for pool in registry.pools() if pool.out] == []


# --- Django's and asyncio's, on the hot path ----------------------------------------------------------------


def test_sharing_is_read_from_djangos_count(make_alias: MakeAlias) -> None:
    wrapper = connections[make_alias()]
    for shared in (False, True):
        assert wrapper.allow_thread_sharing is shared
        assert BaseDatabaseWrapper.allow_thread_sharing.fget(wrapper) is shared  # type: ignore[attr-defined]
        wrapper.inc_thread_sharing()
    wrapper.dec_thread_sharing()
    wrapper.dec_thread_sharing()
    assert wrapper.allow_thread_sharing is False


def test_a_running_loop_is_found_without_an_error() -> None:
    async def inside() -> bool:
        return asyncio._get_running_loop() is asyncio.get_running_loop()

    assert asyncio._get_running_loop() is None
    assert asyncio.run(inside())
