"""mysqlclient: the guarded connection."""

from __future__ import annotations

import os
import select
import sys
import time
import weakref
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import MySQLdb
from MySQLdb.connections import Connection
from MySQLdb.converters import conversions

from poollife.drivers.atfork import address, at_fork
from poollife.drivers.connection import IDLE, Guarded, guarded, leaving
from poollife.drivers.connection import unwrap as connection_of
from poollife.drivers.cursors import LeasedCursor, leased
from poollife.drivers.guard import Guard, WeakRegistry, getpid
from poollife.drivers.statements import leaves_nothing

if not hasattr(MySQLdb, "_mysql"):
    raise ImportError(
        f"poollife guards mysqlclient's connections; here MySQLdb is something else ({MySQLdb.__file__}). "
        f"Install mysqlclient, or leave out what takes its name (pymysql.install_as_MySQLdb())."
    )

#: Server errors after which the session is gone: 1053 shutdown, 1152 aborted, 1153 packet too large,
#: 1159-1161 network, 1927 killed (MariaDB), 3169 killed (MySQL), 4031 idle for too long.
LOST_SESSION = {1053, 1152, 1153, 1159, 1160, 1161, 1927, 3169, 4031}
#: No session can be opened: nobody listens, or is found.
UNREACHABLE = {2002, 2003, 2004, 2005}
#: This one could not: 1053 shutdown, 2006, 2012, 2013 and 2055 the server went away, or never said anything.
CUT_OFF = {1053, 2006, 2012, 2013, 2055}
#: Refused because the server is read-only: 1290 an option, 1792 the transaction, 1836 the whole server.
READ_ONLY = {1290, 1792, 1836}

#: Python's names of character sets in which each byte of ASCII is that character, here and at the server: not
#: so in Shift JIS, where Python writes a yen sign as a backslash.
PLAIN_ENCODINGS = {"ascii", "cp1252", "utf8"}

#: Parameters that name files with more parameters in them.
DEFAULTS_FILES = {"read_default_file", "read_default_group"}
#: What a change of user does not end: a distributed transaction (this only fails in one, so that the session
#: is closed), a role, and what FOUND_ROWS() says.
FORGET = ("ROLLBACK", "SET ROLE NONE", "SELECT 1")

#: Where the client libraries of the distributions look for a server on this machine.
DEFAULT_SOCKETS = {
    os.environ.get("MYSQL_UNIX_PORT"),
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
}


class ReadingCursor(LeasedCursor):
    """Reads what it runs before the driver puts parameters in: these may look like anything."""

    def _read_and_run(self, method: Callable[..., Any], query: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        driver = self._driver
        # Nothing from outside can strike at the two assignments: no call stands between them and their block.
        outer, driver.reader = driver.reader, self
        try:
            if outer is not self:  # executemany() may call execute()
                driver.note_statement(query, (args[0] if args else kwargs.get("args")) is not None)
            return method(query, *args, **kwargs)
        finally:
            driver.reader = outer

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._read_and_run(super().execute, *args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._read_and_run(super().executemany, *args, **kwargs)


def changing(method: Callable[..., Any]) -> Any:
    """A method of a dictionary's that changes it."""

    @wraps(method)
    def call(self: Converters, *args: Any, **kwargs: Any) -> Any:
        self.changed = True
        return method(self, *args, **kwargs)

    return call


class Converters(dict[Any, Any]):
    """What the driver makes of parameters, or of what comes back; knows whether somebody has changed that."""

    changed = False

    __setitem__ = changing(dict.__setitem__)
    __delitem__ = changing(dict.__delitem__)
    __ior__ = changing(dict.__ior__)
    clear = changing(dict.clear)
    pop = changing(dict.pop)
    popitem = changing(dict.popitem)
    setdefault = changing(dict.setdefault)
    update = changing(dict.update)


@cache
def class_for(cursor_class: type, makes_literals: bool) -> type:
    """What a lease's cursors of that class are: one of somebody's own may send other than it was told to."""
    own = any(each.__module__ not in ("MySQLdb.cursors", "builtins") for each in cursor_class.__mro__)
    return leased(cursor_class, LeasedCursor if own or not makes_literals else ReadingCursor)


class GuardedConnection(Guarded, Connection):  # type: ignore[misc]  # mysqlclient is not typed
    """A connection that works only in the process that opened it, and knows whether it may be reused.

    Made by ``adopt()`` from what ``MySQLdb.connect`` returned, by assigning its class: so ``connect`` is
    called as Django calls it, and whoever has wrapped it (APM tools do) sees every connection.
    """

    #: Why it can't be reused, if so.
    broken: str | None
    #: Whether a query was sent and its answer was not read yet, which the C client does not know.
    in_flight: bool
    #: The state of autocommit to come back to.
    autocommit_at_rest: bool
    #: What ``connect`` was called with.
    params: dict[str, Any]
    #: The character set to come back to.
    charset: str
    #: Whether the driver makes one literal of each parameter, as nobody's converters do anything else.
    makes_literals: bool
    #: Whether a text's characters are the server's, whatever they are; else only those of ASCII.
    reads_all_text: bool
    #: The driver's: what it makes of parameters, and of what comes back.
    encoders: Any
    converter: Any
    #: The driver's side of a clean session.
    settings_at_rest: tuple[Any, ...]
    #: The cursor that is running something, having read it.
    reader: ReadingCursor | None
    poller: select.poll

    commit = guarded(Connection.commit)
    rollback = guarded(Connection.rollback)
    autocommit = guarded(Connection.autocommit)
    ping = guarded(Connection.ping)
    store_result = guarded(Connection.store_result)
    discard_result = guarded(Connection.discard_result)
    select_db = guarded(leaving(Connection.select_db))
    set_character_set = guarded(leaving(Connection.set_character_set))
    kill = guarded(Connection.kill)
    shutdown = guarded(Connection.shutdown)
    stat = guarded(Connection.stat)
    dump_debug_info = guarded(Connection.dump_debug_info)
    use_result = guarded(Connection.use_result)

    @guarded
    def query(self, query: bytes | str) -> None:
        self._note_sent(query)
        super().query(query)

    @guarded
    def send_query(self, query: bytes | str) -> None:
        self._note_sent(query)
        self.in_flight = True
        super().send_query(query)

    @guarded
    def read_query_result(self) -> None:
        super().read_query_result()
        self.in_flight = False

    @guarded
    def change_user(self, *args: Any, **kwargs: Any) -> None:
        self.broken = "it was given to another user"
        super().change_user(*args, **kwargs)

    @guarded
    def set_server_option(self, option: int) -> None:
        self.broken = "an option of its protocol was set"
        super().set_server_option(option)

    @guarded
    def next_result(self) -> int:
        status: int = super().next_result()
        if status != -1:
            # Several statements in one string, or a procedure.
            self.dirty = True
        return status

    def cursor(self, cursorclass: type | None = None) -> Any:
        self.check_process()
        if self.idle:
            raise self.InterfaceError(IDLE)
        cursorclass = cursorclass or self.cursorclass
        # Nobody's yet while it is being opened: listeners of SQLAlchemy's may query then.
        return (class_for(cursorclass, self.makes_literals) if self.lease else cursorclass)(self)

    def close(self) -> None:
        """End the session; in a foreign process only let go of it."""
        if self.guard.pid != getpid():
            self.abandon()
            return
        try:
            if self.open:
                super().close()
        finally:
            # Not before: a fork may come in the middle of the goodbye.
            live.remove(self)

    def note_failure(self, error: BaseException) -> None:
        """Decide whether the session is still in a known state after this."""
        if not (isinstance(error, MySQLdb.MySQLError) and is_answer(error)):
            self.broken = f"{type(error).__name__}: {error}"
            self.lost = isinstance(error, MySQLdb.MySQLError)
        elif is_read_only(error):
            self.failed_over = True

    def _note_sent(self, query: bytes | str) -> None:
        # The driver sends text as UTF-8, whatever the session's character set.
        if self.reader is None:
            self.note_statement(query.encode(errors="replace") if isinstance(query, str) else query)

    def note_statement(self, statement: object, is_template: bool = False) -> None:
        """Its holder runs this; see ``leaves_nothing``."""
        if not (self.dirty or (leaves_nothing(statement, is_template) and self._says_that(statement))):
            self.dirty = True

    def _says_that(self, statement: Any) -> bool:
        """Whether the server reads what was read here."""
        return self.reads_all_text or bool(statement.isascii())

    @property
    def begun(self) -> bool:
        """Whether autocommit was set by the driver's own method. A BEGIN makes it dirty."""
        return bool(self.open and self.get_autocommit() != self.autocommit_at_rest)

    def at_rest(self) -> None:
        """Take the present state as that of a clean session: it was just initialised."""
        self.dirty = False
        self.autocommit_at_rest = self.get_autocommit()
        self.encoders = Converters(self.encoders)
        self.converter = Converters(self.converter)
        self.makes_literals = all(conversions.get(kind) is make for kind, make in self.encoders.items())
        self.reads_all_text = self.encoding in PLAIN_ENCODINGS
        self.settings_at_rest = self.cursorclass, self.encoding, self.encoders, self.converter

    def unfit(self) -> str | None:
        """Why this connection can't be reused, if so. Sends nothing."""
        if self.broken:
            return self.broken
        if not self.open:
            return "closed by its borrower"
        cursorclass, encoding, encoders, converter = self.settings_at_rest
        if (
            self.cursorclass is not cursorclass
            or (self.encoding != encoding and not self.dirty)  # else it is the session's, which is reset
            or self.encoders is not encoders
            or self.converter is not converter
            or encoders.changed
            or converter.changed
        ):
            return "its driver was set otherwise by its borrower"
        return "results left unread" if self._has_unread() else None

    def clean(self) -> None:
        """Leave no transaction for the next borrower. Sends something only where one may be open."""
        autocommit = self.get_autocommit()
        if self.dirty or not autocommit:
            super().rollback()
            self.dirty = False
        if autocommit != self.autocommit_at_rest:
            super().autocommit(self.autocommit_at_rest)

    def reset(self) -> None:
        """Have the server forget all, and repeat what ``connect`` did: three round trips at least."""
        params = self.params
        if "user" not in params or DEFAULTS_FILES & params.keys():
            raise MySQLdb.NotSupportedError("what a new session begins with is not in its parameters")
        for batch in ["; ".join(FORGET)] if params.get("multi_statements", True) else FORGET:
            self._send(batch)
        password = params.get("password", params.get("passwd", ""))
        database = params.get("database", params.get("db", ""))
        super().change_user(params["user"], password, database)
        if command := params.get("init_command"):
            self._send(command)
        super().set_character_set(self.charset)
        if collation := params.get("collation"):
            self._send(f"SET NAMES {self.charset} COLLATE {collation}")
        if sql_mode := params.get("sql_mode"):
            self._send(f"SET SESSION sql_mode='{sql_mode}'")

    def _send(self, sql: str) -> None:
        """Run it, and throw away its results."""
        super().query(sql)
        super().discard_result()
        while super().next_result() != -1:
            super().discard_result()

    def closed_by_server(self) -> bool:
        """Whether something waits in this idle connection's socket: a goodbye, or what nobody has read.

        Sends nothing, and can't see a network that silently drops packets.
        """
        return bool(self.poller.poll(0))

    def answers(self) -> bool:
        """Ask the server: one round trip."""
        self.check_process()
        try:
            super().ping()
        except MySQLdb.Error:
            return False
        return True

    def _has_unread(self) -> bool:
        """Whether a result, or a part of one, was left behind. Sends nothing."""
        # more_results() is new in mysqlclient 2.3. Without it, next_result() waits for the head of a further
        # result; where all was read it says so at once, and in the middle of a result the C client refuses.
        if self.in_flight or more_results(self):
            return True
        try:
            return bool(next_result(self) != -1)
        except MySQLdb.Error:
            return True


def is_answer(error: MySQLdb.MySQLError) -> bool:
    """Whether the server sent this error, which leaves the protocol in step."""
    # 2000 to 2999 are the client library's own.
    code = error.args[0] if error.args else None
    return isinstance(code, int) and not 2000 <= code < 3000 and code not in LOST_SESSION


def kernels_poll() -> select.poll:
    """The kernel's own: gevent's would let other greenlets run, in the middle of a checkout."""
    monkey = sys.modules.get("gevent.monkey")
    poll: type[select.poll] = monkey.get_original("select", "poll") if monkey else select.poll
    return poll()


def is_read_only(error: MySQLdb.MySQLError) -> bool:
    """Whether the server refused to write, as one does from which the primary's role was taken."""
    # 1290 names the option, which may be another one (--secure-file-priv).
    code, message = (*error.args, "", "")[:2]
    return code in READ_ONLY and (code != 1290 or "read-only" in str(message).replace("_", "-"))


def adopt(connection: Any, pid: int, params: dict[str, Any]) -> Any:
    """See ``Driver.adopt``."""
    driver = unwrap(connection)
    driver.params = params
    driver.charset = params.get("charset") or driver.character_set_name()
    driver.guard = Guard(pid, driver.fileno())
    driver.lease = driver.broken = driver.reader = None
    driver.idle = driver.in_flight = False
    driver.cursors = weakref.WeakSet()
    driver.born = driver.idle_since = time.monotonic()
    driver.poller = kernels_poll()
    driver.poller.register(driver.guard.fd, select.POLLIN)
    driver.__class__ = GuardedConnection
    driver.at_rest()
    live.add(driver)
    return connection


def unwrap(connection: Any) -> Any:
    """See ``Driver.unwrap``."""
    # The usual case, asked twice in each checkout.
    return connection if type(connection) is GuardedConnection else connection_of(connection, Connection)


def peers(params: dict[str, Any]) -> set[Any]:
    """See ``Driver.peers``. Servers named in a read_default_file only are not known here."""
    if params.get("unix_socket"):
        return {params["unix_socket"]}
    host, port = params.get("host"), params.get("port", 3306)
    if host in (None, "", "localhost"):
        return {address("127.0.0.1", port), address("::1", port), *DEFAULT_SOCKETS}
    return {address(host, port)}


def idle_limit(connection: GuardedConnection) -> int:
    """Seconds after which the server ends an idle session."""
    connection.query(b"SELECT @@wait_timeout")
    return int(connection.store_result().fetch_row()[0][0])


def unreachable(error: Exception) -> bool | None:
    """See ``Driver.unreachable``."""
    code = error.args[0] if isinstance(error, MySQLdb.MySQLError) and error.args else None
    return None if code in CUT_OFF else code in UNREACHABLE


class _Inherited:
    """What this driver gives up in a child."""

    def settle(self) -> None:
        """Handshakes are waited for by the gate; all else can be forked in the middle."""

    def hold(self) -> list[GuardedConnection]:
        return live.hold()

    def abandon(self, held: list[GuardedConnection]) -> None:
        for connection in held:
            connection.abandon()
        live.forget()


#: The driver's own, for the pool.
next_result = Connection.next_result
more_results = getattr(Connection, "more_results", lambda connection: False)
live: WeakRegistry[GuardedConnection] = WeakRegistry()
at_fork.join(_Inherited())
