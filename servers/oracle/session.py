"""The connection of a client: its logon, its calls, and the answers of the stand-in."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial

from servers.oracle import messages, tns
from servers.oracle.columns import stored
from servers.oracle.contract import Cursor, Owner
from servers.oracle.database import Handle, OracleError
from servers.oracle.lobs import LOCATOR, Lobs
from servers.oracle.logon import VERIFIER, Logon
from servers.oracle.messages import Execution
from servers.oracle.tns import Broken, Gone
from servers.oracle.wire import Reader, Writer

#: The numbers of functions.
REEXECUTE, FETCH, LOGOFF, COMMIT, ROLLBACK, REEXECUTE_AND_FETCH, EXECUTE, LOB = 4, 5, 9, 14, 15, 78, 94, 96
CLOSE_CURSORS, LOGON_2, LOGON_1, SET_ATTRIBUTES, PING, SET_SCHEMA = 105, 115, 118, 135, 147, 152
#: 19.0.0.0.0, as Oracle 12.1 numbers versions.
VERSION = 19 << 24


class Session:
    """The connection of a client. A thread runs it."""

    def __init__(self, listener: Owner, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        """
        :param context: for TLS; None: there is none.
        """
        self._listener = listener
        self.number = 0
        self.user = self.database = ""
        #: What it does now, for the list of sessions.
        self.doing = "idle"
        self.statement = ""
        self.killed = False
        #: An error that answers the next call: its number and its text.
        self.next_error: tuple[int, str] | None = None
        self._socket, self._context = connection, context
        #: The session's data; None before the logon.
        self._handle: Handle | None = None
        self._cursors: dict[int, Cursor] = {}
        self._last_cursor = 0
        self._lobs = Lobs()

    # --- its life ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve the client until it is gone."""
        end = "gone"
        try:
            if self._context:
                self._socket = self._context.wrap_socket(self._socket, server_side=True)
            self._line = tns.Line(self._socket)
            if self._greet():
                self._negotiate()
                while True:
                    self._serve()
        except (Gone, OSError, ssl.SSLError) as error:
            end = "closed" if "closed by" in str(error) else "gone"
        finally:
            if self.number:
                self._listener.log(self.number, end)
            self._listener.leave(self)
            if self._handle:
                self._handle.close()
            self._socket.close()

    def kill(self) -> None:
        """End the session, as ALTER SYSTEM DISCONNECT SESSION IMMEDIATE does."""
        self.killed = True
        self._socket.shutdown(socket.SHUT_RDWR)

    def _greet(self) -> bool:
        """Answer the first packet, and return whether the connection was accepted."""
        _, body = self._line.packet()
        length, offset = struct.unpack(">HH", body[16:20])
        text = body[offset - 8 :] if length <= 230 else self._line.packet()[1][2:]
        found = re.search(rb"\((?:SID|SERVICE_NAME)=([^)]*)\)", text)
        self.database = found[1].decode() if found else ""
        if self.database not in self._listener.store.databases:
            self._line.refuse(12505 if found and found[0].startswith(b"(SID") else 12514)
        elif self._listener.is_full():
            self._line.refuse(12516)
        else:
            self._line.accept()
            return True
        return False

    def _negotiate(self) -> None:
        self._message()  # the protocol
        capabilities = bytearray(60)
        capabilities[7] = messages.FIELD_VERSION
        answer = Writer().small(messages.PROTOCOL, 6, 0).raw(b"stand-in\0").raw(struct.pack("<H", 873))
        answer.small(0).raw(struct.pack("<H", 0))
        answer.raw(struct.pack(">H", 11)).raw(bytes(9)).raw(struct.pack(">H", 2000))
        answer.value(bytes(capabilities)).value(bytes([0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        self._line.answer(bytes(answer.data))
        self._message()  # the types of data
        self._line.answer(bytes([messages.DATA_TYPES, 0, 0]))

    def _message(self) -> Reader:
        return Reader(self._line.data(), self._line.data)

    def look(self) -> None:
        """Look, in the middle of a call, whether it has to end.

        :raises Gone: if the session was killed.
        :raises Broken: if the client interrupts its call.
        """
        if self.killed:
            raise Gone("killed")
        if self._line.has_packet(0):
            self._line.data()

    # --- calls ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            reader = self._message()
            while (kind := reader.byte()) == messages.PIGGYBACK:
                self._piggyback(reader)
            assert kind == messages.FUNCTION, kind
            function = reader.byte()
            reader.byte()
            try:
                if function not in (LOGON_1, LOGON_2, LOGOFF) and (error := self.next_error):
                    self.next_error = None
                    raise OracleError(*error)
                self._line.answer(CALLS[function](self, reader))
            except OracleError as error:
                self._line.answer(self._error(error))
        except Broken:
            self._line.mark(tns.BREAK)
            self._line.reset()
            self._line.answer(self._error(OracleError(1013, "user requested cancel of current operation")))
        finally:
            self.doing = "idle"

    def _error(self, error: OracleError) -> bytes:
        return messages.error(self._status(), code=error.code, text=str(error))

    def _status(self) -> int:
        return messages.IN_TRANSACTION if self._handle and self._handle.in_transaction else 0

    def _note(self, call: str, text: str = "") -> None:
        self.doing, self.statement = "active", text or self.statement
        self._listener.log(self.number, call, text)

    @property
    def handle(self) -> Handle:
        """The session's data."""
        assert self._handle
        return self._handle

    def _piggyback(self, reader: Reader) -> None:
        function = reader.byte()
        reader.byte()
        if function == CLOSE_CURSORS:
            reader.byte()
            for _ in range(reader.number()):
                self._cursors.pop(reader.number(), None)
        elif function == LOB:
            reader.byte()
            size = reader.number()
            reader.skip("bnnnbbbnbnnnbbnbnbn")
            for _ in range(size // LOCATOR):
                self._lobs.free(reader.take(LOCATOR))
        elif function == SET_ATTRIBUTES:
            reader.skip("bbn")
            lengths = []
            for counts in (True, True, True, False, None, True, False, False, True):
                if counts is None:
                    reader.skip("bn")
                    continue
                has_value, length = reader.byte(), reader.number()
                if counts and has_value and length:
                    lengths.append(length)
            found = [(reader.value() or b"").decode() for _ in lengths]
            self._note("attributes", ", ".join(found))
        elif function == SET_SCHEMA:
            reader.byte()
            self._note("schema", reader.value_after_size().decode())
        else:
            raise Gone(f"a piggyback that the stand-in does not know: {function}")

    # --- logon ------------------------------------------------------------------------------------------

    def _pairs(self, reader: Reader) -> dict[str, str]:
        has_user = reader.byte()
        reader.skip("nnb")
        count = reader.number()
        reader.skip("bb")
        if has_user:
            self.user = (reader.value() or b"").decode().strip('"').upper()
        pairs = {}
        for _ in range(count):
            name, value = reader.value_after_size().decode(), reader.value_after_size().decode()
            reader.number()
            pairs[name] = value
        return pairs

    def logon_1(self, reader: Reader) -> bytes:
        """Answer the user's name."""
        self._pairs(reader)
        self._logon = Logon(self._listener.store.users.get(self.user, ""))
        return messages.parameters(self._logon.challenge(), {"AUTH_VFR_DATA": VERIFIER}) + messages.status(0)

    def logon_2(self, reader: Reader) -> bytes:
        """Answer the password."""
        given = self._pairs(reader)
        proof = self._logon.confirm(given)
        if found := re.search(r"python-oracledb thn : (\d+)\.(\d+)", given["SESSION_CLIENT_DRIVER_NAME"]):
            self._lobs.bytes_behind_create = 1 if (int(found[1]), int(found[2])) >= (3, 1) else 3
        if proof is None or self.user not in self._listener.store.users:
            self._listener.log(0, "refused", self.user)
            raise OracleError(1017, "invalid username/password; logon denied")
        self.number = self._listener.enter(self)
        self._handle = Handle(self._listener.store, self.database, self.user, self.number, self.look)
        self._note("logon", self.user)
        facts = {
            "AUTH_SVR_RESPONSE": proof,
            "AUTH_VERSION_NO": str(VERSION),
            "AUTH_SESSION_ID": str(self.number),
            "AUTH_SERIAL_NUM": "1",
            "AUTH_SC_DBUNIQUE_NAME": self.database,
            "AUTH_SC_REAL_DBUNIQUE_NAME": self.database,
            "AUTH_SC_SERVICE_NAME": self.database,
            "AUTH_INSTANCENAME": "stand-in",
            "AUTH_MAX_OPEN_CURSORS": "300",
            "AUTH_MAX_IDEN_LENGTH": "128",
        }
        return messages.parameters(facts, {}) + messages.status(0)

    def logoff(self, reader: Reader) -> bytes:
        """Roll back, before the client ends its session."""
        self._note("logoff")
        self.handle.rollback()
        return messages.status(0)

    # --- statements -------------------------------------------------------------------------------------

    def execute(self, reader: Reader) -> bytes:
        """Execute a statement, or note the types by which its columns are fetched."""
        request = messages.read_execution(reader)
        if request.options & messages.DEFINE:
            self._note("define", self._cursors[request.cursor].sql)
            return self._end(request.cursor)
        number = request.cursor
        if request.sql is not None:
            if not number:
                number = self._last_cursor = self._last_cursor + 1
            self._cursors[number] = Cursor(request.sql)
        cursor = self._cursors[number]
        cursor.binds = request.binds or []
        self._note("execute", cursor.sql)
        commits = bool(request.options & messages.COMMIT)
        return self._run(number, request, reader, commits, is_first=request.sql is not None)

    def reexecute(self, reader: Reader, fetch: bool = False) -> bytes:
        """Execute a statement again."""
        number, count = reader.number(), reader.number()
        reader.number()
        commits = bool(reader.number() & 1)
        cursor = self._cursors[number]
        self._note("reexecute", cursor.sql)
        request = Execution(rows_wanted=count, executions=1 if fetch else count, is_query=fetch)
        return self._run(number, request, reader, commits, is_first=False)

    def _run(self, number: int, request: Execution, reader: Reader, commits: bool, is_first: bool) -> bytes:
        cursor = self._cursors[number]
        outputs = self.handle.outputs(cursor.sql)
        inputs = cursor.binds[: len(cursor.binds) - outputs]
        values = []
        if inputs:
            values = [
                [stored(value) for value in messages.read_values(reader, inputs, self._lobs.content)]
                for _ in range(request.executions)
            ]
        try:
            answer = self.handle.execute(cursor.sql, values or [[]] * request.executions, commits)
        except OracleError as error:
            return messages.error(self._status(), number, code=error.code, text=str(error))
        if not request.is_query:
            message = b""
            if outputs:
                message += messages.bind_directions(len(inputs), outputs)
                for rows in answer.returned:
                    message += messages.returned(cursor.binds[len(inputs) :], rows, self._lobs.locator)
            return message + self._end(number, answer.count)
        message = b""
        if is_first or cursor.columns != answer.columns:
            message += messages.describe(answer.columns)
        cursor.columns, cursor.rows = answer.columns, answer.rows
        # Rows with LOBs are fetched after their columns were defined.
        if cursor.has_lobs:
            return message + self._end(number)
        return message + self._rows(number, request.rows_wanted)

    def fetch(self, reader: Reader) -> bytes:
        """Return more rows."""
        number, wanted = reader.number(), reader.number()
        self._note("fetch")
        return self._rows(number, wanted)

    def _rows(self, number: int, wanted: int) -> bytes:
        cursor = self._cursors[number]
        columns = cursor.columns or []
        rows, cursor.rows = cursor.rows[:wanted], cursor.rows[wanted:]
        message = messages.row_header() if rows else b""
        message += b"".join(messages.row(columns, row, self._lobs.locator) for row in rows)
        if cursor.rows or (wanted and len(rows) == wanted):
            return message + self._end(number, len(rows))
        status = self._status()
        return message + messages.error(
            status, number, len(rows), messages.NO_DATA_FOUND, "ORA-01403: no data found"
        )

    def _end(self, cursor: int, count: int = 0) -> bytes:
        return messages.error(self._status(), cursor, count)

    def commit(self, reader: Reader) -> bytes:
        """Commit."""
        self._note("commit")
        self.handle.commit()
        return messages.status(self._status())

    def rollback(self, reader: Reader) -> bytes:
        """Roll back."""
        self._note("rollback")
        self.handle.rollback()
        return messages.status(self._status())

    def ping(self, reader: Reader) -> bytes:
        """Answer."""
        self._note("ping")
        return messages.status(self._status())

    def lob(self, reader: Reader) -> bytes:
        """Read, write or make a LOB."""
        call, message = self._lobs.operate(reader)
        self._note(call)
        return message + messages.status(self._status())


#: What answers a function.
CALLS: dict[int, Callable[[Session, Reader], bytes]] = {
    LOGON_1: Session.logon_1,
    LOGON_2: Session.logon_2,
    LOGOFF: Session.logoff,
    EXECUTE: Session.execute,
    REEXECUTE: Session.reexecute,
    REEXECUTE_AND_FETCH: partial(Session.reexecute, fetch=True),
    FETCH: Session.fetch,
    COMMIT: Session.commit,
    ROLLBACK: Session.rollback,
    PING: Session.ping,
    LOB: Session.lob,
}
