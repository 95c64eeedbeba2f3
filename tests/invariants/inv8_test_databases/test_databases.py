"""Invariant 8: tests never touch the real database."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS

from poollife.backends.keys import freeze
from poollife.pools.registry import registry
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT, needs
from tests.support.counting import Content, content
from tests.support.general_log import Statement, clear_log, logging_everything, statements
from tests.support.web_server import eventually

USER = "rows"
#: What the project's early look at the real database sends. Nothing else may.
READING = {"SELECT", "SET", "SHOW", "ROLLBACK"}
WRITING = {"INSERT", "UPDATE", "DELETE", "TRUNCATE", "CREATE", "ALTER", "DROP"}
TESTS = 13


# --- real databases, and a project that has them ----------------------------------------------------------


class RealDatabase:
    """A database with two rows in it."""

    def __init__(self, server: MariaDB, name: str) -> None:
        self.server = server
        self.name = name
        self.test_name = f"test_{name}"

    def entry(self, **more: Any) -> dict[str, Any]:
        """For ``DATABASES``."""
        entry = {"ENGINE": "poollife.backends.mysql", **self.server.database(self.name), "USER": USER}
        return {**entry, **more}

    def content(self) -> Content:
        return content(self.server, self.name)

    def rows(self) -> list[str]:
        return [
            name for (name,) in self.server.execute(f"SELECT name FROM `{self.name}`.rows_row ORDER BY id")
        ]


def databases_like(server: MariaDB, name: str) -> list[str]:
    """That one, and all whose names were made from it."""
    rows = server.execute(
        "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE %s", f"%{name}%"
    )
    return sorted(found for (found,) in rows)


@dataclass
class Outcome:
    """How a run of the project's tests ended."""

    status: int
    output: str

    def check(self, tests: int = TESTS) -> None:
        assert self.status == 0, self.output
        assert f"Ran {tests} tests in" in self.output, self.output
        assert "Exception ignored" not in self.output, self.output

    def check_failure(self, tests: int = TESTS) -> None:
        """All tests have run, and not all have passed: an engine that can't start would prove nothing."""
        assert self.status != 0, self.output
        assert f"Ran {tests} tests in" in self.output, self.output


@dataclass
class Site:
    """The project in tests/support/rows_site, with databases of its own."""

    databases: dict[str, dict[str, Any]]
    folder: Path
    #: Which aliases show another one's database while tests run.
    mirrors: dict[str, str] = field(default_factory=dict)
    look_early: bool = True
    start_method: str = "fork"
    stop: bool = False
    label: str = "tests.support.rows_site.rows.tests"
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Begin ``django test``."""
        for fifo in ("meeting", "parting", "stopping"):
            if not (self.folder / fifo).exists():
                os.mkfifo(self.folder / fifo)
        if "--parallel" in options:
            needs.client_programs()
        return self.command("test", self.label, "--noinput", *options, parallel="--parallel" in options)

    def command(self, *arguments: str, parallel: bool = False) -> subprocess.Popen[str]:
        """Begin a management command, in a process group of its own."""
        site = {
            "databases": self.databases,
            "mirrors": self.mirrors,
            "expected": {alias: self._expected(alias, parallel) for alias in self.databases},
            "folder": str(self.folder),
            "look_early": self.look_early,
            "start_method": self.start_method,
            "stop": self.stop,
            "parallel": parallel,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.support.rows_site.settings",
                "ROWS_SITE": json.dumps(site),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def test(self, *options: str) -> Outcome:
        """Run ``django test``."""
        return self.end(self.start(*options))

    def end(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for the end of it."""
        output, _ = process.communicate(timeout=90)
        return Outcome(process.returncode, output)

    def close(self) -> None:
        """Leave no process behind, whatever happened."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def _expected(self, alias: str, parallel: bool) -> list[str]:
        """The databases that a test may find behind this alias."""
        entry = self.databases[self.mirrors.get(alias, alias)]
        name = f"test_{entry['NAME']}"
        if entry["ENGINE"].endswith(".sqlite3"):
            name = entry.get("TEST", {}).get("NAME", "memory")
        if not parallel or name == "memory":
            return [name]
        path = Path(name)
        return [str(path.with_name(f"{path.stem}_{number}{path.suffix}")) for number in (1, 2)]


def wait_until_empty(server: MariaDB) -> None:
    """Until the project has no session any more."""
    eventually("the project's sessions end", lambda: not server.sessions(USER))


class Watch:
    """Proves, by what the servers say, that a run left real databases alone."""

    def __init__(self, *reals: RealDatabase) -> None:
        self.reals = reals
        self.before = [real.content() for real in reals]
        for server in self.servers:
            clear_log(server)

    @property
    def servers(self) -> list[MariaDB]:
        return list(dict.fromkeys(real.server for real in self.reals))

    def sent(self, server: MariaDB) -> list[Statement]:
        return statements(server, USER)

    def written(self, server: MariaDB) -> set[str | None]:
        """The databases whose rows were written."""
        return {
            statement.database
            for statement in self.sent(server)
            if statement.sql.startswith("INSERT INTO `rows")
        }

    def created(self, server: MariaDB) -> list[str]:
        """The names after CREATE DATABASE, in order, without repetitions."""
        names = [
            sent.sql.split("`")[1] for sent in self.sent(server) if sent.sql.startswith("CREATE DATABASE")
        ]
        return list(dict.fromkeys(names))

    def check(self, *, kept: Sequence[str] = ()) -> None:
        """Their content, what was sent to them, and what is left behind."""
        assert [real.content() for real in self.reals] == self.before
        for real in self.reals:
            sent = self.sent(real.server)
            assert {statement.verb for statement in sent if statement.database == real.name} <= READING
            assert [statement for statement in sent if f"`{real.name}`" in statement.sql] == []
            names = [name for name in kept if real.name in name]
            assert databases_like(real.server, real.name) == sorted([real.name, *names])
        for server in self.servers:
            wait_until_empty(server)


@pytest.fixture(scope="module")
def server(mariadb: MariaDB) -> Iterator[MariaDB]:
    """The server of all tests, which now logs all that it is sent."""
    with ready_for_sites(mariadb):
        yield mariadb


@pytest.fixture(scope="module")
def other_server() -> Iterator[MariaDB]:
    """One more."""
    with MariaDB() as server, ready_for_sites(server):
        yield server


@contextmanager
def ready_for_sites(server: MariaDB) -> Iterator[None]:
    """Let it log, and let in a user that nobody else uses."""
    users = [f"'{USER}'@'%'", f"'{USER}'@'localhost'"]
    for user in users:
        server.execute(f"CREATE USER {user} IDENTIFIED BY '{server.password}'")
        server.execute(f"GRANT ALL PRIVILEGES ON *.* TO {user}")
    with logging_everything(server):
        yield
    for user in users:
        server.execute(f"DROP USER {user}")


@pytest.fixture(scope="module")
def template(server: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDatabase]:
    """A migrated database, made with the project's own migrations."""
    real = RealDatabase(server, "template_of_rows")
    server.create_database(real.name)
    site = Site({"default": real.entry()}, tmp_path_factory.mktemp("template"), look_early=False)
    outcome = site.end(site.command("migrate"))
    assert outcome.status == 0, outcome.output
    server.execute(f"INSERT INTO `{real.name}`.rows_row (name, note) VALUES ('one', ''), ('two', '')")
    yield real
    server.execute(f"DROP DATABASE `{real.name}`")


@pytest.fixture
def make_real(template: RealDatabase) -> Iterator[Callable[..., RealDatabase]]:
    """A function that makes a real database, with two rows; the test's end drops it and all made from it."""
    reals: list[RealDatabase] = []
    content = template.content()

    def make(server: MariaDB, name: str = "") -> RealDatabase:
        real = RealDatabase(server, name or f"rows_{len(reals)}")
        reals.append(real)
        server.create_database(real.name)
        for table, (rows, definition) in content.items():
            server.execute(definition.replace(f"TABLE `{table}`", f"TABLE `{real.name}`.`{table}`", 1))
            for row in rows:
                places = ", ".join(["%s"] * len(row))
                server.execute(f"INSERT INTO `{real.name}`.`{table}` VALUES ({places})", *row)
        return real

    yield make
    for real in reals:
        for name in databases_like(real.server, real.name):
            real.server.execute(f"DROP DATABASE `{name}`")


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A function that makes a project; the test's end ends its processes."""
    sites: list[Site] = []

    def make(databases: dict[str, dict[str, Any]], **more: Any) -> Site:
        sites.append(Site(databases, tmp_path, **more))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


MakeReal = Callable[..., RealDatabase]
MakeSite = Callable[..., Site]


# --- whole runs of a project's tests ----------------------------------------------------------------------


def workers(real: RealDatabase) -> set[str]:
    """The databases of the two workers of ``--parallel 2``."""
    return {f"{real.test_name}_1", f"{real.test_name}_2"}


def test_two_rows_before_two_rows_after(server: MariaDB, make_real: MakeReal, make_site: MakeSite) -> None:
    real = make_real(server)
    watch = Watch(real)
    make_site({"default": real.entry()}).test().check()
    assert real.rows() == ["one", "two"]
    assert watch.written(server) == {real.test_name}
    assert watch.created(server) == [real.test_name]
    watch.check()


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_parallel(server: MariaDB, make_real: MakeReal, make_site: MakeSite, start_method: str) -> None:
    """Each worker stays in its own clone. With "spawn" each looks at the real database again."""
    real = make_real(server)
    watch = Watch(real)
    make_site({"default": real.entry()}, start_method=start_method).test("--parallel", "2").check()
    assert watch.written(server) == workers(real)
    assert watch.created(server) == [real.test_name, *sorted(workers(real))]
    watch.check()


@pytest.mark.slow
def test_keepdb(server: MariaDB, make_real: MakeReal, make_site: MakeSite) -> None:
    real = make_real(server)
    watch = Watch(real)
    site = make_site({"default": real.entry()})
    for _ in range(2):
        site.test("--keepdb").check()
        assert watch.written(server) == {real.test_name}
        watch.check(kept=[real.test_name])
        clear_log(server)


@pytest.mark.slow
def test_parallel_keepdb(server: MariaDB, make_real: MakeReal, make_site: MakeSite) -> None:
    real = make_real(server)
    watch = Watch(real)
    site = make_site({"default": real.entry()})
    for _ in range(2):
        site.test("--parallel", "2", "--keepdb").check()
        assert watch.written(server) == workers(real)
        watch.check(kept=[real.test_name, *workers(real)])
        clear_log(server)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["serial", "parallel"])
def test_mirrors(server: MariaDB, make_real: MakeReal, make_site: MakeSite, options: tuple[str, ...]) -> None:
    """A replica with TEST MIRROR, and a second alias of the same database: both had seen real rows."""
    real, replica = make_real(server), make_real(server)
    watch = Watch(real, replica)
    site = make_site(
        {
            "default": real.entry(),
            "replica": replica.entry(TEST={"MIRROR": "default"}),
            "twin": real.entry(OPTIONS={"connect_timeout": 7}),
        },
        mirrors={"replica": "default", "twin": "default"},
    )
    site.test(*options).check()
    assert watch.written(server) == (workers(real) if options else {real.test_name})
    assert real.test_name in watch.created(server)
    assert not [name for name in watch.created(server) if replica.name in name]
    watch.check()


@pytest.mark.slow
def test_two_servers(
    server: MariaDB, other_server: MariaDB, make_real: MakeReal, make_site: MakeSite
) -> None:
    """One name on two servers, told apart by nothing but the port: each test database is made on its own."""
    here, there = make_real(server, "rows_here"), make_real(other_server, "rows_there")
    watch = Watch(here, there)
    make_site({"default": here.entry(), "there": there.entry()}).test("--parallel", "2").check()
    for real in here, there:
        assert watch.created(real.server) == [real.test_name, *sorted(workers(real))]
        assert watch.written(real.server) == workers(real)
    watch.check()


@pytest.mark.slow
def test_same_name_on_two_servers(
    server: MariaDB, other_server: MariaDB, make_real: MakeReal, make_site: MakeSite
) -> None:
    here, there = make_real(server, "rows_same"), make_real(other_server, "rows_same")
    watch = Watch(here, there)
    make_site({"default": here.entry(), "there": there.entry()}).test().check()
    for real in here, there:
        assert watch.created(real.server) == [real.test_name]
        assert watch.written(real.server) == {real.test_name}
    watch.check()


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["serial", "parallel"])
def test_two_databases_on_one_server(
    server: MariaDB, make_real: MakeReal, make_site: MakeSite, options: tuple[str, ...]
) -> None:
    one, two = make_real(server), make_real(server)
    watch = Watch(one, two)
    make_site({"default": one.entry(), "two": two.entry()}).test(*options).check()
    if options:
        assert watch.written(server) == workers(one) | workers(two)
    else:
        assert watch.written(server) == {one.test_name, two.test_name}
    watch.check()


@pytest.mark.slow
def test_after_an_interrupted_run(server: MariaDB, make_real: MakeReal, make_site: MakeSite) -> None:
    """Killed in the middle of a test, so that a test database with rows in it is left behind."""
    real = make_real(server)
    watch = Watch(real)
    stopping = "tests.support.rows_site.rows.tests.Stopping"
    site = make_site({"default": real.entry()}, stop=True, label=stopping)
    process = site.start()
    wait_for_news(site.folder / "stopping", process)
    os.killpg(process.pid, signal.SIGKILL)
    site.end(process)
    wait_until_empty(server)
    assert server.execute(f"SELECT name FROM `{real.test_name}`.rows_row") == [("committed",)]
    watch.check(kept=[real.test_name])

    make_site({"default": real.entry()}).test().check()
    assert watch.written(server) == {real.test_name}
    watch.check()


def wait_for_news(fifo: Path, process: subprocess.Popen[str]) -> None:
    """Until somebody writes into it."""
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([reader], [], [], 60)[0], process.poll()
        assert os.read(reader, 3) == b"now"
    finally:
        os.close(reader)


def test_without_invariant_8_the_rows_are_lost(
    server: MariaDB, make_real: MakeReal, make_site: MakeSite
) -> None:
    """The same project on an engine that pools by alias: the tests above can fail."""
    real = make_real(server)
    watch = Watch(real)
    make_site({"default": real.entry(ENGINE="tests.support.rows_site.careless.mysql")}).test().check_failure()
    assert real.rows() == []
    assert {sent.verb for sent in watch.sent(server) if sent.database == real.name} & WRITING
    with pytest.raises(AssertionError):
        watch.check()


# --- the same on SQLite, where the test database is usually one in memory -----------------------------------


@pytest.fixture(scope="module")
def template_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with two rows."""
    folder = tmp_path_factory.mktemp("template_file")
    real = folder / "real.sqlite3"
    site = Site({"default": sqlite_entry(real)}, folder, look_early=False)
    outcome = site.end(site.command("migrate"))
    assert outcome.status == 0, outcome.output
    with closing(sqlite3.connect(real)) as connection, connection:
        connection.execute("INSERT INTO rows_row (name, note) VALUES ('one', ''), ('two', '')")
    return real


@pytest.fixture
def real_file(template_file: Path, tmp_path: Path) -> Path:
    """A real database, alone in a folder."""
    folder = tmp_path / "real"
    folder.mkdir()
    real = folder / "real.sqlite3"
    real.write_bytes(template_file.read_bytes())
    return real


def sqlite_entry(path: Path, **more: Any) -> dict[str, Any]:
    """For ``DATABASES``."""
    return {"ENGINE": "poollife.backends.sqlite3", "NAME": str(path), **more}


def rows_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM rows_row ORDER BY id")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "start_method"),
    [((), "fork"), (("--parallel", "2"), "fork"), (("--parallel", "2"), "spawn")],
    ids=["serial", "fork", "spawn"],
)
def test_in_memory(real_file: Path, make_site: MakeSite, options: tuple[str, ...], start_method: str) -> None:
    """Not a byte of the real file changes; SQLite counts transactions in there."""
    before = real_file.read_bytes()
    make_site({"default": sqlite_entry(real_file)}, start_method=start_method).test(*options).check()
    assert real_file.read_bytes() == before
    assert list(real_file.parent.iterdir()) == [real_file]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["serial", "parallel"])
def test_in_a_file(real_file: Path, make_site: MakeSite, options: tuple[str, ...]) -> None:
    """Kept by the first two runs, so that the second finds it, and the third makes it anew."""
    before = real_file.read_bytes()
    tests = real_file.with_name("tests.sqlite3")
    kept = [tests, real_file.with_name("tests_1.sqlite3"), real_file.with_name("tests_2.sqlite3")]
    site = make_site({"default": sqlite_entry(real_file, TEST={"NAME": str(tests)})})
    for _ in range(2):
        site.test("--keepdb", *options).check()
        assert real_file.read_bytes() == before
        assert sorted(real_file.parent.iterdir()) == sorted([real_file, *(kept if options else [tests])])
    site.test(*options).check()
    assert real_file.read_bytes() == before
    assert list(real_file.parent.iterdir()) == [real_file]


def test_without_invariant_8_the_rows_in_a_file_are_lost(real_file: Path, make_site: MakeSite) -> None:
    assert rows_in(real_file) == ["one", "two"]
    engine = "tests.support.rows_site.careless.sqlite3"
    make_site({"default": sqlite_entry(real_file, ENGINE=engine)}).test().check_failure()
    assert rows_in(real_file) == []


# --- what the test runner does, step by step --------------------------------------------------------------


@pytest.fixture
def alias(make_alias: MakeAlias, monkeypatch: pytest.MonkeyPatch, mariadb: MariaDB) -> Iterator[str]:
    """An alias that the test runner's functions accept; what failing tests leave behind is dropped."""
    name = make_alias()
    monkeypatch.setitem(settings.DATABASES, name, connections.settings[name])
    real = connections[name].settings_dict["NAME"]
    yield name
    connections[name].settings_dict["NAME"] = real
    for left in databases_like(mariadb, f"test_{real}"):
        mariadb.execute(f"DROP DATABASE `{left}`")


def wrapper(alias: str) -> Any:
    """This thread's connection to that alias, with what poollife adds to it."""
    return connections[alias]


def where(alias: str) -> str:
    """The database that this thread's connection has really got."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT DATABASE()")
        name: str = cursor.fetchone()[0]
    return name


def session_id(alias: str) -> int:
    """The server's number for this thread's connection."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number: int = cursor.fetchone()[0]
    return number


def sessions_in(server: MariaDB, database: str) -> list[int]:
    return [session.id for session in server.sessions() if session.db == database]


def wait_until_left(server: MariaDB, database: str) -> None:
    """Until no session is in that database any more."""
    eventually(f"no session is in {database}", lambda: sessions_in(server, database) == [])


def wait_until_gone(server: MariaDB, number: int) -> None:
    """Until the server has no session of that number."""
    eventually(f"session {number} ends", lambda: number not in [session.id for session in server.sessions()])


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    """One thread that keeps what it opens until it is told to close it."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def test_idle_sessions_end_when_a_test_database_is_made(
    alias: str, mariadb: MariaDB, other_thread: ThreadPoolExecutor
) -> None:
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    mine, theirs = session_id(alias), other_thread.submit(session_id, alias).result()
    other_thread.submit(lambda: connections[alias].close()).result()
    assert sorted(sessions_in(mariadb, real)) == sorted([mine, theirs])

    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    assert name == f"test_{real}"
    wait_until_left(mariadb, real)
    assert where(alias) == name
    assert other_thread.submit(where, alias).result() == name
    other_thread.submit(lambda: connections[alias].close()).result()
    assert len(sessions_in(mariadb, name)) == 2

    connection.creation.destroy_test_db(real, verbosity=0)
    wait_until_left(mariadb, name)
    assert databases_like(mariadb, name) == []
    assert where(alias) == real


def test_a_session_that_is_out_ends_when_it_comes_back(
    alias: str, mariadb: MariaDB, other_thread: ThreadPoolExecutor
) -> None:
    """Its transaction is its own affair; the next one is in the test database."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]

    def begin() -> int:
        connections[alias].set_autocommit(False)
        return session_id(alias)

    number = other_thread.submit(begin).result()
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    assert sessions_in(mariadb, real) == [number]
    assert other_thread.submit(session_id, alias).result() == number

    other_thread.submit(lambda: connections[alias].close()).result()
    wait_until_left(mariadb, real)
    assert other_thread.submit(where, alias).result() == name

    connection.creation.destroy_test_db(real, verbosity=0)
    other_thread.submit(lambda: connections[alias].close()).result()


def test_a_thread_that_never_gives_back_moves_on(
    alias: str, mariadb: MariaDB, other_thread: ThreadPoolExecutor
) -> None:
    """Outside of a transaction nothing ties it to the real database."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    assert other_thread.submit(where, alias).result() == real
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    assert other_thread.submit(where, alias).result() == name
    wait_until_left(mariadb, real)
    connection.creation.destroy_test_db(real, verbosity=0)
    assert other_thread.submit(where, alias).result() == real
    other_thread.submit(lambda: connections[alias].close()).result()


def test_a_checkout_while_the_test_database_is_made(
    alias: str, mariadb: MariaDB, other_thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread comes after the pools were closed, and before Django has changed the name."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    create = connection.creation._create_test_db

    def create_late(*args: Any, **kwargs: Any) -> Any:
        assert other_thread.submit(where, alias).result() == real
        return create(*args, **kwargs)

    monkeypatch.setattr(connection.creation, "_create_test_db", create_late)
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    assert other_thread.submit(where, alias).result() == name
    other_thread.submit(lambda: connections[alias].close()).result()
    wait_until_left(mariadb, real)
    connection.creation.destroy_test_db(real, verbosity=0)


def test_a_session_that_comes_back_while_its_pool_is_closed(
    alias: str, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found to be welcome, and put back after the pool has closed what it had."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    session_id(alias)
    pool = connection.lease_pool
    driver = pool.driver.unwrap(connection.connection)
    clean = type(driver).clean

    def clean_late(connection: Any) -> None:
        clean(connection)
        registry.dispose(alias, "at the worst moment")

    monkeypatch.setattr(type(driver), "clean", clean_late)
    connection.close()
    wait_until_left(mariadb, real)
    assert (pool.out, pool.idle) == (0, 0)


def test_clones_mirrors_and_workers(make_alias: MakeAlias, alias: str, mariadb: MariaDB) -> None:
    """Each step leaves no idle session behind on the database that was there before."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    connection.creation.clone_test_db("1", verbosity=0)

    mirror = wrapper(make_alias())
    unmirrored = where(mirror.alias)
    mirror.creation.set_as_test_mirror(connection.settings_dict)
    wait_until_left(mariadb, unmirrored)
    assert where(mirror.alias) == name
    mirror.close()
    mirror.settings_dict["NAME"] = unmirrored
    registry.dispose(mirror.alias, "the test is done with it")

    assert where(alias) == name
    connection.creation.setup_worker_connection(1)
    wait_until_left(mariadb, name)
    assert where(alias) == f"{name}_1"

    connection.settings_dict["NAME"] = name
    connection.creation.destroy_test_db(suffix="1", verbosity=0)
    connection.creation.destroy_test_db(real, verbosity=0)
    wait_until_left(mariadb, f"{name}_1")
    assert databases_like(mariadb, name) == []


def test_connections_to_no_database_are_never_kept(
    make_alias: MakeAlias, mariadb: MariaDB, other_server: MariaDB
) -> None:
    """Django makes and drops databases with them, and all aliases use the same one for it."""
    other_server.create_database("elsewhere")
    aliases = {make_alias(): mariadb, make_alias(server=other_server, NAME="elsewhere"): other_server}
    for alias, server in [*aliases.items(), *aliases.items()]:
        connection = wrapper(alias)
        with connection._nodb_cursor() as cursor:
            cursor.execute("SELECT @@port, DATABASE(), CONNECTION_ID()")
            port, database, number = cursor.fetchone()
        assert (port, database) == (server.port, None)
        wait_until_gone(server, number)
    assert not [pool for pool in registry.pools() if pool.key.alias == NO_DB_ALIAS and pool.options.pooled]


# --- which connections are interchangeable ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HOST", "localhost"),
        ("PORT", "3307"),
        ("NAME", "another"),
        ("USER", "another"),
        ("OPTIONS", {"connect_timeout": 7}),
        ("OPTIONS", {"init_command": "SET @one = 1", "ssl": {"ca": "one.pem"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_pools_are_told_apart(make_alias: MakeAlias, key: str, value: object) -> None:
    """Changed in place, as Django's test runner does it."""
    connection = wrapper(make_alias())
    before = connection.pool_key()
    assert connection.pool_key() == before
    was = connection.settings_dict[key]
    connection.settings_dict[key] = value
    changed = connection.pool_key()
    assert changed != before
    connection.settings_dict[key] = was
    assert connection.pool_key() == before


def test_options_changed_in_place(make_alias: MakeAlias) -> None:
    """The dictionary inside of the dictionary is not the same key for ever."""
    connection = wrapper(make_alias(OPTIONS={"ssl": {"ca": "one.pem"}}))
    before = connection.pool_key()
    connection.settings_dict["OPTIONS"]["ssl"]["ca"] = "two.pem"
    assert connection.pool_key() != before


def test_aliases_do_not_share(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    """Django's TestCase opens one transaction for each alias."""
    one = wrapper(make_alias())
    two = wrapper(make_alias(NAME=one.settings_dict["NAME"]))
    assert one.pool_key()[1:] == two.pool_key()[1:]
    assert one.pool_key() != two.pool_key()


def test_what_is_held_ready_leads_where_its_pool_does(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB
) -> None:
    """Another thread opens it, in which the settings may be other ones by then."""
    begun, go_on = threading.Event(), threading.Event()

    def password() -> str:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(10)
        return mariadb.password

    alias = make_alias(PASSWORD=password, POOL={"min_idle": 1})
    one = wrapper(alias)
    here, pool = one.settings_dict["NAME"], one.lease_pool
    assert where(alias) == here
    assert begun.wait(10)
    one.settings_dict["NAME"] = new_database()
    go_on.set()
    eventually("one is ready", lambda: pool.opened == 2)
    one.settings_dict["NAME"] = here
    other = one.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT DATABASE()")
        assert cursor.fetchone() == (here,)
        assert (one.lease_pool, pool.out) == (pool, 2)
    other.close()


def test_the_next_checkout_follows_the_settings(
    make_alias: MakeAlias, new_database: Callable[[], str], mariadb: MariaDB
) -> None:
    """Even where nobody has disposed of anything."""
    connection = wrapper(make_alias())
    one, two = connection.settings_dict["NAME"], new_database()
    for name in one, two, one:
        connection.settings_dict["NAME"] = name
        assert where(connection.alias) == name
        connection.close()
    assert [len(sessions_in(mariadb, name)) for name in (one, two)] == [1, 1]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": {"b": {"c"}}}, {"a": {"b": {"c"}}}),
        ({"a": {"one", "two", "three"}}, {"a": {"three", "two", "one"}}),
        ({}, {}),
        (None, None),
    ],
)
def test_frozen_alike(one: object, two: object) -> None:
    assert freeze(one) == freeze(two)
    assert hash(freeze(one)) == hash(freeze(two))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {}),
    ],
)
def test_frozen_apart(one: object, two: object) -> None:
    assert freeze(one) != freeze(two)


def test_what_cannot_be_hashed_is_equal_to_itself_only() -> None:
    """An object among the OPTIONS, such as an SSL context of somebody's."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    thing, other = Unhashable(), Unhashable()
    assert freeze({"a": thing}) == freeze({"a": thing})
    assert freeze({"a": thing}) != freeze({"a": other})
    assert hash(freeze({"a": thing})) == hash(freeze({"a": thing}))


def test_a_checkout_just_before_the_name_changes(
    alias: str, mariadb: MariaDB, other_thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pools were closed, the database is there, and Django is about to change the name."""
    connection = wrapper(alias)
    real = connection.settings_dict["NAME"]
    create = connection.creation._create_test_db

    def create_early(*args: Any, **kwargs: Any) -> Any:
        made = create(*args, **kwargs)
        assert other_thread.submit(where, alias).result() == real
        return made

    monkeypatch.setattr(connection.creation, "_create_test_db", create_early)
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    assert other_thread.submit(where, alias).result() == name
    other_thread.submit(lambda: connections[alias].close()).result()
    connection.creation.destroy_test_db(real, verbosity=0)
