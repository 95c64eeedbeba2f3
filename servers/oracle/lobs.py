"""LOBs of one session: a client reads and writes them by their locators."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from servers.oracle import wire
from servers.oracle.columns import Column
from servers.oracle.wire import Reader, Writer

#: The size of a locator, a place in it, and the flag there: a LOB that its client frees.
LOCATOR = 40
FLAGS, TEMPORARY = 7, 0x01
_NUMBER = slice(8, 12)
#: Operations.
LENGTH, READ, TRIM, WRITE, CREATE, CHUNK_SIZE = 0x01, 0x02, 0x20, 0x40, 0x110, 0x4000
#: What a LOB has as its best size to write.
CHUNK = 8060
LOB_DATA, PARAMETERS = 14, 8


@dataclass
class Lob:
    """The content of a LOB, and the form of its character set."""

    content: Any
    form: int = 0

    def decoded(self, data: bytes) -> Any:
        """Return data from the wire as a part of the content."""
        return data if isinstance(self.content, bytes) else data.decode(wire.ENCODINGS[self.form])

    def encoded(self, part: Any) -> bytes:
        """Return a part of the content for the wire."""
        return bytes(part) if isinstance(part, bytes) else str(part).encode(wire.ENCODINGS[self.form])


class Lobs:
    """The LOBs of one session, by their numbers."""

    def __init__(self) -> None:
        self._found: dict[int, Lob] = {}
        self._last = 0
        #: The bytes behind the answer to CREATE. python-oracledb before 3.1 skips three of them.
        self.bytes_behind_create = 1

    def content(self, locator: bytes) -> Any:
        """Return the content of a LOB."""
        return self._found[_number(locator)].content

    def free(self, locator: bytes) -> None:
        """Forget a LOB."""
        self._found.pop(_number(locator), None)

    def locator(self, content: Any, column: Column, flags: int = 0) -> bytes:
        """Return the locator of a new LOB."""
        self._last += 1
        self._found[self._last] = Lob(content, column.form)
        found = bytearray(LOCATOR)
        found[_NUMBER] = struct.pack(">I", self._last)
        found[FLAGS] = flags
        return bytes(found)

    def operate(self, reader: Reader) -> tuple[str, bytes]:
        """Carry out what a client asks; return its name for the log, and the answer."""
        reader.byte()
        size = reader.number()
        reader.skip("bnnnbbb")
        operation = reader.number()
        reader.skip("bb")
        offset, data_type = reader.number(), reader.number()
        has_amount = reader.byte()
        reader.take(6)
        locator = reader.take(size)
        message = Writer()
        if operation == CREATE:
            reader.number()
            empty = b"" if data_type == wire.BLOB else ""
            locator = self.locator(empty, Column("", data_type, form=offset), TEMPORARY)
            return "lob create", bytes(
                message.small(PARAMETERS).raw(locator).numbers(873).raw(bytes(self.bytes_behind_create)).data
            )
        lob = self._found[_number(locator)]
        data = b""
        if operation == WRITE:
            reader.byte()
            data = reader.value() or b""
        amount = reader.number() if has_amount else 0
        start = max(offset - 1, 0)
        if operation == WRITE:
            part = lob.decoded(data)
            lob.content = lob.content[:start] + part + lob.content[start + len(part) :]
        elif operation == READ:
            part = lob.content[start : start + amount]
            amount = len(part)
            message.small(LOB_DATA).value(lob.encoded(part))
        elif operation == TRIM:
            lob.content = lob.content[:amount]
        else:
            amount = CHUNK if operation == CHUNK_SIZE else len(lob.content)
        message.small(PARAMETERS).raw(locator)
        if has_amount:
            message.numbers(amount)
        names = {READ: "lob read", WRITE: "lob write"}
        return names.get(operation, f"lob {operation:#x}"), bytes(message.data)


def _number(locator: bytes) -> int:
    return int(struct.unpack(">I", locator[_NUMBER])[0])
