"""The ways to borrow a session that the benchmarks of waiting compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from django.db import connection, connections
from sqlalchemy.pool import QueuePool

from benchmarks.dialects import Dialect
from benchmarks.peers import TIMEOUT
from poollife import clock, close_pool
from poollife.pools.fair_queue import FairQueuePool
from poollife.pools.tickets import Ticket, current


class Way(ABC):
    """A way to borrow a session, with a method for each step."""

    @abstractmethod
    def take(self) -> Any: ...

    @abstractmethod
    def query(self, handle: Any, sql: str) -> None: ...

    @abstractmethod
    def put(self, handle: Any) -> None: ...

    def discard(self, handle: Any) -> None:
        """Return a session after an error."""
        self.put(handle)

    @abstractmethod
    def end(self) -> None: ...


class Bare(Way):
    """A pool of SQLAlchemy without Django."""

    poolclass: type[QueuePool] = QueuePool

    def __init__(self, dialect: Dialect, entry: dict[str, Any], size: int, overflow: int) -> None:
        self._query = dialect.query
        self._pool: Any = self.poolclass(
            lambda: dialect.connect(entry),
            pool_size=size,
            max_overflow=overflow,
            timeout=TIMEOUT,
            reset_on_return=None,
        )

    def take(self) -> Any:
        return self._pool.connect()

    def query(self, handle: Any, sql: str) -> None:
        self._query(handle.dbapi_connection, sql)

    def put(self, handle: Any) -> None:
        handle.close()

    def discard(self, handle: Any) -> None:
        handle.invalidate()

    def end(self) -> None:
        self._pool.dispose()


class Lent(Bare):
    """poollife's queue without Django, by the calls that a lease makes, so without SQLAlchemy's handle."""

    poolclass = FairQueuePool
    #: The mark of a holder of a slot that has not returned it.
    active = True

    def take(self) -> Any:
        ticket = current.ticket = Ticket(deadline=clock.monotonic() + TIMEOUT)
        try:
            handle = self._pool.take(ticket)
            self._pool.hold(ticket, self)
            return handle
        except BaseException:
            ticket.active = False
            self._pool.free()
            raise
        finally:
            ticket.active = False
            current.ticket = None

    def put(self, handle: Any) -> None:
        self._pool.put(handle)

    def discard(self, handle: Any) -> None:
        handle.invalidate()
        self.put(handle)


class Django(Way):
    """Django's connection, with whatever backend it has."""

    def take(self) -> Any:
        connection.ensure_connection()
        return connection

    def query(self, handle: Any, sql: str) -> None:
        with handle.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()

    def put(self, handle: Any) -> None:
        # A site has close() called at the end of a request; here a connection that Django keeps stays open.
        handle.close_if_unusable_or_obsolete()

    def discard(self, handle: Any) -> None:
        handle.close()

    def end(self) -> None: ...


class Full(Django):
    """poollife with Django, as in a site."""

    def __init__(self, entry: dict[str, Any], size: int, overflow: int) -> None:
        close_pool()
        # Each thread makes its own wrapper from these settings.
        connections.settings["default"].update(
            PORT=entry["PORT"],
            POOL={"pool_size": size, "max_overflow": overflow, "timeout": TIMEOUT, "outage_wait": 0},
        )

    def put(self, handle: Any) -> None:
        handle.close()

    def end(self) -> None:
        close_pool()


def ways(dialect: Dialect, entry: dict[str, Any], size: int, overflow: int) -> dict[str, Callable[[], Way]]:
    return {
        "SQLAlchemy's QueuePool, bare": lambda: Bare(dialect, entry, size, overflow),
        "poollife's FairQueuePool, bare": lambda: Lent(dialect, entry, size, overflow),
        "poollife, with Django": lambda: Full(entry, size, overflow),
    }
