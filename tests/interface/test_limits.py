"""Limits of driver and server beside POOL's ``timeout``: the table in ``docs/settings.md`` is true."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import pytest
from django.db import OperationalError, connections, transaction

from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.pages import code, page
from tests.support.programs.databases import ask, change, session
from tests.support.web_server import eventually


class Outcome(NamedTuple):
    """What a limit does: the numbers of its errors, and what becomes of the session."""

    errors: set[int]
    session: str


def told() -> dict[str, Outcome]:
    """What the table says, by limit."""
    table = page("docs/settings.md").table("limit | where")
    return {
        code(row["limit"]): Outcome(set(map(int, re.findall(r"\d+", row["error"]))), row["its session"])
        for row in table
    }


class Site:
    """An alias with that limit, and another one to be in its way."""

    def __init__(self, server: MariaDB, make_alias: MakeAlias, new_database: Callable[[], str]) -> None:
        self.server = server
        self._make_alias = make_alias
        self.name = new_database()
        self.other = make_alias(NAME=self.name)
        change("CREATE TABLE things (id INT PRIMARY KEY, number INT) ENGINE=InnoDB", using=self.other)
        change("INSERT INTO things VALUES (1, 1)", using=self.other)
        connections[self.other].close()

    def alias(self, *, options: dict[str, Any] | None = None, setting: str = "", **entry: Any) -> str:
        """An alias with these OPTIONS, or this setting of the server."""
        command = {"init_command": f"SET SESSION {setting}"} if setting else {}
        return self._make_alias(NAME=self.name, OPTIONS={**(options or {}), **command}, **entry)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another thread has the only row of the table, and so its definition."""
        has, done = threading.Event(), threading.Event()

        def hold() -> None:
            with transaction.atomic(using=self.other):
                ask("SELECT id FROM things WHERE id = 1 FOR UPDATE", using=self.other)
                has.set()
                done.wait()
            connections[self.other].close()

        thread = threading.Thread(target=hold)
        thread.start()
        has.wait()
        try:
            yield
        finally:
            done.set()
            thread.join()


def strike(alias: str, work: Callable[[], object]) -> Outcome:
    """Do what the limit ends, and look whether the pool still has the session."""
    before = session(alias)
    number = error_of(work)
    connections[alias].close()
    return Outcome({number}, "stays" if session(alias) == before else "is replaced")


def error_of(work: Callable[[], object]) -> int:
    with pytest.raises(OperationalError) as caught:
        work()
    number: int = caught.value.args[0]
    return number


# --- the limits ------------------------------------------------------------------------------------------


def connect_timeout(site: Site) -> Outcome:
    """A host that takes no more connections, and a server that does not say hello."""
    errors = set()
    # Each attempt takes a place of the second's.
    for backlog in (0, 50):
        with ExitStack() as stack:
            listener = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=backlog)))
            port = listener.getsockname()[1]
            if backlog == 0:
                stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            alias = site.alias(options={"connect_timeout": 1}, PORT=str(port), POOL={"outage_wait": 0})
            errors.add(error_of(lambda alias=alias: session(alias)))  # type: ignore[misc]  # bound in time
            pool = pool_of(alias)
            assert (pool.out, pool.idle, pool.opened) == (0, 0, 0)
    return Outcome(errors, "was never there")


def read_timeout(site: Site) -> Outcome:
    alias = site.alias(options={"read_timeout": 2})
    outcome = strike(alias, lambda: ask("SELECT SLEEP(60)", using=alias))
    # The server goes on with it.
    sleeping = [each.id for each in site.server.sessions() if each.info == "SELECT SLEEP(60)"]
    assert len(sleeping) == 1
    site.server.execute(f"KILL {sleeping[0]}")
    return outcome


def write_timeout(site: Site) -> Outcome:
    with Deaf(site.server) as deaf:
        alias = site.alias(options={"write_timeout": 2}, PORT=str(deaf.port))
        before = session(alias)
        deaf.listens = False
        number = error_of(lambda: ask("SELECT LENGTH(%s)", "x" * 10_000_000, using=alias))
        deaf.listens = True
        connections[alias].close()
        return Outcome({number}, "stays" if session(alias) == before else "is replaced")


def network_timeout(site: Site) -> Outcome:
    """A server that reads nothing of what is sent to it, and one that stops in the middle, for a lock.

    tests/invariants/inv6_waiting/test_network.py has networks that are silent altogether.
    """
    pool = {"network_timeout": 1}
    with Deaf(site.server) as deaf:
        alias = site.alias(POOL=pool, PORT=str(deaf.port))
        before = session(alias)
        deaf.listens = False
        errors = {error_of(lambda: ask("SELECT LENGTH(%s)", "x" * 10_000_000, using=alias))}
        deaf.listens = True
        connections[alias].close()
        assert session(alias) != before
    alias = site.alias(options={"local_infile": 1}, POOL=pool)
    with NamedTemporaryFile("w") as file, site.locked():
        # The first row has to wait, and no socket's buffer holds the second.
        file.write("1\t1\n2\t" + "2" * 50_000_000)
        file.flush()
        load = f"LOAD DATA LOCAL INFILE '{file.name}' REPLACE INTO TABLE things"
        outcome = strike(alias, lambda: change(load, using=alias))
    return Outcome(errors | outcome.errors, outcome.session)


def max_statement_time(site: Site) -> Outcome:
    alias = site.alias(setting="max_statement_time = 1")
    return strike(alias, lambda: ask("SELECT SLEEP(60)", using=alias))


def innodb_lock_wait_timeout(site: Site) -> Outcome:
    alias = site.alias(setting="innodb_lock_wait_timeout = 1")
    with site.locked():
        return strike(alias, lambda: change("UPDATE things SET number = 2", using=alias))


def lock_wait_timeout(site: Site) -> Outcome:
    alias = site.alias(setting="lock_wait_timeout = 1")
    with site.locked():
        return strike(alias, lambda: change("ALTER TABLE things ADD another INT", using=alias))


def wait_timeout(site: Site) -> Outcome:
    alias = site.alias(setting="wait_timeout = 1")

    def idle() -> None:
        number = session(alias)
        # With something left in it: otherwise the command would go on with another one.
        ask("SELECT @left := 1", using=alias)
        eventually("the server ends it", lambda: number not in [each.id for each in site.server.sessions()])
        session(alias)

    outcome = strike(alias, idle)
    # In the pool that does no harm. (The default is 90 % of it.)
    assert pool_of(alias).liveness.recycle == 0.9
    number = session(alias)
    connections[alias].close()
    eventually("the server ends it", lambda: number not in [each.id for each in site.server.sessions()])
    assert session(alias) != number
    return outcome


class Deaf:
    """A way to the server on which nothing is read for a time."""

    def __init__(self, server: MariaDB) -> None:
        self.listens = True
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._copying: list[threading.Thread] = []

    def __enter__(self) -> Deaf:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listens = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        for each in self._sockets:
            with suppress(OSError):  # its other end may have gone first
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._copying:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection((self._server.host, self._server.port))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._copy, args=(source, target))
                    thread.start()
                    self._copying.append(thread)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two has gone
            while True:
                while not self.listens:
                    time.sleep(0.01)
                if not (data := source.recv(65536)):
                    break
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


LIMITS = {
    limit.__name__: limit
    for limit in (
        *(connect_timeout, read_timeout, write_timeout, network_timeout),
        *(max_statement_time, innodb_lock_wait_timeout, lock_wait_timeout, wait_timeout),
    )
}


@pytest.fixture
def site(mariadb: MariaDB, make_alias: MakeAlias, new_database: Callable[[], str]) -> Site:
    return Site(mariadb, make_alias, new_database)


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
def test_limit(site: Site, limit: str) -> None:
    assert LIMITS[limit](site) == told()[limit]


def test_all_limits_are_tried() -> None:
    assert told().keys() == LIMITS.keys()
