"""mysqlclient in a process that gevent has patched: other greenlets run while one waits for an answer.

Only such a process imports this module.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gevent import get_hub, getcurrent
from gevent.socket import wait_read

from poollife.drivers.connection import guarded
from poollife.drivers.mysql.connection import LOST, QUESTION, MySQLConnection, sending
from poollife.process.greenlets import are_copies

#: Django refuses to share its wrapper with another greenlet, but not a cursor.
IN_USE = "The answer to another statement is on its way on this connection: greenlets can't share a cursor."
#: The error after gevent's ``Timeout``, for example, which a greenlet survives.
INTERRUPTED = (
    "A statement on this connection was interrupted ({why}), and its answer may still come: leave the atomic "
    "block, or call close()."
)


class Cooperative(MySQLConnection):
    """A connection that waits for an answer in gevent's hub, and only then has the C client read it.

    The C client waits by itself in other round trips (``select_db()``, a reset), and for all that follows the
    head of an answer: rows, and further results.
    """

    in_flight: bool
    params: dict[str, Any]
    #: Attributes of mysqlclient, without the guard.
    OperationalError: Any
    _send_query: Any
    _read_query_result: Any
    _at_most: Any

    def _run(self, query: Any, seconds: float | None = None) -> None:
        if self.in_flight:
            raise self.InterfaceError(INTERRUPTED.format(why=self.failure) if self.failure else IN_USE)
        # From before the send until the answer is here: a greenlet that is killed in between leaves the
        # answer in the socket.
        self.in_flight = True
        self._send_query(bytes(query) if isinstance(query, bytearray) else query)
        self._wait(seconds or self.params.get("read_timeout") or None)
        self.in_flight = False
        self._read_query_result()

    @property
    def _cooperates(self) -> bool:
        # The hub can't wait for itself: for code that it runs, the C client waits. The C client also waits
        # where other greenlets must not run.
        return not are_copies() and getcurrent() is not get_hub()

    def _wait(self, seconds: float | None) -> None:
        if self._cooperates:
            wait_read(self.guard.fd, seconds, self.OperationalError(*LOST))

    def _ask(self, seconds: float, question: bytes = QUESTION) -> None:
        if self._cooperates:
            self._run(question, self._at_most(seconds))
        else:
            super()._ask(seconds, question)

    def _commit(self) -> None:
        self._run(b"COMMIT")

    def _rollback(self) -> None:
        self._run(b"ROLLBACK")

    def _autocommit(self, on: Any) -> None:
        if self._get_autocommit() != bool(on):
            self._run(b"SET autocommit=%d" % bool(on))

    def _ping(self, *args: Any) -> None:
        self._run(QUESTION)

    query = sending(_run)
    _query = _run
    #: The first answer may have come with the second, which then is no longer in the socket: the hub would
    #: wait for ever.
    shares_packets = False
    commit = guarded(_commit)
    rollback = guarded(_rollback)
    autocommit = guarded(_autocommit)


@cache
def cooperative(connection_class: type) -> type:
    """Return the subclass of mysqlclient's guarded connections that waits in gevent's hub."""
    return type("CooperativeConnection", (Cooperative, connection_class), {})
