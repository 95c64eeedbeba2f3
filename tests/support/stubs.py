"""A stub for a database server, and what a pool needs to talk to it.

For what no real server can be made to do: it connects slowly or refuses, as it is told, and counts.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from django import db
from django.db import InterfaceError, NotSupportedError, OperationalError

from poollife import clock
from poollife.backends.opening import the_registry
from poollife.conf import PoolOptions
from poollife.drivers.contract import HELD, Driver, Guarded
from poollife.pools.base import BorrowerReference, PoolKey
from poollife.pools.lease import Lease
from poollife.pools.pool import LeasePool
from poollife.process.guard import Guard


class StubServer:
    """What it counts is guarded by its lock."""

    def __init__(self, connect_time: float = 0.0) -> None:
        self.connect_time = connect_time
        #: What connecting raises, if so.
        self.down: Exception | None = None
        self.alive: set[StubConnection] = set()
        self.opened = self.closed = self.attempts = self.connecting = 0
        #: The most that there were at once: open, or being opened.
        self.most = self.most_connecting = 0
        self._lock = threading.Lock()

    def connect(self) -> StubConnection:
        with self._lock:
            self.attempts += 1
            self.connecting += 1
            self.most_connecting = max(self.most_connecting, self.connecting)
            self.most = max(self.most, len(self.alive) + self.connecting)
        try:
            time.sleep(self.connect_time)
            if self.down:
                raise self.down
            connection = StubConnection(self)
            with self._lock:
                if error := self.refusal():
                    raise error
                self.opened += 1
                self.alive.add(connection)
            return connection
        finally:
            with self._lock:
                self.connecting -= 1

    def refusal(self) -> Exception | None:
        """Return why there is no room for another session, if so."""
        return None

    def forget(self, connection: StubConnection) -> None:
        with self._lock:
            if connection in self.alive:
                self.alive.remove(connection)
                self.closed += 1


class StubConnection(Guarded):
    """A session of a stub server."""

    InterfaceError, NotSupportedError = InterfaceError, NotSupportedError

    def __init__(self, server: StubServer) -> None:
        self.server = server
        self.number = server.opened
        #: Whose it is.
        self.pool: LeasePool | None = None
        self.guard = Guard(os.getpid())
        self.note_opening()
        self.killed = False

    @property
    def age(self) -> float:
        return clock.monotonic() - self.born

    def close(self) -> None:
        if self.guard.pid == os.getpid():
            self.server.forget(self)

    def mark_clean(self) -> None:
        pass

    def reason_to_close(self) -> str | None:
        return "killed" if self.killed else None

    def clean(self) -> None:
        self.dirty = False

    def reset_session(self, ask: object) -> None:
        self.clean()

    def closed_by_server(self) -> bool:
        return self.killed

    def answers(self, seconds: float) -> bool:
        return not self.killed


class StubDriver(Driver):
    """The driver of a stub's sessions."""

    def adopt(self, connection: Any, pid: int, params: dict[str, Any]) -> Any:
        return connection

    def unwrap(self, connection: Any) -> Any:
        return connection

    def is_full(self, error: Exception) -> bool:
        return error.args[:1] == (1226,)

    def unreachable(self, error: Exception) -> bool | None:
        return None if error.args[:1] == (2013,) else error.args[:1] == (2002,)


STUB_DRIVER = StubDriver()


class StubBorrower:
    """Django's side of a lease."""

    allow_thread_sharing = is_shared = False
    #: Its errors are Django's own.
    Database: Any = db

    def __init__(self, server: StubServer) -> None:
        self.server = server
        self.lease: Lease | None = None
        self.reference = BorrowerReference(self)
        self.owner = threading.current_thread()
        self.connection: Any = None
        self.atomic_blocks: list[Any] = []
        self.in_atomic_block = self.closed_in_transaction = self.needs_rollback = False

    def get_connection_params(self) -> None:
        """It needs none."""

    def open_connection(self, params: None) -> Any:
        return self.server.connect()

    def opener(self) -> StubBorrower:
        return StubBorrower(self.server)

    def matches_key(self, key: PoolKey) -> bool:
        return True

    def borrow(self, pool: LeasePool) -> Any:
        lease = pool.checkout(self)
        self.connection = lease.connection
        self.connection.pool = pool
        lease.state = HELD
        return self.connection

    def give_back(self) -> None:
        # In the wrapper's order: without a connection, or a lease, it would have lost what it has.
        if lease := self.lease:
            lease.pool.checkin(lease)
            self.lease = None
        self.connection = None

    def release(self, *, if_idle: bool = False) -> None:
        self.give_back()

    def reset_atomic_state(self) -> None:
        pass

    def detach_lease(self) -> None:
        self.lease = self.connection = None


def pool_options(name: str, **options: Any) -> PoolOptions:
    """As from the settings of an alias."""
    return PoolOptions.from_settings(name, {"POOL": options})


def stub_pool(name: str, server: object = None, **options: Any) -> LeasePool:
    """A pool of a stub's sessions, which no other has a part in.

    :param server: what other pools lead to as well, if any.
    """
    the_registry()  # each process with a pool has it: its hooks act on the stub's pools, too
    key = PoolKey(name, (server or object(),), None, None, None)
    return LeasePool(key, pool_options(name, **options), STUB_DRIVER)


def refused() -> OperationalError:
    """As a client library has it where nobody listens."""
    return OperationalError(2002, "Can't connect to server (111)")
