"""The mixin beside backends of other databases, and of tools that have wrappers of their own."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import pytest
from django.db import backends, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from MySQLdb.cursors import Cursor

from poollife.backends.keys import containers_of
from poollife.backends.mixin import PooledMixin
from poollife.backends.mysql.base import PooledMySQLMixin
from poollife.backends.opening import OpeningMixin
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, out
from tests.support.engines.vendor import VendorWrapper

DJANGOS = sorted(Path(backends.__file__).parent.glob("*/base.py"))


def names_of(path: Path) -> Iterator[str]:
    """Yield what a backend's DatabaseWrapper defines, and what it assigns to itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and node.name == "DatabaseWrapper":
            for statement in node.body:
                if isinstance(statement, ast.Assign):
                    yield from (each.id for each in ast.walk(statement) if _is_set(each))
            for part in ast.walk(node):
                if isinstance(part, ast.FunctionDef):
                    yield part.name
                elif _is_set_on_self(part):
                    yield part.attr


def _is_set(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _is_set_on_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)):
        return False
    return isinstance(node.value, ast.Name) and node.value.id == "self"


@pytest.mark.parametrize("path", DJANGOS, ids=lambda path: path.parent.name)
def test_the_mixin_shadows_no_attribute_of_a_backend(path: Path) -> None:
    """PostgreSQL's and Oracle's have a ``pool`` of their own, for example: their ``connect()`` needs it."""
    added = {name for name in vars(PooledMixin) | vars(OpeningMixin) if not name.startswith("__")}
    # What the base class has is overridden on purpose; and so are two methods that every backend has.
    overridden = set(dir(BaseDatabaseWrapper)) | {"get_connection_params", "get_new_connection", "Database"}
    assert {"lease_pool", "release"} <= added
    assert (added - overridden) & set(names_of(path)) == set()


class OwnCursorWrapper(CursorWrapper):
    """A tool's, which counts."""

    executed: ClassVar[list[str]] = []

    def execute(self, sql: Any, params: Any = None) -> Any:
        self.executed.append(sql)
        return super().execute(sql, params)


class WithOwnCursors(VendorWrapper):
    def make_cursor(self, cursor: Any) -> OwnCursorWrapper:
        return OwnCursorWrapper(cursor, self)


class PooledWithOwnCursors(PooledMySQLMixin, WithOwnCursors):
    pass


class ReadsSettingsLate(VendorWrapper):
    """As Oracle's backend: the password is read as the connection is opened."""

    read: ClassVar[list[object]] = []

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self.read.append(self.settings_dict["PASSWORD"])
        return super().get_new_connection(conn_params)


class PooledReadsSettingsLate(PooledMySQLMixin, ReadsSettingsLate):
    pass


def wrapper_of(make_alias: MakeAlias, wrapper_class: type, **entry: Any) -> Any:
    """Put a wrapper of this class in place of the alias's."""
    alias = make_alias(**entry)
    wrapper = wrapper_class(connections[alias].settings_dict, alias)
    connections[alias] = wrapper
    return wrapper


def in_thread(work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert failures == []


def test_a_tools_own_cursor_wrapper_stays_and_ends_its_statement(make_alias: MakeAlias) -> None:
    alias = make_alias()

    def work() -> None:
        connections[alias] = wrapper = PooledWithOwnCursors(connections[alias].settings_dict, alias)
        with wrapper.cursor() as cursor:
            assert isinstance(cursor, OwnCursorWrapper)
            cursor.execute("SELECT 'own'")
            assert (cursor.fetchall(), out(alias)) == ((("own",),), 1)
        # A bare thread: the end of the statement has given the connection back.
        assert out(alias) == 0

    in_thread(work)
    assert OwnCursorWrapper.executed[-1] == "SELECT 'own'"


def test_statements_that_are_logged_end_as_well(make_alias: MakeAlias) -> None:
    alias = make_alias()

    def work() -> None:
        connections[alias].ensure_connection()
        connections[alias].force_debug_cursor = True
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 'logged'")
            assert (cursor.fetchone(), out(alias)) == (("logged",), 1)
        assert out(alias) == 0
        assert [query["sql"] for query in connections[alias].queries] == ["SELECT 'logged'"]

    in_thread(work)


def test_a_password_that_is_asked_for_is_read_as_the_connection_is_opened(make_alias: MakeAlias) -> None:
    asked: list[int] = []
    alias = make_alias()
    password = connections[alias].settings_dict["PASSWORD"]

    def ask() -> str:
        asked.append(1)
        return str(password)

    wrapper = wrapper_of(make_alias, PooledReadsSettingsLate, PASSWORD=ask)
    wrapper.ensure_connection()
    assert ReadsSettingsLate.read[-1] == password
    # Once for the parameters and for the opening, and the settings keep the question.
    assert (asked, wrapper.settings_dict["PASSWORD"], wrapper._answered) == ([1], ask, None)


# --- what changes after the first checkout ----------------------------------------------------------------


@pytest.mark.parametrize("place", ["class", "instance"])
def test_a_pool_key_that_is_overridden_later_counts(
    make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    wrapper: Any = connections[make_alias()]
    wrapper.ensure_connection()
    first, key = wrapper.lease.pool, wrapper.pool_key()
    wrapper.close()
    other = key._replace(alias="of a tenant")
    if place == "class":
        monkeypatch.setattr(type(wrapper), "pool_key", lambda self: other)
    else:
        wrapper.pool_key = lambda: other
    wrapper.ensure_connection()
    assert (wrapper.lease.pool is first, wrapper.lease.pool.key) == (False, other)
    wrapper.close()
    wrapper.lease_pool.drain("the test is over")


def test_options_that_are_changed_in_place_lead_to_another_pool(make_alias: MakeAlias) -> None:
    wrapper: Any = connections[make_alias(OPTIONS={"charset": "utf8mb4"})]
    wrapper.ensure_connection()
    first = wrapper.lease.pool
    wrapper.close()
    wrapper.settings_dict["OPTIONS"]["charset"] = "utf8"
    wrapper.ensure_connection()
    assert wrapper.lease.pool is not first


def test_containers_are_copied_whatever_they_are_in() -> None:
    inner = {"a": 1}
    value = {"x": (inner, [inner])}
    copy = containers_of(value)
    assert copy == value
    inner["a"] = 2
    assert copy != value


def test_a_cursor_that_is_closed_later_does_not_end_the_next_lease(make_alias: MakeAlias) -> None:
    alias = make_alias()

    def work() -> None:
        wrapper: Any = connections[alias]
        cursor = wrapper.cursor()
        cursor.execute("SELECT 1")
        wrapper.close()
        wrapper.ensure_connection()
        lease = wrapper.lease
        cursor.close()
        assert wrapper.lease is lease
        wrapper.close()

    in_thread(work)


def test_the_log_of_sqlites_statements_keeps_no_connection(make_alias: MakeAlias, tmp_path: Path) -> None:
    alias = make_alias("poollife.backends.sqlite3", NAME=str(tmp_path / "db"))

    def work() -> None:
        connections[alias].force_debug_cursor = True
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT %s", [1])
            assert cursor.fetchone() == (1,)
        assert out(alias) == 0

    in_thread(work)


class MakesBoth(VendorWrapper):
    """A backend whose two kinds of cursors are one."""

    def make_debug_cursor(self, cursor: Any) -> Any:
        return self.make_cursor(cursor)


class PooledMakesBoth(PooledMySQLMixin, MakesBoth):
    pass


def test_a_cursor_is_pooled_once(make_alias: MakeAlias) -> None:
    wrapper = wrapper_of(make_alias, PooledMakesBoth)
    wrapper.ensure_connection()
    wrapper.force_debug_cursor = True
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


class ExecutesInInit(Cursor):  # type: ignore[misc]  # mysqlclient is not typed
    """A cursor class of the site's own."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.execute("SELECT 'ready'")


def test_a_cursor_class_may_execute_as_it_is_made(make_alias: MakeAlias) -> None:
    alias = make_alias()
    connections[alias].ensure_connection()
    with connections[alias].connection.cursor(ExecutesInInit) as cursor:
        assert cursor.fetchone() == ("ready",)
