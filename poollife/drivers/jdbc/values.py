"""Values: Python's as parameters of Java's methods, and Java's as Python's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal
from functools import cache, singledispatch
from typing import Any
from uuid import UUID

import jpype

from poollife.drivers.jdbc.dbapi import DataError, ProgrammingError
from poollife.drivers.jdbc.jvm import Throwable, java_class

#: The code of SQL's NULL in java.sql.Types.
NULL = 0
#: The classes of java.time that a driver is asked for, by the code of the column's type. The older classes of
#: java.sql would need the JVM's own time zone. The second class is for a driver that refuses the first one:
#: PostgreSQL's gives ``timestamptz`` the code of ``timestamp``, and would ask the server for the type's name.
TIMES = {
    91: ("LocalDate",),
    92: ("LocalTime", "OffsetTime"),
    93: ("LocalDateTime", "OffsetDateTime"),
    2013: ("OffsetTime",),
    2014: ("OffsetDateTime",),
}
#: The codes of NUMERIC and DECIMAL.
NUMBERS = (2, 3)
#: The bounds of java.lang.Long.
LONG = range(-(1 << 63), 1 << 63)


@singledispatch
def to_java(value: Any) -> Any:
    """Return Java's value for one of Python's, which is not None.

    :raises ProgrammingError: the type has none.
    """
    raise ProgrammingError(f"JDBC has no type for a parameter of the type {type(value).__qualname__!r}")


@to_java.register
def _(value: str) -> Any:
    return jpype.JString(str(value))


@to_java.register
def _(value: bool) -> Any:
    return java_class("java.lang.Boolean").valueOf(value)


@to_java.register
def _(value: int) -> Any:
    if value in LONG:
        return java_class("java.lang.Long").valueOf(int(value))
    return java_class("java.math.BigDecimal")(str(int(value)))


@to_java.register
def _(value: float) -> Any:
    return java_class("java.lang.Double").valueOf(float(value))


@to_java.register
def _(value: Decimal) -> Any:
    if not value.is_finite():
        raise DataError(f"JDBC has no decimal number {value}")
    return java_class("java.math.BigDecimal")(str(value))


@to_java.register(bytes)
@to_java.register(bytearray)
@to_java.register(memoryview)
def _(value: Any) -> Any:
    return jpype.JArray(jpype.JByte)(bytes(value))


@to_java.register
def _(value: datetime) -> Any:
    local = java_class("java.time.LocalDateTime").of(
        *(value.year, value.month, value.day, value.hour, value.minute, value.second),
        value.microsecond * 1000,
    )
    offset = value.utcoffset()
    return local if offset is None else java_class("java.time.OffsetDateTime").of(local, _offset(offset))


@to_java.register
def _(value: date) -> Any:
    return java_class("java.time.LocalDate").of(value.year, value.month, value.day)


@to_java.register
def _(value: time) -> Any:
    local = java_class("java.time.LocalTime").of(
        value.hour, value.minute, value.second, value.microsecond * 1000
    )
    offset = value.utcoffset()
    return local if offset is None else java_class("java.time.OffsetTime").of(local, _offset(offset))


@to_java.register
def _(value: UUID) -> Any:
    return jpype.JString(str(value))


def _offset(offset: timedelta) -> Any:
    return java_class("java.time.ZoneOffset").ofTotalSeconds(int(offset.total_seconds()))


def set_parameter(statement: Any, number: int, value: Any) -> None:
    """Set a parameter of a ``java.sql.PreparedStatement``.

    :param number: its number, from 1.
    """
    if value is None:
        statement.setNull(number, NULL)
    else:
        statement.setObject(number, to_java(value))


Getter = Callable[[Any, int], Any]


def getter_of(code: int) -> Getter:
    """Return the function that reads the values of a column: it takes the ``ResultSet`` and a number from 1.

    :param code: the code of the column's type, of java.sql.Types.
    """
    if code not in TIMES:
        return _read
    kinds = [java_class(f"java.time.{name}") for name in TIMES[code]]

    def read_time(rows: Any, number: int) -> Any:
        try:
            value = rows.getObject(number, kinds[0])
        except Throwable:
            if len(kinds) == 1:
                raise
            value = rows.getObject(number, kinds[1])
            del kinds[0]
        return to_python(value)

    return read_time


def number_getter(columns: Any, number: int) -> Getter:
    """Return the function that reads a NUMBER of Oracle's, with the types that Django's Oracle backend gives.

    :param columns: the ``ResultSetMetaData``.
    :param number: the number of the column, from 1.
    """
    precision, scale = int(columns.getPrecision(number)), int(columns.getScale(number))
    if scale == -127 and precision:  # FLOAT
        convert: Callable[[str], Any] = float
    elif precision and scale >= 0:
        unit = Decimal(1).scaleb(-scale)
        context = Context(prec=precision)
        convert = int if scale == 0 else lambda text: Decimal(text).quantize(unit, context=context)
    else:  # an expression, or a number of any size
        convert = _integer_or_decimal

    def read_number(rows: Any, number: int) -> Any:
        value = rows.getBigDecimal(number)
        return None if value is None else convert(str(value.toPlainString()))

    return read_number


def _integer_or_decimal(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def _read(rows: Any, number: int) -> Any:
    return to_python(rows.getObject(number))


def to_python(value: Any) -> Any:
    """Return Python's value for one of Java's. An object of a driver's own class becomes its text."""
    return None if value is None else converter_of(type(value))(value)  # type: ignore[arg-type]  # hashable


@cache
def converter_of(java_type: type) -> Callable[[Any], Any]:
    """Return the function that makes Python's value from an object of a class of Java's.

    :param java_type: JPype's class.
    """
    for names, convert in CONVERTERS.items():
        if any(issubclass(java_type, java_class(name)) for name in names.split()):
            return convert
    return bytes if issubclass(java_type, jpype.JArray(jpype.JByte)) else str


def _iso(kind: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        try:
            return kind.fromisoformat(str(value))
        except ValueError as error:
            raise DataError(f"Python has no {kind.__name__} {value}") from error

    return convert


#: Functions by the classes of java.* that they take.
CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "java.lang.String": str,
    "java.lang.Boolean": bool,
    "java.lang.Byte java.lang.Short java.lang.Integer java.lang.Long": int,
    "java.lang.Float java.lang.Double": float,
    "java.math.BigInteger": lambda value: int(str(value)),
    "java.math.BigDecimal": lambda value: Decimal(str(value)),
    "java.time.LocalDateTime java.time.OffsetDateTime": _iso(datetime),
    "java.time.LocalDate": _iso(date),
    "java.time.LocalTime java.time.OffsetTime": _iso(time),
    "java.sql.Timestamp": lambda value: _iso(datetime)(value.toLocalDateTime()),
    "java.sql.Date": lambda value: _iso(date)(value.toLocalDate()),
    "java.sql.Time": lambda value: _iso(time)(value.toLocalTime()),
    "java.util.UUID": lambda value: UUID(str(value)),
    "java.sql.Clob": lambda value: str(value.getSubString(1, int(value.length()))),
    "java.sql.Blob": lambda value: bytes(value.getBytes(1, int(value.length()))),
    "java.sql.SQLXML": lambda value: str(value.getString()),
    "java.sql.Array": lambda value: [to_python(each) for each in value.getArray()],
}
