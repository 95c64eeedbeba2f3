"""Transactions that begin with their first statement, in one packet: ``POOL["lazy_begin"]``.

Django switches autocommit off at the start of a transaction and on again at its end: with the COMMIT, that is
three round trips. Here "SET autocommit=0" goes in front of the first statement, and "SET autocommit=1" behind
the COMMIT or ROLLBACK. The server gets the same statements in the same order as from Django. So all that ends
a transaction there (a deadlock, a statement with an implicit commit) has the same effect. A BEGIN in place of
them would take one statement less, but after such an end each further statement would commit by itself.

A SAVEPOINT before the first statement goes with it, too: that of a nested block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from poollife.drivers.connection import guarded
from poollife.drivers.effects import LEAVES
from poollife.drivers.mysql.connection import MySQLConnection, sending

OFF, ON = "SET autocommit=0", "SET autocommit=1"
#: The most characters or bytes of a statement that shares a packet: two together may be longer than the
#: server's ``max_allowed_packet``.
LONGEST = 1 << 16


class LazyConnection(MySQLConnection):
    """The part of a guarded connection that begins and ends transactions, to be put before its class."""

    #: The statements that are due in front of the next one: OFF, and the SAVEPOINTs behind it. There are some
    #: while autocommit is off for the borrower and still on at the server.
    due: tuple[str, ...]

    @property
    def keeps_savepoints(self) -> bool:
        """True if the transaction is due, and the next statement may share its packet."""
        return bool(self.due) and self.shares_packets and self.failure is None

    def keep_savepoint(self, statement: str) -> None:
        self.due += (statement,)

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on for the borrower. Sends nothing."""
        return not self.due and bool(self._get_autocommit())

    @guarded
    def autocommit(self, on: Any) -> None:
        """Switch autocommit on or off for the borrower.

        :param on: the driver's argument.
        """
        on_at_server = bool(self._get_autocommit())
        self.due = (OFF,) if on_at_server and not on else ()
        if on and not on_at_server:
            self._autocommit(True)

    @guarded
    def commit(self) -> None:
        """Commit the transaction. Sends nothing if none has begun."""
        self._end("COMMIT", self._commit)

    @guarded
    def rollback(self) -> None:
        """Roll the transaction back. Sends nothing if none has begun."""
        self._end("ROLLBACK", self._rollback)

    def _end(self, word: str, method: Callable[[], None]) -> None:
        self.due = self.due[:1]  # without SAVEPOINTs
        if not self._get_autocommit():
            # First, because the server may have switched autocommit on when an asynchronous exception comes.
            self.due = (OFF,)
            self._send_together(f"{word};{ON}".encode(), 1)
        # Otherwise nothing has begun. But a BEGIN of the borrower's own makes the session dirty, and in a
        # lost session the method raises its error.
        elif not self.due or self.dirty or self.failure is not None:
            method()

    def _send_together(self, statements: Any, further: int, *rest: Any) -> Any:
        """Send statements of which only the last one has rows, and return what that one returns.

        :param statements: the text.
        :param further: the number of statements behind the first.
        :param rest: further arguments of the driver's method.
        """
        try:
            self._query(statements)
        except self.Error:
            raise
        except BaseException:
            # An asynchronous exception: a further answer would be taken for that of the next statement. If
            # the first has not come, either, no statement will follow.
            with suppress(self.Error):
                self._next_results(further, *rest)
            raise
        return self._next_results(further, *rest)

    def _next_results(self, number: int, *rest: Any) -> Any:
        for _ in range(number):
            result = self._next_result(*rest)
        return result

    def _send_or_begin(self, statement: Any, *rest: Any) -> Any:
        if not (due := self.due):
            return self._query(statement, *rest)
        # A statement that is not understood goes alone: it may be several, or one about the transaction.
        if not self.shares_packets or self.effects & LEAVES or len(statement) > LONGEST:
            self.begin_alone()
            return self._query(statement, *rest)
        begin = ";".join((*due, ""))
        try:
            together = (begin if isinstance(statement, str) else begin.encode()) + statement
            return self._send_together(together, len(due), *rest)
        finally:
            # If the first statement has not run, all are still due.
            if not self._get_autocommit():
                self.due = ()

    query = sending(_send_or_begin)

    def begin_alone(self) -> None:
        for statement in self.due:
            self._query(statement.encode())
        self.due = ()

    @property
    def begun(self) -> bool:
        """True if the borrower may have begun a transaction, or has switched autocommit off."""
        return super().begun or bool(self.due)

    def mark_clean(self) -> None:
        # With ``AUTOCOMMIT`` that was set to False at run time, a clean session is one with autocommit off.
        self.begin_alone()
        super().mark_clean()

    def clean(self) -> None:
        self.due = ()
        super().clean()


@cache
def lazy(connection_class: type[MySQLConnection]) -> type[LazyConnection]:
    """Return the subclass of a guarded class whose transactions begin with their first statement.

    :param connection_class: the class of a driver's guarded connection.
    """
    more = {"CHANGING": connection_class.CHANGING | {"due"}}
    return type("LazyConnection", (LazyConnection, connection_class), more)


def begin_lazily(driver: Any) -> None:
    """Have a new connection begin its transactions with their first statement.

    :param driver: the guarded connection.
    """
    driver.due = ()
    driver.__class__ = lazy(type(driver))  # type: ignore[arg-type]  # a class is hashable
    driver.mark_clean()
