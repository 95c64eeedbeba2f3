"""What MySQL's and MariaDB's drivers have in common."""

from __future__ import annotations

import os
import select
import sys
import time
import weakref
from collections.abc import Callable
from functools import wraps
from operator import attrgetter, is_
from typing import Any

from poollife.drivers.atfork import address, at_fork
from poollife.drivers.connection import Guarded
from poollife.drivers.cursors import LeasedCursor
from poollife.drivers.effects import (
    CHECKED,
    INSERT_ID,
    LAST_STATEMENT,
    LEAVES,
    MAY_SET_INSERT_ID,
    MESSAGES,
    SETS,
    UNKNOWN,
)
from poollife.drivers.guard import Guard, WeakRegistry, getpid
from poollife.drivers.statements import EFFECTS
from poollife.drivers.telling import told_by

#: Server errors after which the session is gone: 1053 shutdown, 1152 aborted, 1153 packet too large,
#: 1159-1161 network, 1927 killed (MariaDB), 3169 killed (MySQL), 4031 idle for too long.
LOST_SESSION = {1053, 1152, 1153, 1159, 1160, 1161, 1927, 3169, 4031}
#: No session can be opened: nobody listens, or is found.
UNREACHABLE = {2002, 2003, 2004, 2005}
#: This one could not: 1053 shutdown, 2006, 2012, 2013 and 2055 the server went away, or never said anything;
#: over TLS libmariadb calls that 2026, like all that goes wrong there.
CUT_OFF = {1053, 2006, 2012, 2013, 2026, 2055}
#: Refused because the server is read-only: 1290 an option, 1792 the transaction, 1836 the whole server.
READ_ONLY = {1290, 1792, 1836}

#: As the C client says it.
LOST = (2013, "Lost connection to server during query")
#: The least that a server can be asked.
QUESTION = b"DO 1"

#: Python's names of character sets in which each byte of ASCII is that character, here and at the server: not
#: so in Shift JIS, where Python writes a yen sign as a backslash.
PLAIN_ENCODINGS = {"ascii", "cp1252", "utf8"}

#: Where the client libraries of the distributions look for a server on this machine.
DEFAULT_SOCKETS = {
    os.environ.get("MYSQL_UNIX_PORT"),
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
}

#: Where the drivers' own cursor classes are.
DRIVERS_MODULES = {"MySQLdb.cursors", "pymysql.cursors", "builtins"}


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


def sending(method: Callable[..., Any], answered: bool = True) -> Callable[..., Any]:
    """Make a driver's method that sends a statement a guarded one, which reads the statement first.

    Flat, as ``guarded()`` is: each statement comes through here.

    :param answered: whether the method returns with the answer.
    """

    @wraps(method)
    def call(self: MySQLConnection, query: Any, *args: Any, **kwargs: Any) -> Any:
        if self.guard.pid != getpid():
            self.refuse()
        if self.idle:
            self.check_lease()
        if self.reader is None:
            self.note_statement(as_sent(query))
        try:
            result = method(self, query, *args, **kwargs)
        except BaseException as error:
            self.note_failure(error)
            if self.broken is None:
                self.ran |= LAST_STATEMENT | MESSAGES
            raise
        if answered:  # as note_answer() does it
            self.ran |= self.effects & SETS
            if self.effects & MAY_SET_INSERT_ID and self.insert_id():
                self.ran |= INSERT_ID
        return result

    return call


def as_sent(query: Any) -> Any:
    """Return a statement that was given to the driver's connection as it can be read.

    mysqlclient sends text as UTF-8 whatever the session's character set is, so beyond ASCII it is not
    understood, like bytes.
    """
    if not query.isascii():
        return query.encode(errors="replace") if isinstance(query, str) else query
    return query if isinstance(query, str) else query.decode("ascii")


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


def vouches(cursor_class: type, makes_literals: bool) -> bool:
    """Whether a cursor sends what it was told to: one of somebody's own class may send something else."""
    return makes_literals and all(each.__module__ in DRIVERS_MODULES for each in cursor_class.__mro__)


class MySQLConnection(Guarded):
    """What the guarded connections of both drivers know of the server and its protocol."""

    #: The state of autocommit to come back to.
    autocommit_at_rest: bool
    #: Whether the driver makes one literal of each parameter, as nobody's converters do anything else.
    makes_literals: bool
    #: Whether a text's characters are the server's, whatever they are; else only those of ASCII.
    reads_all_text: bool
    #: The driver's side of a clean session.
    encoding_at_rest: str
    settings_at_rest: tuple[Any, ...]
    #: The cursor that is running something, having read it.
    reader: ReadingCursor | None
    #: The effects of what was read last.
    effects: int
    poller: select.poll

    #: The driver's own.
    Error: Any
    open: Any
    cursorclass: type
    encoders: Any
    encoding: str
    get_autocommit: Any
    insert_id: Any
    #: The same, for the pool, which has connections that are nobody's at the moment.
    _rollback: Any
    _autocommit: Any
    #: Its converters that are nobody's own.
    conversions: dict[Any, Any]
    #: The names of what a borrower could set otherwise; those of the converters (encoders, decoders) first.
    SETTINGS: tuple[str, ...]
    settings: attrgetter[tuple[Any, ...]]
    #: What a lease's cursors of a class are.
    class_for: Callable[[type, bool], type]

    def cursor(self, cursorclass: type | None = None) -> Any:
        self.check_process()
        self.check_lease()
        cursorclass = cursorclass or self.cursorclass
        # Nobody's yet while it is being opened: listeners of SQLAlchemy's may query then.
        return (self.class_for(cursorclass, self.makes_literals) if self.lease else cursorclass)(self)

    def close(self) -> None:
        """End the session; in a foreign process only let go of it."""
        if self.guard.pid != getpid():
            self.abandon()
            return
        try:
            if self.open:
                super().close()  # type: ignore[misc]  # the driver's
        finally:
            # Not before: a fork may come in the middle of the goodbye.
            live.remove(self)

    def note_failure(self, error: BaseException) -> None:
        """Decide whether the session is still in a known state after this."""
        if not (isinstance(error, self.Error) and is_answer(error)):
            self.broken = f"{type(error).__name__}: {error}"
            self.lost = isinstance(error, self.Error)
        elif is_read_only(error):
            self.failed_over = True

    def note_statement(self, statement: Any, is_template: bool = False) -> None:
        """Take note of what a statement will do, before it is sent.

        :raises InterfaceError: where it asks for what another borrower's statement may have set.
        """
        try:
            effects = EFFECTS[is_template][statement]
        except TypeError:  # not hashable: no text of a driver's
            effects = UNKNOWN
        if not (self.reads_all_text or effects & LEAVES or statement.isascii()):
            effects |= LEAVES
        self.effects = effects
        if effects & CHECKED:
            self.note_effects(effects, statement)

    def note_answer(self) -> None:
        """Take note of what the statement that was answered has set."""
        self.ran |= self.effects & SETS
        if self.effects & MAY_SET_INSERT_ID and self.insert_id():
            self.ran |= INSERT_ID

    def set_by_last(self) -> int:
        return MESSAGES if self.ran & LAST_STATEMENT and self.count_warnings() else 0

    told_by = staticmethod(told_by)

    def count_warnings(self) -> int:
        """Return how many messages the server has about the last statement. Sends nothing."""
        raise NotImplementedError

    @property
    def begun(self) -> bool:
        """Whether autocommit was set by the driver's own method. A BEGIN makes it dirty."""
        return bool(self.open and self.get_autocommit() != self.autocommit_at_rest)

    def at_rest(self) -> None:
        """Take the present state as that of a clean session: it was just initialised."""
        self.dirty = False
        self.autocommit_at_rest = self.get_autocommit()
        for name in self.SETTINGS[:2]:
            setattr(self, name, Converters(getattr(self, name)))
        self.makes_literals = all(self.conversions.get(kind) is make for kind, make in self.encoders.items())
        self.reads_all_text = self.encoding in PLAIN_ENCODINGS
        self.encoding_at_rest = self.encoding
        self.settings_at_rest = self.settings(self)

    def unfit(self) -> str | None:
        """Why this connection can't be reused, if so. Sends nothing."""
        if self.broken:
            return self.broken
        if not self.open:
            return "closed by its borrower"
        encoders, decoders, *_ = self.settings_at_rest
        if (
            not all(map(is_, self.settings(self), self.settings_at_rest))
            or encoders.changed
            or decoders.changed
            or (self.encoding != self.encoding_at_rest and not self.dirty)  # else reset() sees to it
        ):
            return "its driver was set otherwise by its borrower"
        return "results left unread" if self._has_unread() else None

    def clean(self) -> None:
        """Leave no transaction for the next borrower. Sends something only where one may be open."""
        autocommit = self.get_autocommit()
        if self.dirty or not autocommit:
            self._rollback()
            self.dirty = False
        if autocommit != self.autocommit_at_rest:
            self._autocommit(self.autocommit_at_rest)

    def closed_by_server(self) -> bool:
        """Whether something waits in this idle connection's socket: a goodbye, or what nobody has read.

        Sends nothing, and can't see a network that silently drops packets.
        """
        return bool(self.poller.poll(0))

    def answers(self, seconds: float) -> bool:
        """See there."""
        self.check_process()
        try:
            self._ask(seconds)
        except self.Error:
            return False
        return True

    def _ask(self, seconds: float) -> None:
        """A round trip.

        :raises Error: the driver's, where no answer came in that time.
        """
        raise NotImplementedError

    def _has_unread(self) -> bool:
        """Whether a result, or a part of one, was left behind. Sends nothing."""
        raise NotImplementedError


def is_answer(error: Any) -> bool:
    """Whether the server sent this error of the driver's, which leaves the protocol in step."""
    # 2000 to 2999 are the client library's own.
    code = error.args[0] if error.args else None
    return isinstance(code, int) and not 2000 <= code < 3000 and code not in LOST_SESSION


def is_read_only(error: BaseException) -> bool:
    """Whether the server refused to write, as one does from which the primary's role was taken."""
    # 1290 names the option, which may be another one (--secure-file-priv).
    code, message = (*error.args, "", "")[:2]
    return code in READ_ONLY and (code != 1290 or "read-only" in str(message).replace("_", "-"))


def kernels_poll() -> select.poll:
    """The kernel's own: gevent's would let other greenlets run, in the middle of a checkout."""
    monkey = sys.modules.get("gevent.monkey")
    poll: type[select.poll] = monkey.get_original("select", "poll") if monkey else select.poll
    return poll()


def is_greened() -> bool:
    """Whether gevent has patched this process: what waits for a socket lets other greenlets run."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("socket"))


def become(driver: Any, guarded_class: type[MySQLConnection], guard: Guard) -> None:
    """Have a driver's new connection be of that class."""
    driver.guard = guard
    driver.lease = driver.broken = driver.reader = None
    driver.effects = 0
    driver.idle = False
    driver.cursors = weakref.WeakSet()
    driver.born = driver.idle_since = time.monotonic()
    driver.poller = kernels_poll()
    driver.poller.register(guard.fd, select.POLLIN)
    driver.__class__ = guarded_class
    driver.at_rest()
    live.add(driver)


def peers(params: dict[str, Any]) -> set[Any]:
    """See ``Driver.peers``. Servers named in a read_default_file only are not known here."""
    if params.get("unix_socket"):
        return {params["unix_socket"]}
    host, port = params.get("host"), params.get("port", 3306)
    if host in (None, "", "localhost"):
        return {address("127.0.0.1", port), address("::1", port), *DEFAULT_SOCKETS}
    return {address(host, port)}


def means_unreachable(error: Exception) -> bool | None:
    """See ``Driver.unreachable``.

    :param error: one of a driver's.
    """
    code = error.args[0] if error.args else None
    return None if code in CUT_OFF else code in UNREACHABLE


class _Inherited:
    """What the drivers give up in a child."""

    def settle(self) -> None:
        """Handshakes are waited for by the gate; all else can be forked in the middle."""

    def hold(self) -> list[MySQLConnection]:
        return live.hold()

    def abandon(self, held: list[MySQLConnection]) -> None:
        for connection in held:
            connection.abandon()
        live.forget()


#: This process's connections.
live: WeakRegistry[MySQLConnection] = WeakRegistry()
at_fork.join(_Inherited())
