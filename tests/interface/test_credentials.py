"""Passwords that are asked for: once for each session that is opened, and told to nobody else."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connections
from django.db.backends.mysql.client import DatabaseClient

from poollife import pool_stats
from poollife.backends.credentials import AskingClient, asking_client
from poollife.backends.mixin import PooledMixin
from poollife.conf import PoolOptions
from poollife.errors import PoolTimeout
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.borrowing import Busy, connection_id, out, run
from tests.support.counting import pool_of

_numbers = itertools.count(1)
#: Where ``POOL["credentials"]`` is a dotted path.
module_vault: Vault


class Vault:
    """Has a user of the server's, whose password it changes, and counts who asks."""

    def __init__(self, server: MariaDB) -> None:
        self.server = server
        self.user = f"rotating_{next(_numbers)}"
        self.password = "first-s3cret"
        self.asked = 0
        self.secrets = [self.password]
        for host in ("%", "localhost"):
            server.execute(f"CREATE USER '{self.user}'@'{host}' IDENTIFIED BY '{self.password}'")
            server.execute(f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'{host}'")

    def ask(self) -> str:
        self.asked += 1
        return self.password

    def ask_for_both(self) -> dict[str, str]:
        return {"USER": self.user, "PASSWORD": self.ask()}

    def rotate(self) -> None:
        """The server takes the old one no longer."""
        self.password = f"next-s3cret-{len(self.secrets)}"
        self.secrets.append(self.password)
        for host in ("%", "localhost"):
            self.server.execute(f"ALTER USER '{self.user}'@'{host}' IDENTIFIED BY '{self.password}'")

    def drop(self) -> None:
        for host in ("%", "localhost"):
            self.server.execute(f"DROP USER '{self.user}'@'{host}'")


def ask_module() -> str:
    """A dotted path leads here."""
    return module_vault.ask()


@pytest.fixture
def vault(mariadb: MariaDB) -> Iterator[Vault]:
    global module_vault
    module_vault = vault = Vault(mariadb)
    yield vault
    vault.drop()


WAYS: dict[str, Callable[[Vault], dict[str, Any]]] = {
    "PASSWORD": lambda vault: {"USER": vault.user, "PASSWORD": vault.ask},
    "OPTIONS password": lambda vault: {"USER": vault.user, "OPTIONS": {"password": vault.ask}},
    "OPTIONS passwd": lambda vault: {"USER": vault.user, "OPTIONS": {"passwd": vault.ask}},
    "credentials": lambda vault: {"USER": vault.user, "POOL": {"credentials": vault.ask}},
    "a dotted path": lambda vault: {
        "USER": vault.user,
        "POOL": {"credentials": "tests.interface.test_credentials.ask_module"},
    },
    "with the user": lambda vault: {"USER": "", "POOL": {"credentials": vault.ask_for_both}},
    "unpooled": lambda vault: {"USER": vault.user, "PASSWORD": vault.ask, "POOL": False},
}


@pytest.fixture(params=WAYS)
def alias(request: pytest.FixtureRequest, make_alias: MakeAlias, vault: Vault) -> str:
    return make_alias(**WAYS[request.param](vault))


@pytest.fixture
def one(make_alias: MakeAlias, vault: Vault) -> str:
    """The usual way."""
    return make_alias(USER=vault.user, PASSWORD=vault.ask)


def wrapper(alias: str) -> PooledMixin:
    return cast(PooledMixin, connections[alias])


def use(alias: str, sql: str = "SELECT CONNECTION_ID()") -> Any:
    """Borrow, run it, and give back."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    connections[alias].close()
    return row[0] if row else None


# --- when it is asked ---------------------------------------------------------------------------------------


def test_who_knows_it_is_asked_for_each_session(alias: str, vault: Vault) -> None:
    for _ in range(3):
        assert use(alias, "SELECT SUBSTRING_INDEX(USER(), '@', 1)") == vault.user
    pool = pool_of(alias)
    assert vault.asked == pool.opened == (1 if pool.options.pooled else 3)
    busy = Busy(alias)
    thread = threading.Thread(target=busy.work)
    thread.start()
    assert busy.begun.wait(30)
    use(alias)
    busy.go_on.set()
    thread.join()
    assert vault.asked == pool.opened


def test_a_reset_asks_and_a_new_wrapper_does_not(one: str, vault: Vault) -> None:
    """Both look at a connection's parameters. But only a reset proves the user again."""
    use(one)
    run(threading.Thread(target=use, args=(one,)))
    assert (pool_of(one).opened, vault.asked) == (1, 1)
    use(one, "SET @left = 1")
    assert (pool_of(one).resets, vault.asked) == (1, 2)
    use(one)
    assert (pool_of(one).opened, vault.asked) == (1, 2)


@pytest.mark.parametrize("engine", ["poollife.backends.mysql_pymysql", "poollife.backends.mysql"])
def test_a_session_that_is_closed_in_place_of_a_reset_asks_nothing(
    make_alias: MakeAlias, vault: Vault, tmp_path: Path, engine: str
) -> None:
    options: dict[str, Any] = {"ssl_disabled": True}
    if engine == "poollife.backends.mysql":
        (tmp_path / "my.cnf").write_text("[client]\n")
        options = {"read_default_file": str(tmp_path / "my.cnf")}
    alias = make_alias(engine, USER=vault.user, PASSWORD=vault.ask, OPTIONS=options)
    use(alias, "SET @left = 1")
    assert (pool_of(alias).closed, vault.asked) == (1, 1)


def test_djangos_own_ways_ask(one: str, vault: Vault) -> None:
    connection = connections[one]
    assert connection.get_connection_params()["password"] == vault.password
    use(one)
    connection.ensure_connection()
    vault.rotate()
    # Also while it has a connection.
    assert connection.get_connection_params()["password"] == vault.password
    assert connection.settings_dict["PASSWORD"] == vault.ask
    with wrapper(one)._nodb_cursor() as cursor:
        cursor.execute("SELECT 1")


def test_receivers_get_the_password_of_now(one: str, vault: Vault) -> None:
    """They may need a connection of another kind."""
    from django.db.backends.signals import connection_created

    got: list[str] = []

    def receive(connection: Any, **_: Any) -> None:
        got.append(connection.get_connection_params()["password"])

    connection_created.connect(receive)
    try:
        use(one)
    finally:
        connection_created.disconnect(receive)
    assert got == [vault.password]


# --- rotation -----------------------------------------------------------------------------------------------


def test_after_a_rotation_sessions_live_on_and_new_ones_use_the_new_password(one: str, vault: Vault) -> None:
    first = connection_id(one)
    pool = pool_of(one)
    vault.rotate()
    assert connection_id(one) == first
    others: list[int] = []
    run(threading.Thread(target=lambda: others.append(use(one))))
    assert others[0] != first
    connections[one].close()
    assert {use(one), use(one)} <= {first, *others}
    assert (pool_of(one), pool.opened, vault.asked) == (pool, 2, 2)


def test_a_reset_uses_the_password_of_now(one: str, vault: Vault) -> None:
    """A reset is a change to the same user."""
    first = use(one)
    for resets in 2, 4:
        vault.rotate()
        assert use(one, "SET @left = 1") is None
        with connections[one].cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID(), @left")
            assert cursor.fetchone() == (first, None)
        connections[one].close()
        assert (pool_of(one).opened, pool_of(one).closed, pool_of(one).resets) == (1, 0, resets)


def denied(server: MariaDB) -> int:
    """How many passwords the server has refused."""
    return server.status("Access_denied_errors")


DIRTY = 4


def return_dirty(alias: str, between: Callable[[], object]) -> None:
    """Have so many sessions out, with something left in each; then they come back one after the other."""
    borrowers = [connections.create_connection(alias) for _ in range(DIRTY)]
    for borrower in borrowers:
        with borrower.cursor() as cursor:
            cursor.execute("SET @left = 1")
    between()
    for borrower in borrowers:
        borrower.close()


def test_a_rotation_costs_no_wrong_password_where_it_is_asked_for(
    alias: str, vault: Vault, mariadb: MariaDB
) -> None:
    """Servers lock an account after a few."""
    before = denied(mariadb)
    return_dirty(alias, vault.rotate)
    assert use(alias, "SELECT @left") is None
    assert denied(mariadb) == before


def test_a_rotation_costs_one_wrong_password_where_it_is_fixed(
    make_alias: MakeAlias, vault: Vault, mariadb: MariaDB
) -> None:
    """The first refusal stands for all sessions that are open then. What is clean goes on."""
    alias = make_alias(USER=vault.user, PASSWORD=vault.password, POOL={"pool_size": DIRTY + 1})
    clean = connections.create_connection(alias)
    clean.ensure_connection()
    before = denied(mariadb)
    return_dirty(alias, vault.rotate)
    clean.close()
    assert (denied(mariadb) - before, pool_of(alias).closed, pool_of(alias).idle) == (1, DIRTY, 1)
    assert pool_stats()[alias]["replaced"] == {
        "it could not be cleaned": 1,
        "opened before the server refused its user": DIRTY - 1,
    }
    assert use(alias)
    # A session that is opened with the right one can be reset.
    pool_of(alias).close_idle()
    connections[alias].settings_dict["PASSWORD"] = vault.password
    session = use(alias)
    use(alias, "SET @left = 1")
    assert use(alias) == session


def test_a_refused_connect_stands_for_the_sessions_that_are_open(
    make_alias: MakeAlias, vault: Vault, mariadb: MariaDB
) -> None:
    alias = make_alias(USER=vault.user, PASSWORD=vault.password, POOL={"pool_size": DIRTY + 1})
    before = denied(mariadb)

    def rotate() -> None:
        vault.rotate()
        with pytest.raises(OperationalError, match="1045"):
            use(alias)

    return_dirty(alias, rotate)
    assert (denied(mariadb) - before, pool_of(alias).closed) == (1, DIRTY)


def test_an_account_that_is_locked_is_tried_once(
    make_alias: MakeAlias, vault: Vault, mariadb: MariaDB
) -> None:
    """There the password is right, so nobody who is asked for it could know."""
    alias = make_alias(USER=vault.user, PASSWORD=vault.ask)
    return_dirty(alias, lambda: mariadb.execute(f"ALTER USER '{vault.user}'@'%' ACCOUNT LOCK"))
    assert (pool_of(alias).closed, pool_of(alias).resets, vault.asked) == (DIRTY, 1, DIRTY + 1)
    mariadb.execute(f"ALTER USER '{vault.user}'@'%' ACCOUNT UNLOCK")
    assert use(alias)


def test_a_session_of_another_user_is_closed_in_place_of_a_reset(
    make_alias: MakeAlias, mariadb: MariaDB, vault: Vault
) -> None:
    """Its user may be gone by now."""
    another = Vault(mariadb)
    try:
        answers = [vault.ask_for_both(), another.ask_for_both(), another.ask_for_both()]
        alias = make_alias(USER="", POOL={"credentials": lambda: answers.pop(0)})
        before = denied(mariadb)
        use(alias, "SET @left = 1")
        assert (pool_of(alias).closed, denied(mariadb)) == (1, before)
        assert use(alias, "SELECT USER()").startswith(another.user)
        assert answers == []
    finally:
        another.drop()


def test_a_vault_that_does_not_answer_costs_the_session_that_needs_a_reset(
    make_alias: MakeAlias, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """And what it says is not logged: it may say too much."""
    caplog.set_level(logging.DEBUG)

    def ask() -> str:
        if vault.asked == 1:
            vault.asked += 1
            raise Unreachable(f"no answer to {vault.password}")
        return vault.ask()

    alias = make_alias(USER=vault.user, PASSWORD=ask)
    use(alias, "SET @left = 1")
    assert (pool_of(alias).closed, pool_of(alias).out) == (1, 0)
    assert "could not be asked for: Unreachable" in caplog.text
    assert "s3cret" not in caplog.text
    assert use(alias)


def test_another_thread_that_resets_a_session_leaves_its_wrapper_alone(one: str, vault: Vault) -> None:
    """The wrapper's own thread may be using it."""
    wrappers: list[Any] = []

    def leave() -> None:
        wrappers.append(connections[one])
        with connections[one].cursor() as cursor:
            cursor.execute("SET @left = 1")

    run(threading.Thread(target=leave))
    (left,) = wrappers
    left.get_connection_params = None  # as good as in use
    vault.rotate()
    pool_of(one).reclaim()
    assert (pool_of(one).resets, pool_of(one).idle, pool_of(one).closed, vault.asked) == (1, 1, 0, 2)
    assert left.settings_dict["PASSWORD"] == vault.ask


def test_a_session_whose_wrapper_is_gone_is_reset_as_it_was_opened(one: str, vault: Vault) -> None:
    """There is no entry of DATABASES any more by which to ask."""
    wrapper = connections.create_connection(one)
    with wrapper.cursor() as cursor:
        cursor.execute("SET @left = 1")
    del wrapper, cursor
    gc.collect()
    pool_of(one).reclaim()
    assert (pool_of(one).resets, pool_of(one).idle, vault.asked) == (1, 1, 1)
    assert use(one, "SELECT @left") is None


def test_a_password_of_yesterday_is_an_error_that_passes(one: str, vault: Vault) -> None:
    given = vault.password
    vault.rotate()
    current, vault.password = vault.password, given
    with pytest.raises(OperationalError, match="1045"):
        use(one)
    assert (out(one), pool_of(one).idle, pool_of(one).opened) == (0, 0, 0)
    vault.password = current
    assert use(one)


def test_users_may_rotate_too(make_alias: MakeAlias, mariadb: MariaDB, vault: Vault) -> None:
    """Vault makes a new user each time: its name and password belong together. It is one pool."""
    another = Vault(mariadb)
    try:
        answers = [vault.ask_for_both(), another.ask_for_both()]
        alias = make_alias(USER="", POOL={"credentials": lambda: answers.pop(0)})
        connection_id(alias)
        users = []
        thread = threading.Thread(target=lambda: users.append(use(alias, "SELECT USER()")))
        run(thread)
        users.append(use(alias, "SELECT USER()"))
        assert [user.partition("@")[0] for user in users] == [another.user, vault.user]
        assert (pool_of(alias).opened, pool_of(alias).idle) == (2, 2)
    finally:
        another.drop()


# --- who is asked fails -------------------------------------------------------------------------------------


class Unreachable(Exception):
    """The vault is."""


def test_its_own_error_reaches_the_borrower_and_no_slot_is_lost(make_alias: MakeAlias, vault: Vault) -> None:
    def ask() -> str:
        if vault.asked == 0:
            vault.asked += 1
            raise Unreachable("no answer")
        return vault.ask()

    alias = make_alias(USER=vault.user, PASSWORD=ask, POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0})
    with pytest.raises(Unreachable):
        use(alias)
    assert isinstance(pool_of(alias).connect_error, Unreachable)
    assert wrapper(alias).settings_dict["PASSWORD"] is ask
    assert use(alias)
    assert pool_of(alias).connect_error is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned no text, but NoneType."),
        (b"s3cret", "returned no text, but bytes."),
        (("shop", "s3cret"), "returned no text, but tuple."),
        ({}, "a dictionary of credentials has USER, PASSWORD or both, and nothing else."),
        ({"USER": "shop", "s3cret": "s3cret"}, "has USER, PASSWORD or both"),
        ({"PASSWORD": 3}, "returned no text, but int."),
    ],
)
def test_an_answer_that_is_none(make_alias: MakeAlias, answer: object, message: str) -> None:
    alias = make_alias(POOL={"credentials": lambda: answer})
    with pytest.raises(ImproperlyConfigured) as caught:
        use(alias)
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert out(alias) == 0


# --- nobody else is told ------------------------------------------------------------------------------------


def test_it_is_told_to_nobody(alias: str, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """Not by logs, errors, or what things look like when printed."""
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    use(alias)
    vault.rotate()
    use(alias, "SET @left = 1")
    connection_id(alias)
    pool = pool_of(alias)
    said += [pool, pool.key, pool.options, *pool.leases, wrapper(alias), connections[alias].connection]
    connections[alias].close()
    vault.password, right = "wrong-s3cret", vault.password
    pool.drain("to open another")
    with pytest.raises(OperationalError) as caught:
        use(alias)
    vault.password = right
    said += [caught.value, pool_of(alias).connect_error, *caplog.messages]
    text = "\n".join(map(repr, said)) + "\n".join(map(str, said)) + caplog.text
    assert "s3cret" not in text


def test_nor_by_the_error_of_who_waited(make_alias: MakeAlias, vault: Vault) -> None:
    pool = {"pool_size": 1, "max_overflow": 0, "timeout": 0.1, "credentials": vault.ask}
    alias = make_alias(USER=vault.user, POOL=pool)
    connection_id(alias)
    caught: list[PoolTimeout] = []

    def wait() -> None:
        with pytest.raises(PoolTimeout) as info:
            use(alias)
        caught.append(info.value)

    run(threading.Thread(target=wait))
    assert "credentials" not in caught[0].settings
    assert "s3cret" not in repr(vars(caught[0]))


@pytest.mark.parametrize("key", ["password", "passwd"])
def test_it_does_not_decide_on_the_pool(make_alias: MakeAlias, vault: Vault, key: str) -> None:
    alias = make_alias(USER=vault.user, OPTIONS={key: vault.password, "charset": "utf8mb4"})
    use(alias)
    pool = pool_of(alias)
    vault.rotate()
    connections[alias].settings_dict["OPTIONS"][key] = vault.password
    assert pool_of(alias) is pool
    connections[alias].settings_dict["OPTIONS"]["charset"] = "latin1"
    assert pool_of(alias) is not pool


SECRET = "hunter2.is.s3cret"


@pytest.mark.parametrize(
    "pool",
    [
        {"password": SECRET},
        {"PASSWORD": SECRET},
        {"db_pass": SECRET},
        {"token": SECRET},
        {"credentials": SECRET},
        {"credentials": "s3cret"},
        {"credentials": {"PASSWORD": SECRET}},
        {"credentials": "os.s3cret"},
    ],
    ids=str,
)
def test_a_password_in_the_wrong_place_is_not_repeated(pool: dict[str, object]) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        PoolOptions.from_settings("default", {"OPTIONS": {}, "POOL": pool})
    error: BaseException | None = caught.value
    assert "is a value that is not shown here: " in str(error)
    while error:
        assert "s3cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# --- Django's own programs ----------------------------------------------------------------------------------


def test_dbshell(alias: str, vault: Vault, capfd: pytest.CaptureFixture[str]) -> None:
    if not connections[alias].settings_dict["OPTIONS"]:  # a client that names neither would be another user
        vault.rotate()
    call_command("dbshell", "--database", alias, "--", "--batch", "-e", "SELECT USER() AS who")
    told = capfd.readouterr()
    assert told.out.startswith(f"who\n{vault.user}@"), told.err


def test_test_databases_and_their_clones(
    alias: str, vault: Vault, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.DATABASES, alias, connections.settings[alias])
    connection = connections[alias]
    real = connection.settings_dict["NAME"]
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    use(alias, "CREATE TABLE things (number INT)")
    vault.rotate()
    connection.creation.clone_test_db("1", verbosity=0)
    assert mariadb.execute(f"SHOW TABLES FROM {name}_1") == [("things",)]
    connection.settings_dict["NAME"] = name
    connection.creation.destroy_test_db(suffix="1", verbosity=0)
    connection.creation.destroy_test_db(real, verbosity=0)
    assert connection.settings_dict["NAME"] == real


def test_a_copy_of_a_wrapper(one: str, vault: Vault) -> None:
    """Same pool."""
    copy = connections[one].copy()
    copy.ensure_connection()
    copy.close()
    use(one)
    assert (pool_of(one).opened, vault.asked) == (1, 1)


def test_clients_are_made_once() -> None:
    make: Callable[[Any], type] = asking_client
    client = make(DatabaseClient)
    assert make(DatabaseClient) is client
    assert make(client) is client
    assert issubclass(client, AskingClient)
    assert (client.__name__, client.__module__) == (DatabaseClient.__name__, DatabaseClient.__module__)
