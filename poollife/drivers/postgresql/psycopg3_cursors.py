"""The cursors of psycopg 3: how each is read, and which of them begins a transaction with its statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg

from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.postgresql.connection import IDLE
from poollife.drivers.postgresql.cursors import NamedCursor, ReadingCursor, is_own, sends_sql_unchanged

#: The number behind the word LINE, in any language, in the text of an error.
LINE = re.compile(r"(?<= )\d+(?=\s?:)")


class Streams:
    """The calls of psycopg's cursors that nothing reads: ``wait()`` finds them, and the session is dirty."""

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self._check()  # type: ignore[attr-defined]  # that of LeasedCursor
        yield from super().stream(*args, **kwargs)  # type: ignore[misc]  # the driver's

    @contextmanager
    def copy(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self._check()  # type: ignore[attr-defined]
        with super().copy(*args, **kwargs) as copy:  # type: ignore[misc]
            yield copy


class PlainCursor(Streams, ReadingCursor):
    """A cursor whose rows the client has."""


class LazyCursor(PlainCursor):
    """A plain cursor with ``POOL["lazy_begin"]``: a first statement has the BEGIN in its packet.

    psycopg reads two results, of which a method here drops the first. So the cursor shows one statement and
    its result.
    """

    #: The BEGIN in front of the present statement; b"": none.
    _begin = b""

    def _start_query(self, query: Any = None) -> Iterator[Any]:
        # psycopg calls this method, and the next two, with its lock held.
        driver = self._driver
        try:
            self._begin = driver.take_begin(self)
            yield from super()._start_query(query)  # type: ignore[misc]  # the driver's
        finally:
            driver.has_begin = False

    def _execute_send(self, query: Any, **kwargs: Any) -> None:
        text = query.query
        query.query = self._begin + text
        try:
            super()._execute_send(query, **kwargs)  # type: ignore[misc]
        finally:
            query.query = text

    def _check_results(self, results: list[Any]) -> None:
        super()._check_results(results)  # type: ignore[misc]
        if self._begin:
            del results[0]

    def _run(self, send: Callable[..., Any], *arguments: Any) -> Any:
        return super()._run(partial(self._send, send), *arguments)

    def _send(self, send: Callable[..., Any], query: Any, params: Any, **kwargs: Any) -> Any:
        driver = self._driver
        try:
            return send(query, params, **kwargs)
        except psycopg.Error as error:
            if not self._begin:
                raise
            is_canceled = isinstance(error, psycopg.errors.QueryCanceled)
            if is_canceled or not driver.is_open or driver.transaction_status != IDLE:
                _count_lines_without_begin(error)
                raise
        # The server reads a text as a whole, and has refused this one before the BEGIN has run.
        driver.shares_packets = False
        try:
            return send(query, params, **kwargs)
        finally:
            driver.shares_packets = True


class ServerCursor(Streams, NamedCursor):
    """A cursor on the server."""


class UnreadCursor(Streams, LeasedCursor):
    """A cursor of a class of the site's own, which may send another statement than it was given."""


def _count_lines_without_begin(error: psycopg.Error) -> None:
    """Give the text of an error the line that it has without a BEGIN, which has a line of its own."""
    # Without a position there is no line, or one of a function's statement.
    if error.diag.statement_position is None:
        return
    text = str(error)
    own = len(error.diag.message_primary or "")  # that may have any lines
    error.args = (text[:own] + LINE.sub(lambda line: str(int(line[0]) - 1), text[own:], count=1),)


def _plain(cursor_class: type) -> type:
    return leased(cursor_class, PlainCursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


def _lazy(cursor_class: type) -> type:
    # The others may send one statement only.
    sends_text = issubclass(cursor_class, psycopg.ClientCursor) and sends_sql_unchanged(cursor_class)
    return leased(cursor_class, LazyCursor) if sends_text else _plain(cursor_class)


def _named(cursor_class: type) -> type:
    return leased(cursor_class, ServerCursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


#: The leased class of a cursor class: of one that the client has, and of one on the server.
CURSORS, NAMED_CURSORS = LeasedClasses(_plain, is_own), LeasedClasses(_named, is_own)
#: The first with ``POOL["lazy_begin"]``.
LAZY_CURSORS = LeasedClasses(_lazy, is_own)
