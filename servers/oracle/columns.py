"""The columns of an answer: their types, by those that SQLite's tables declare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from servers.oracle import wire

_TYPE = re.compile(r"(\w+)(?:[\s\w]*\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?\))?")


class Column(NamedTuple):
    """A column of an answer."""

    name: str
    data_type: int
    precision: int = 0
    scale: int = 0
    size: int = 0
    #: The form of its character set.
    form: int = 0


def column_of(name: str, declared: str) -> Column:
    """Return a column by the type with which its table declares it; without one, its type is 0."""
    found = _TYPE.match(declared.upper())
    if not found:
        return Column(name, 0)
    word, first, second = found[1], int(found[2] or 0), int(found[3] or 0)
    if word in ("NUMBER", "NUM") or (word.startswith("INT") and word != "INTERVAL"):
        precision, scale = (38, 0) if word.startswith("INT") else (first, second) if first else (0, -127)
        return Column(name, wire.NUMBER, precision, scale, 22)
    if word in ("FLOAT", "DOUBLE", "REAL"):
        return Column(name, wire.NUMBER, 126, -127, 22)
    if word in ("NVARCHAR2", "NCHAR"):
        return Column(name, wire.VARCHAR, 0, 0, first or 2000, wire.NATIONAL)
    if word in ("VARCHAR2", "VARCHAR", "CHAR", "TEXT"):
        return Column(name, wire.VARCHAR, 0, 0, first or 4000, wire.PLAIN)
    if word in ("NCLOB", "CLOB"):
        return Column(name, wire.CLOB, 0, 0, 4000, wire.NATIONAL if word == "NCLOB" else wire.PLAIN)
    types = {"BLOB": wire.BLOB, "RAW": wire.RAW, "DATE": wire.DATE, "TIMESTAMP": wire.TIMESTAMP}
    types |= {"INTERVAL": wire.INTERVAL_DS, "BINARY_DOUBLE": wire.BINARY_DOUBLE}
    return Column(name, types.get(word, 0), 0, 0, first or 4000)


def column_of_values(name: str, values: Iterator[Any]) -> Column:
    """Return a column by its first value that is no NULL."""
    value = next((each for each in values if each is not None), None)
    if isinstance(value, int | float):
        return Column(name, wire.NUMBER, 0, -127, 22)
    if isinstance(value, bytes):
        return Column(name, wire.RAW, 0, 0, 2000)
    return Column(name, wire.VARCHAR, 0, 0, 4000, wire.PLAIN)


def stored(value: Any) -> Any:
    """Return what SQLite keeps for a value of the wire's. Texts of times sort as the times do."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value // timedelta(microseconds=1) if isinstance(value, timedelta) else value
