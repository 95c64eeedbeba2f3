"""The cursors of psycopg 3: how each is read, and which of them begins a transaction with its statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.postgresql.cursors import NamedCursor, ReadingCursor, is_own, sends_sql_unchanged
from poollife.drivers.postgresql.transactions import BeginningCursor, in_front


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


class LazyCursor(BeginningCursor, PlainCursor):
    """A plain cursor with ``POOL["lazy_begin"]``: a first statement has the BEGIN in its packet.

    psycopg reads all results, of which a method here drops the first ones. So the cursor shows one statement
    and its result.
    """

    def _start_query(self, query: Any = None) -> Iterator[Any]:
        # psycopg calls this method, and the next two, with its lock held.
        driver = self._driver
        try:
            self._first = driver.take_begin(self)
            yield from super()._start_query(query)  # type: ignore[misc]  # the driver's
        finally:
            driver.has_begin = False

    def _execute_send(self, query: Any, **kwargs: Any) -> None:
        text = query.query
        query.query = in_front(self._first) + text
        try:
            super()._execute_send(query, **kwargs)  # type: ignore[misc]
        finally:
            query.query = text

    def _check_results(self, results: list[Any]) -> None:
        super()._check_results(results)  # type: ignore[misc]
        del results[: len(self._first)]


class ServerCursor(Streams, NamedCursor):
    """A cursor on the server."""


class UnreadCursor(Streams, LeasedCursor):
    """A cursor of a class of the site's own, which may send another statement than it was given."""


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
