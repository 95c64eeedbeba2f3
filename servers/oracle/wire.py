"""The encoding of values in Oracle's TTC protocol, as python-oracledb in thin mode writes and reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

#: The first byte of a value in pieces: each piece has its length before it, and the last length is 0.
IN_PIECES = 254
#: The longest value with its length in one byte, and the longest piece.
LONGEST_SHORT, LONGEST_PIECE = 252, 32767
#: The numbers of data types.
VARCHAR, NUMBER, DATE, RAW, CHAR, BINARY_DOUBLE = 1, 2, 12, 23, 96, 101
CLOB, BLOB, TIMESTAMP, TIMESTAMP_TZ, INTERVAL_DS, TIMESTAMP_LTZ = 112, 113, 180, 181, 183, 231
LONG, BINARY_INTEGER = 8, 3
TEXTS = {VARCHAR, CHAR, LONG}
DATES = {DATE, TIMESTAMP, TIMESTAMP_TZ, TIMESTAMP_LTZ}
LOBS = {CLOB, BLOB}
#: The forms of character sets: the database's, which is UTF-8, and the national one, which is UTF-16.
PLAIN, NATIONAL = 1, 2
ENCODINGS = {0: "utf-8", PLAIN: "utf-8", NATIONAL: "utf-16-be"}


class Reader:
    """Reads the parts of a message, and asks for another packet when there is no more."""

    def __init__(self, data: bytes, more: Callable[[], bytes]) -> None:
        """
        :param data: the first packet's.
        :param more: returns the data of the next packet.
        """
        self._data = bytearray(data)
        self._more = more

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        while len(self._data) < size:
            self._data += self._more()
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def byte(self) -> int:
        """Return an integer of one byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Return an integer that has its length before it."""
        length = self.byte()
        value = int.from_bytes(self.take(length & 0x7F))
        return -value if length & 0x80 else value

    def skip(self, kinds: str) -> None:
        """Skip integers.

        :param kinds: a letter for each: "b" for one of a byte, "n" for one with a length.
        """
        for kind in kinds:
            self.byte() if kind == "b" else self.number()

    def value(self) -> bytes | None:
        """Return bytes that have their length before them; None for an empty value, which is a NULL."""
        length = self.byte()
        if length in (0, 255):
            return None
        if length != IN_PIECES:
            return self.take(length)
        pieces = []
        while size := self.number():
            pieces.append(self.take(size))
        return b"".join(pieces)

    def value_after_size(self) -> bytes:
        """Return bytes that have their size, and then their length again, before them."""
        return (self.value() or b"") if self.number() else b""


class Writer:
    """Writes the parts of a message."""

    def __init__(self) -> None:
        self.data = bytearray()

    def raw(self, data: bytes) -> Writer:
        """Add bytes as they are."""
        self.data += data
        return self

    def small(self, *values: int) -> Writer:
        """Add integers of one byte."""
        return self.raw(bytes(values))

    def numbers(self, *values: int) -> Writer:
        """Add integers with their lengths."""
        for value in values:
            size = next(size for size in (0, 1, 2, 4, 8) if abs(value) < 1 << (8 * size))
            self.small(size | (0x80 if value < 0 else 0)).raw(abs(value).to_bytes(size))
        return self

    def value(self, value: bytes | None) -> Writer:
        """Add bytes with their length; None and no bytes are a NULL."""
        if not value:
            return self.small(0)
        if len(value) <= LONGEST_SHORT:
            return self.small(len(value)).raw(value)
        self.small(IN_PIECES)
        for start in range(0, len(value), LONGEST_PIECE):
            piece = value[start : start + LONGEST_PIECE]
            self.numbers(len(piece)).raw(piece)
        return self.numbers(0)

    def value_after_size(self, value: bytes | str) -> Writer:
        """Add bytes with their size and their length before them."""
        data = value.encode() if isinstance(value, str) else value
        self.numbers(len(data))
        return self.value(data) if data else self


def encode_number(value: int | float | Decimal | str) -> bytes:
    """Return a NUMBER: an exponent of 100, and digits of base 100, each with one added to it."""
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number:
        return b"\x80"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    if exponent % 2:
        text, exponent = text + "0", exponent - 1
    text = text.zfill(len(text) + len(text) % 2)
    pairs = [int(text[at : at + 2]) for at in range(0, len(text), 2)]
    while pairs[0] == 0:
        del pairs[0]
    power = exponent // 2 + len(pairs) - 1
    while pairs[-1] == 0:
        del pairs[-1]
    if sign:
        return bytes([~(power + 193) & 0xFF, *(101 - pair for pair in pairs), 102])
    return bytes([power + 193, *(pair + 1 for pair in pairs)])


def decode_number(data: bytes) -> int | float:
    """Return the value of a NUMBER. A float is exact enough for what the tests keep."""
    if data == b"\x80":
        return 0
    positive = bool(data[0] & 0x80)
    power = (data[0] if positive else ~data[0] & 0xFF) - 193
    rest = data[1:] if positive or data[-1] != 102 else data[1:-1]
    pairs = [byte - 1 if positive else 101 - byte for byte in rest]
    value = Decimal(int("".join(f"{pair:02}" for pair in pairs))).scaleb(2 * (power - len(pairs) + 1))
    value = value if positive else -value
    return int(value) if value == value.to_integral_value() else float(value)


def encode_date(value: datetime, data_type: int) -> bytes:
    """Return a DATE or a TIMESTAMP."""
    century, year = divmod(value.year, 100)
    found = bytes([century + 100, year + 100, value.month, value.day])
    found += bytes([value.hour + 1, value.minute + 1, value.second + 1])
    if data_type == DATE:
        return found
    found += struct.pack(">I", value.microsecond * 1000)
    return found + bytes([20, 60]) if data_type == TIMESTAMP_TZ else found


def decode_date(data: bytes) -> datetime:
    """Return the value of a DATE or a TIMESTAMP, without its time zone."""
    year = (data[0] - 100) * 100 + data[1] - 100
    micros = struct.unpack(">I", data[7:11])[0] // 1000 if len(data) >= 11 else 0
    return datetime(year, data[2], data[3], data[4] - 1, data[5] - 1, data[6] - 1, micros)


def encode_interval(value: timedelta) -> bytes:
    """Return an INTERVAL DAY TO SECOND. All its parts have the same sign."""
    micros = value // timedelta(microseconds=1)
    sign = -1 if micros < 0 else 1
    seconds, rest = divmod(abs(micros), 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    parts = bytes(sign * part + 60 for part in (hours, minutes, seconds))
    return struct.pack(">I", sign * days + 2**31) + parts + struct.pack(">I", sign * rest * 1000 + 2**31)


def decode_interval(data: bytes) -> timedelta:
    """Return the value of an INTERVAL DAY TO SECOND."""
    days, nanos = (struct.unpack(">I", data[at : at + 4])[0] - 2**31 for at in (0, 7))
    hours, minutes, seconds = (byte - 60 for byte in data[4:7])
    return timedelta(days, seconds, nanos // 1000, 0, minutes, hours)


def encode_double(value: float) -> bytes:
    """Return a BINARY_DOUBLE, whose bits are turned so that its bytes sort as its values do."""
    bits = struct.unpack(">Q", struct.pack(">d", value))[0]
    bits = bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    return struct.pack(">Q", bits)


def decode_double(data: bytes) -> float:
    """Return the value of a BINARY_DOUBLE."""
    bits = struct.unpack(">Q", data)[0]
    bits = bits & ~(1 << 63) if bits >> 63 else bits ^ 0xFFFFFFFFFFFFFFFF
    value: float = struct.unpack(">d", struct.pack(">Q", bits))[0]
    return value
