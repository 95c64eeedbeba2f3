"""Cursors of JDBC, after the DB-API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedCursor
from poollife.drivers.effects import INSERT_ID, LONGEST_REMEMBERED, MAY_SET_INSERT_ID, SETS, UPSERTS
from poollife.drivers.jdbc.dbapi import InterfaceError, ProgrammingError
from poollife.drivers.jdbc.parameters import Template
from poollife.drivers.jdbc.values import NUMBERS, Getter, getter_of, set_parameter, to_python
from poollife.process.guard import alive

#: java.sql.Statement.RETURN_GENERATED_KEYS, and what a batch says of a statement whose rows were not counted.
RETURN_GENERATED_KEYS, SUCCESS_NO_INFO = 1, -2

_remembered = lru_cache(maxsize=1024)(Template)


def template_of(sql: str, pattern: re.Pattern[str]) -> Template:
    """Return a statement with its parameters read."""
    return (_remembered if len(sql) <= LONGEST_REMEMBERED else Template)(sql, pattern)


class Cursor:
    """A cursor. All that calls Java goes through the connection's ``call()``."""

    arraysize = 1

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        #: For each column: its label, the code of its type in java.sql.Types, and five times None. None:
        #: there are no rows.
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        #: The id that the last INSERT has generated, if the driver tells it with the answer.
        self.lastrowid: Any = None
        self._closed = False
        #: The statement and the rows of Java.
        self._statement: Any = None
        self._rows: Any = None
        self._getters: list[Getter] = []

    def execute(self, sql: str, params: Any = None) -> None:
        """Run a statement.

        :param sql: the statement. With ``params``, ``%s`` and ``%(name)s`` outside of literals and comments
            are parameters, and two percent signs are one.
        :param params: a sequence, a mapping for names, or None.
        """
        self._begin()
        connection = self.connection
        sql = self._text_of(sql)
        if params is None:
            self._statement = connection.call(connection.java.createStatement)
            has_rows = connection.call(self._execute_plain, sql)
        else:
            template = template_of(sql, connection.dialect.pattern)
            has_rows = connection.call(self._execute_with, template.text, template.values(params))
        connection.call(self._take_answer, bool(has_rows))

    def executemany(self, sql: str, params_seq: Iterable[Any]) -> None:
        """Run a statement once for each set of parameters, in one batch.

        :param sql: as for ``execute()``. A statement that returns rows is refused by the driver.
        :param params_seq: the sets.
        """
        self._begin()
        template = template_of(self._text_of(sql), self.connection.dialect.pattern)
        values = [template.values(params) for params in params_seq]
        self.rowcount = self.connection.call(self._execute_batch, template.text, values) if values else 0

    def callproc(self, name: str, params: Any = ()) -> Any:
        """Call a stored procedure with input parameters, by JDBC's own syntax.

        :param name: the procedure.
        :param params: a sequence.
        :returns: ``params``.
        """
        self._begin()
        marks = ", ".join("?" * len(params))
        self._statement = self.connection.call(self.connection.java.prepareCall, f"{{call {name}({marks})}}")
        self.connection.call(self._take_answer, bool(self.connection.call(self._execute_set, params)))
        return params

    def fetchone(self) -> tuple[Any, ...] | None:
        self._check_rows()
        row: tuple[Any, ...] | None = self.connection.call(self._read_row)
        return row

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        self._check_rows()
        found: list[tuple[Any, ...]] = self.connection.call(self._read_rows, size or self.arraysize)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        self._check_rows()
        found: list[tuple[Any, ...]] = self.connection.call(self._read_rows, None)
        return found

    def nextset(self) -> bool | None:
        """Go on to the next result of a procedure; return None if there is none."""
        if self._statement is None:
            return None
        has_rows = bool(self.connection.call(self._statement.getMoreResults))
        self.connection.call(self._take_answer, has_rows)
        return True if has_rows or self.rowcount != -1 else None

    def close(self) -> None:
        self._closed = True
        self._forget()

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as the DB-API allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as the DB-API allows."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        if self._closed:
            raise InterfaceError("the cursor is closed")
        self._forget()
        self.rowcount, self.lastrowid = -1, None

    def _text_of(self, sql: Any) -> str:
        """Return a statement as the server takes it.

        :raises ProgrammingError: the statement is no text, but bytes, say.
        """
        if not isinstance(sql, str):
            raise ProgrammingError(f"a statement is a text, not {type(sql).__qualname__!r}")
        return sql[:-1] if sql.endswith(self.connection.dialect.ends) else sql

    def _forget(self) -> None:
        """Close Java's statement, and with it its rows."""
        statement, self._statement, self._rows, self.description = self._statement, None, None, None
        if statement is not None:
            self.connection.call(statement.close)

    def _check_rows(self) -> None:
        if self._closed or self._rows is None:
            raise InterfaceError("the cursor has no rows: no statement that returns rows was executed")

    # --- Java; inside of call() ------------------------------------------------------------------------

    @property
    def _wants_key(self) -> bool:
        connection = self.connection
        return bool(connection.dialect.returns_keys and connection.effects & MAY_SET_INSERT_ID)

    def _execute_plain(self, sql: str) -> Any:
        if self._wants_key:
            return self._statement.execute(sql, RETURN_GENERATED_KEYS)
        return self._statement.execute(sql)

    def _execute_with(self, text: str, params: Any) -> Any:
        self._prepare(text)
        return self._execute_set(params)

    def _execute_set(self, params: Any) -> Any:
        self._set_parameters(params)
        return self._statement.execute()

    def _execute_batch(self, text: str, rows: list[Any]) -> int:
        self._prepare(text)
        for params in rows:
            self._set_parameters(params)
            self._statement.addBatch()
        counts = [int(count) for count in self._statement.executeBatch()]
        return -1 if SUCCESS_NO_INFO in counts else sum(counts)

    def _set_parameters(self, params: Any) -> None:
        for number, value in enumerate(params, 1):
            set_parameter(self._statement, number, value)

    def _prepare(self, text: str) -> None:
        prepare = self.connection.java.prepareStatement
        self._statement = prepare(text, RETURN_GENERATED_KEYS) if self._wants_key else prepare(text)

    def _take_answer(self, has_rows: bool) -> None:
        """Take the description of the rows, or the number of rows that were changed."""
        self._rows = self.description = None
        if not has_rows:
            self.rowcount = int(self._statement.getUpdateCount())
            if self._wants_key:
                self._take_key()
            return
        self._rows = self._statement.getResultSet()
        columns = self._rows.getMetaData()
        # Not more than that: for whether a column may be NULL, PostgreSQL's driver asks the server.
        self.description = [
            (str(columns.getColumnLabel(number)), int(columns.getColumnType(number)), *[None] * 5)
            for number in range(1, int(columns.getColumnCount()) + 1)
        ]
        number_getter = self.connection.dialect.number_getter
        self._getters = [
            number_getter(columns, number) if number_getter and column[1] in NUMBERS else getter_of(column[1])
            for number, column in enumerate(self.description, 1)
        ]

    def _take_key(self) -> None:
        keys = self._statement.getGeneratedKeys()
        if keys.next():  # of several rows, the first
            self.lastrowid = to_python(keys.getObject(1))

    def _read_row(self) -> tuple[Any, ...] | None:
        rows = self._rows
        if not rows.next():
            return None
        return tuple([getter(rows, number) for number, getter in enumerate(self._getters, 1)])

    def _read_rows(self, most: int | None) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while len(found) != most and (row := self._read_row()) is not None:
            found.append(row)
        return found


class JDBCCursor(LeasedCursor, Cursor):
    """A cursor that ends with its lease, and reads each statement before it is sent."""

    def _note(self, error: BaseException) -> None:
        """Do nothing: ``call()`` reports each error to the connection."""

    def execute(self, sql: Any, params: Any = None) -> Any:
        self._read(sql, params is not None)
        super(LeasedCursor, self).execute(sql, params)
        self._note_answer()
        return self

    def executemany(self, sql: Any, params_seq: Any) -> Any:
        self._read(sql, True)
        super(LeasedCursor, self).executemany(sql, params_seq)
        self._note_answer()

    def callproc(self, name: Any, params: Any = ()) -> Any:
        self._read("CALL", False)  # which may leave anything
        called = super(LeasedCursor, self).callproc(name, params)
        self._note_answer()
        return called

    def _read(self, sql: Any, is_template: bool) -> None:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        self.connection.note_statement(sql, is_template)

    def _note_answer(self) -> None:
        """Note what the statement has set for later ones."""
        connection, effects = self.connection, self.connection.effects
        connection.ran |= effects & SETS
        if self.lastrowid is not None and not (effects & UPSERTS and self.rowcount != 1):
            connection.ran |= INSERT_ID
