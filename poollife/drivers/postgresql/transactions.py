"""Transactions that begin with their first statement, in one packet: ``POOL["lazy_begin"]``.

A BEGIN, and behind it the SAVEPOINTs of nested blocks, stand in front of the first statement's text. The
server answers each statement; a cursor shows the last answer.

The server reads a text as a whole. So it refuses one with an error of syntax before the BEGIN has run. Then
all is sent once more, each alone, and the transaction is in the state that it has without ``lazy_begin``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from poollife.drivers.effects import LEAVES
from poollife.drivers.postgresql.connection import IDLE, PostgreSQLConnection
from poollife.drivers.postgresql.cursors import ReadingCursor
from poollife.drivers.postgresql.errors import sqlstate_of

#: The number behind the word LINE, in any language, in the text of an error.
LINE = re.compile(r"(?<= )\d+(?=\s?:)")
#: The SQLSTATE of a statement that was canceled.
CANCELED = "57014"


class BeginningConnection(PostgreSQLConnection):
    """The part of a guarded connection that begins a transaction in the packet of its first statement."""

    #: The SAVEPOINTs that follow the BEGIN that is due.
    savepoints: tuple[bytes, ...]
    #: True unless a statement is sent alone, after an error.
    shares_packets: bool
    CHANGING = PostgreSQLConnection.CHANGING | {"savepoints", "shares_packets"}

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """True if the next statement begins a transaction, and its text may have the BEGIN."""

    @abstractmethod
    def begin_statement(self) -> bytes:
        """Return the BEGIN, with what the borrower has set for its transactions."""

    @property
    def keeps_savepoints(self) -> bool:
        return self.is_due and self.failure is None

    def keep_savepoint(self, statement: str) -> None:
        self.savepoints += (statement.encode(),)

    def first_statements(self, cursor: Any) -> tuple[bytes, ...]:
        """Return the statements that a cursor puts in front of its own: a BEGIN and SAVEPOINTs, or none.

        :param cursor: the cursor that runs a statement.
        """
        if (
            self.reader is cursor  # it is not stream() or copy()
            and self.is_due
            and self.shares_packets
            and not self.effects & LEAVES  # it is one statement, which runs in a transaction
        ):
            return (self.begin_statement(), *self.savepoints)
        return ()

    def note_begin(self) -> None:
        """Note that the transaction has begun."""
        self.savepoints = ()


class BeginningCursor(ReadingCursor):
    """A cursor that begins a transaction in the packet of its first statement, and does not show it."""

    #: The statements in front of the present one.
    _first: tuple[bytes, ...] = ()

    def _run(self, send: Callable[..., Any], *arguments: Any) -> Any:
        return super()._run(partial(self._send, send), *arguments)

    def _send(self, send: Callable[..., Any], query: Any, params: Any, **kwargs: Any) -> Any:
        driver = self._driver
        try:
            result = self._send_once(send, query, params, **kwargs)
            if self._first:
                driver.note_begin()
            return result
        except driver.Error as error:
            if not self._first:
                raise
            is_canceled = sqlstate_of(error) == CANCELED
            if is_canceled or not driver.is_open or driver.transaction_status != IDLE:
                if driver.begun:
                    driver.note_begin()
                _count_lines_without_begin(error)
                raise
        # The server has refused the text before the BEGIN has run.
        driver.shares_packets = False
        try:
            return self._send_once(send, query, params, **kwargs)
        finally:
            driver.shares_packets = True

    def _send_once(self, send: Callable[..., Any], query: Any, params: Any, **kwargs: Any) -> Any:
        return send(query, params, **kwargs)


def in_front(statements: tuple[bytes, ...]) -> bytes:
    """Return the text in front of a statement, with a line of its own.

    :param statements: the result of ``first_statements()``.
    """
    return b";".join(statements) + b";\n" if statements else b""


def _count_lines_without_begin(error: Any) -> None:
    """Give the text of an error the line that it has without a BEGIN, which has a line of its own."""
    # Without a position there is no line, or one of a function's statement.
    if error.diag.statement_position is None:
        return
    text = str(error)
    own = len(error.diag.message_primary or "")  # that may have any lines
    error.args = (text[:own] + LINE.sub(lambda line: str(int(line[0]) - 1), text[own:], count=1),)
