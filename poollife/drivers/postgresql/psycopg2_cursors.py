"""The cursors of psycopg2: how each is read, and which of them begins a transaction with its statement."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from psycopg2 import extensions

from poollife.drivers.cursors import LeasedClasses, LeasedCursor, leased
from poollife.drivers.postgresql.cursors import (
    NamedCursor,
    ReadingCursor,
    are_all_plain,
    are_plain,
    is_own,
    sends_sql_unchanged,
)
from poollife.drivers.postgresql.transactions import BeginningCursor, in_front

Connection: Any = extensions.connection
Cursor: Any = extensions.cursor


class UnreadCalls:
    """The calls of psycopg2's cursors that send something that nothing reads: they make the session dirty."""

    _driver: Any

    def copy_from(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_from, *args, **kwargs)  # type: ignore[misc]  # the driver's

    def copy_to(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_to, *args, **kwargs)  # type: ignore[misc]

    def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().copy_expert, *args, **kwargs)  # type: ignore[misc]

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().callproc, *args, **kwargs)  # type: ignore[misc]

    def _unread(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        driver = self._driver
        self._check()  # type: ignore[attr-defined]  # that of LeasedCursor
        driver.note_unread()
        try:
            driver.begin_alone()
            return method(*args, **kwargs)
        except BaseException as error:
            driver.note_failure(error)
            raise


class ReadCalls(UnreadCalls):
    """The calls whose statements are read. Their arguments have psycopg2's names, which psycopg 3 has not."""

    def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002
        return super().execute(query, vars)  # type: ignore[misc]  # that of ReadingCursor

    def executemany(self, query: Any, vars_list: Any) -> Any:
        return super().executemany(query, vars_list)  # type: ignore[misc]


class Psycopg2Cursor(ReadCalls, ReadingCursor):  # type: ignore[misc]  # the names of arguments
    """A cursor whose rows the client has."""


class LazyCursor(BeginningCursor, Psycopg2Cursor):  # type: ignore[misc]  # the names of arguments
    """A plain cursor with ``POOL["lazy_begin"]``: a first statement has the BEGIN in its packet.

    psycopg2 keeps the last result only, which is that of the statement.
    """

    @property
    def query(self) -> Any:
        """The statement that was sent last, as bytes, without the BEGIN."""
        text = Cursor.query.__get__(self)
        return text.removeprefix(in_front(self._first)) if text else text

    def _run(self, send: Callable[..., Any], plain: Callable[[Any], bool], *arguments: Any) -> Any:
        if plain is are_all_plain:  # executemany() sends its text for each row
            return super(BeginningCursor, self)._run(partial(self._send_rows, send), plain, *arguments)
        return super()._run(send, plain, *arguments)

    def _send_rows(self, send: Callable[..., Any], query: Any, params: Any) -> Any:
        self._first = ()
        self._driver.begin_alone()
        return send(query, params)

    def _send_once(self, send: Callable[..., Any], query: Any, params: Any, **kwargs: Any) -> Any:
        driver = self._driver
        self._first = driver.first_statements(self)
        if self._first:
            begin, text = in_front(self._first), driver.text_of(query)
            query = (begin.decode() if isinstance(text, str) else begin) + text
        elif driver.is_due and query:
            # First the parameters: without lazy_begin an error in them comes before the BEGIN.
            query, params = self.mogrify(query, params), None  # type: ignore[attr-defined]  # the driver's
            driver.begin_alone()
        return send(query, params, **kwargs)


class Psycopg2NamedCursor(ReadCalls, NamedCursor):  # type: ignore[misc]  # the names of arguments
    """A cursor on the server."""


class LazyNamedCursor(Psycopg2NamedCursor):
    """A cursor on the server with ``POOL["lazy_begin"]``: it is declared by a text.

    psycopg2 itself refuses to declare one in its autocommit mode, where it has seen no BEGIN.
    """

    #: The text.
    _declaration: bytes | None = None

    @property
    def query(self) -> Any:
        """The statement that has declared the cursor, as bytes."""
        return self._declaration or Cursor.query.__get__(self)

    def _run(self, send: Callable[..., Any], plain: Callable[[Any], bool], *arguments: Any) -> Any:
        if plain is are_plain and self._driver.begins_by_text:
            send = partial(self._declare, send)
        return super()._run(send, plain, *arguments)

    def _declare(self, send: Callable[..., Any], query: Any, params: Any) -> Any:
        driver = self._driver
        if self._declaration:
            raise driver.ProgrammingError("can't call .execute() on named cursors more than once")
        text = self.mogrify(query, params)  # type: ignore[attr-defined]  # the driver's
        driver.begin_alone()
        if self.withhold:
            return send(text)
        name = extensions.quote_ident(self.name, driver)  # type: ignore[attr-defined]
        scroll = {None: "", True: "SCROLL ", False: "NO SCROLL "}[self.scrollable]  # type: ignore[attr-defined]
        self._declaration = f"DECLARE {name} {scroll}CURSOR WITHOUT HOLD FOR ".encode() + text
        return Cursor(driver).execute(self._declaration)


class UnreadCursor(UnreadCalls, LeasedCursor):
    """A cursor of a class of the site's own, which may send another statement than it was given."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().execute, *args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._unread(super().executemany, *args, **kwargs)


class LazyUnreadNamedCursor(UnreadCursor):
    """A cursor on the server of a class of the site's own, with ``POOL["lazy_begin"]``."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        # If the transaction has begun by a text, psycopg2 sends a BEGIN once more, of which the server warns.
        self._driver.hand_over()
        return super().execute(*args, **kwargs)


def _plain(cursor_class: type) -> type:
    return leased(cursor_class, Psycopg2Cursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


def _named(cursor_class: type) -> type:
    return leased(cursor_class, Psycopg2NamedCursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


def _lazy(cursor_class: type) -> type:
    return leased(cursor_class, LazyCursor if sends_sql_unchanged(cursor_class) else UnreadCursor)


def _lazy_named(cursor_class: type) -> type:
    is_read = sends_sql_unchanged(cursor_class)
    return leased(cursor_class, LazyNamedCursor if is_read else LazyUnreadNamedCursor)


#: The leased class of a cursor class: of one that the client has, and of one on the server.
CURSORS, NAMED_CURSORS = LeasedClasses(_plain, is_own), LeasedClasses(_named, is_own)
#: The same with ``POOL["lazy_begin"]``.
LAZY_CURSORS, LAZY_NAMED_CURSORS = LeasedClasses(_lazy, is_own), LeasedClasses(_lazy_named, is_own)
