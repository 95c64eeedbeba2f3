"""Messages of TTC: what a client asks, and what the server answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from servers.oracle import wire
from servers.oracle.columns import Column
from servers.oracle.lobs import CHUNK, LOCATOR, PARAMETERS
from servers.oracle.wire import Reader, Writer

#: Types of messages.
PROTOCOL, DATA_TYPES, FUNCTION, ERROR, ROW_HEADER, ROW, STATUS = 1, 2, 3, 4, 6, 7, 9
BIND_DIRECTIONS, DESCRIPTION, PIGGYBACK = 11, 16, 17
#: Options of an execution.
COMMIT, DEFINE = 0x100, 0x10
#: A flag of a call's end: a transaction is open.
IN_TRANSACTION = 0x02
NO_DATA_FOUND = 1403
#: The version of the fields of messages: that of Oracle 12.1.
FIELD_VERSION = 7
#: Values that are longer stand behind the others.
LONGEST_STRING = 32767


@dataclass
class Bind:
    """The type of a bind."""

    data_type: int
    size: int
    form: int


@dataclass
class Execution:
    """A request to execute a statement, or to define the types of its columns."""

    options: int = 0
    cursor: int = 0
    sql: str | None = None
    rows_wanted: int = 0
    executions: int = 1
    is_query: bool = False
    #: The types of the binds; None: those of the last execution.
    binds: list[Bind] | None = None


def read_execution(reader: Reader) -> Execution:
    """Read a full request. The values of the binds are left in the reader."""
    found = Execution(reader.number(), reader.number())
    reader.byte()
    sql_length = reader.number()
    reader.skip("bnbbn")
    found.rows_wanted = reader.number()
    reader.skip("nb")
    binds = reader.number()
    reader.skip("bbbbb")
    reader.byte()
    defines = reader.number()
    reader.skip("nbbbnbnnbnb")
    if sql_length:
        found.sql = (reader.value() or b"").decode()
    reader.number()
    executions = reader.number()
    reader.skip("nnnnn")
    found.is_query = bool(reader.number())
    reader.skip("nnnnn")
    found.executions = 1 if found.is_query else max(executions, 1)
    found.binds = [read_bind(reader) for _ in range(defines or binds)]
    return found


def read_bind(reader: Reader) -> Bind:
    """Read the type of a bind."""
    data_type = reader.byte()
    reader.skip("bbb")
    size = reader.number()
    reader.skip("nn")
    reader.value_after_size()
    reader.skip("nn")
    form = reader.byte()
    reader.number()
    return Bind(data_type, size, form)


def read_values(reader: Reader, binds: Sequence[Bind], lob: Callable[[bytes], Any]) -> list[Any]:
    """Read the values of one execution.

    :param lob: returns the content of a LOB by its locator.
    """
    assert reader.byte() == ROW
    values: dict[int, Any] = {}
    for long in False, True:
        for at, bind in enumerate(binds):
            if (bind.size > LONGEST_STRING) is long:
                values[at] = read_value(reader, bind, lob)
    return [values[at] for at in range(len(binds))]


def read_value(reader: Reader, bind: Bind, lob: Callable[[bytes], Any]) -> Any:
    """Read one value."""
    if bind.data_type in wire.LOBS:
        locator = reader.value_after_size()
        return lob(locator) if locator else None
    data = reader.value()
    if data is None:
        return None
    if bind.data_type in wire.TEXTS:
        return data.decode(wire.ENCODINGS[bind.form])
    if bind.data_type in (wire.NUMBER, wire.BINARY_INTEGER):
        return wire.decode_number(data)
    if bind.data_type in wire.DATES:
        return wire.decode_date(data)
    if bind.data_type == wire.INTERVAL_DS:
        return wire.decode_interval(data)
    return wire.decode_double(data) if bind.data_type == wire.BINARY_DOUBLE else data


# --- answers --------------------------------------------------------------------------------------------


def describe(columns: Sequence[Column]) -> bytes:
    """Return the description of an answer."""
    message = Writer().small(DESCRIPTION, 0).numbers(0, len(columns))
    if columns:
        message.small(0)
    for position, column in enumerate(columns, 1):
        message.small(column.data_type, 0, column.precision & 0xFF, column.scale & 0xFF)
        message.numbers(column.size * (2 if column.form == wire.NATIONAL else 1), 0, 0, 0, 0, 873)
        message.small(column.form).numbers(column.size).small(1, 0)
        message.value_after_size(column.name).numbers(0, 0, position, 0)
    message.numbers(0, 0, 0, 0, 0, 0)
    return bytes(message.data)


def row_header() -> bytes:
    """Return the beginning of rows."""
    return bytes(Writer().small(ROW_HEADER, 0).numbers(0, 0, 0, 0, 0, 0).data)


def row(columns: Sequence[Column], values: Sequence[Any], lob: Callable[[Any, Column], bytes]) -> bytes:
    """Return one row.

    :param lob: returns a locator for the content of a LOB.
    """
    message = Writer().small(ROW)
    for column, value in zip(columns, values, strict=True):
        write_value(message, column, value, lob)
    return bytes(message.data)


def write_value(message: Writer, column: Column, value: Any, lob: Callable[[Any, Column], bytes]) -> None:
    """Write one value, as SQLite keeps it."""
    if column.data_type in wire.LOBS:
        if value is None:
            message.numbers(0)
        else:
            message.numbers(LOCATOR, len(value), CHUNK).value(lob(value, column))
    else:
        message.value(None if value is None else encoded(column, value))


def encoded(column: Column, value: Any) -> bytes:
    """Return the bytes of a value that is no LOB."""
    if column.data_type == wire.NUMBER:
        return wire.encode_number(value)
    if column.data_type in wire.DATES:
        return wire.encode_date(datetime.fromisoformat(value), column.data_type)
    if column.data_type == wire.INTERVAL_DS:
        return wire.encode_interval(timedelta(microseconds=value))
    if column.data_type == wire.BINARY_DOUBLE:
        return wire.encode_double(value)
    return value if isinstance(value, bytes) else str(value).encode(wire.ENCODINGS[column.form])


def bind_directions(inputs: int, outputs: int) -> bytes:
    """Return the message that says which binds take values."""
    message = Writer().small(BIND_DIRECTIONS, 0).numbers(*reversed(divmod(inputs + outputs, 256)), 0, 0, 0, 0)
    return bytes(message.small(*[32] * inputs, *[16] * outputs).data)


def returned(
    binds: Sequence[Bind], rows: Sequence[Sequence[Any]], lob: Callable[[Any, Column], bytes]
) -> bytes:
    """Return the values of RETURNING ... INTO of one execution."""
    message = Writer().small(ROW)
    for at, bind in enumerate(binds):
        column = Column("", bind.data_type, form=bind.form)
        message.numbers(len(rows))
        for values in rows:
            write_value(message, column, values[at], lob)
            message.numbers(0)
    return bytes(message.data)


def error(call_status: int, cursor: int = 0, count: int = 0, code: int = 0, text: str = "") -> bytes:
    """Return the end of an answer: an error, or none.

    :param call_status: IN_TRANSACTION or 0.
    :param cursor: the number of the cursor.
    :param count: of rows.
    """
    message = Writer().small(ERROR).numbers(call_status, 0, 0, code if code < 65536 else 0, 0, 0, cursor, 0)
    message.small(0, 0, 0, 0, 0, 0)
    message.numbers(0, 0).small(0).numbers(0, 0)  # the rowid
    message.numbers(0).small(0, 0).numbers(0, 0, 0, 0, 0, 0)
    message.numbers(code, count)
    if code:
        message.value(text.encode())
    return bytes(message.data)


def status(call_status: int) -> bytes:
    """Return the end of an answer that has nothing else in it."""
    return bytes(Writer().small(STATUS).numbers(call_status, 0).data)


def parameters(pairs: dict[str, str], numbers: dict[str, int]) -> bytes:
    """Return names and values of a logon.

    :param numbers: what stands behind some of the values.
    """
    message = Writer().small(PARAMETERS).numbers(len(pairs))
    for name, value in pairs.items():
        message.value_after_size(name).value_after_size(value).numbers(numbers.get(name, 0))
    return bytes(message.data)
