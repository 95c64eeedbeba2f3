"""The guarded connection of python-oracledb."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

import oracledb

from poollife.drivers.connection import (
    CLEANING_LIMIT,
    GuardedSocket,
    guarded,
    guarded_property,
    leaving,
    live,
)
from poollife.drivers.contract import CLOSED, HELD, SET_OTHERWISE
from poollife.drivers.cursors import enter_lease
from poollife.drivers.effects import CHECKED, SETS, UNKNOWN
from poollife.drivers.marks import marks_of, restore
from poollife.drivers.oracle.cursors import OracleCursor
from poollife.drivers.oracle.errors import verdict_on
from poollife.drivers.oracle.statements import EFFECTS, told_by
from poollife.drivers.verdicts import Verdict
from poollife.process.guard import alive

Connection: Any = oracledb.Connection
#: Seconds after which the logoff of a session is given up.
CLOSING_LIMIT = 2.0
#: Methods that send nothing, or what the rollback at the return ends.
HARMLESS = frozenset(
    {"commit", "rollback", "ping", "createlob", "gettype", "encode_oson", "decode_oson", "xid"}
)
#: Methods after which a transaction may go on elsewhere: no rollback here would end it.
DISTRIBUTED = frozenset(
    {"begin", "tpc_begin", "tpc_recover"}
    | {"begin_sessionless_transaction", "resume_sessionless_transaction"}
)


#: The class of the driver's class. Older versions have none of their own.
_DriversMeta: Any = type(Connection)


class _Meta(ABCMeta, _DriversMeta):  # type: ignore[misc]  # the driver's
    """The class of ``OracleConnection``: both its bases have one."""


class OracleConnection(GuardedSocket, Connection, metaclass=_Meta):  # type: ignore[misc]  # the driver's
    """A connection that works only in the process that opened it, and says whether it may be reused.

    ``adopt()`` makes it from the result of ``oracledb.connect``, by assigning the class. Each public method
    of the driver's that is not in this class refuses to work without a lease, and so does each assignment to
    a public property. The assignment makes the session unshareable. A method makes it dirty unless it is
    known to be harmless: a later version of the driver may have methods that this one does not know.
    """

    CHANGING = GuardedSocket.CHANGING | {"_impl", "_pool", "_version", "autocommit_at_rest"}
    #: The state of autocommit in a clean session.
    autocommit_at_rest: bool
    #: The driver's property. A change of it does not make the session dirty: ``clean()`` undoes it.
    autocommit = guarded_property(Connection, "autocommit")
    InterfaceError = oracledb.InterfaceError
    NotSupportedError = oracledb.NotSupportedError

    # --- the borrower ---------------------------------------------------------------------------------------

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        cursor = super().cursor(*args, **kwargs)
        if lease is None:
            return cursor
        cursor.__class__ = OracleCursor
        return enter_lease(cursor, self, lease)

    def cancel(self) -> None:
        """Interrupt the call that runs, unless the session is another process's."""
        if not self.guard.foreign and self.lease is not None:
            super().cancel()

    def close(self) -> None:
        """End the session; in a foreign process only abandon it.

        The driver rolls back, logs off and waits for the answers. Where the state of the session is not
        known, none may come: then its socket is ended first.
        """
        if self.guard.foreign:
            self.abandon()
            return
        try:
            if self.failure is not None:
                self.guard.shut_down()
                # python-oracledb 2.3 raises an AttributeError where its socket is gone.
                with suppress(oracledb.Error, AttributeError):
                    super().close()
            elif self.is_healthy():
                Connection.call_timeout.fset(self, _milliseconds(CLOSING_LIMIT))
                super().close()
        finally:
            live.remove(self)

    # --- statements -----------------------------------------------------------------------------------------

    def note_statement(self, statement: Any) -> int:
        """Note the effects of a statement, before it is sent, and return them.

        :param statement: the text.
        :raises InterfaceError: if the statement reads what another borrower's statement may have set.
        """
        try:
            effects = EFFECTS[statement]
        except TypeError:  # not hashable
            effects = UNKNOWN
        if effects & CHECKED:
            self.note_effects(effects, statement)
        return effects

    def note_unread(self) -> None:
        """Note that a statement is sent that nothing has read."""
        self.dirty = True
        self.ran |= SETS

    told_by = staticmethod(told_by)

    def note_failure(self, error: BaseException) -> None:
        """Note, after an error, whether the session's state is still known.

        After an exception that is not the driver's, it is not known which bytes are on their way.
        """
        is_own = isinstance(error, oracledb.Error)
        verdict = verdict_on(error) if is_own else Verdict.NONE
        if not is_own or Verdict.LOST in verdict or not self.is_healthy():
            self.failure = f"{type(error).__name__}: {error}"
            self.lost = is_own
        elif Verdict.READ_ONLY in verdict:
            self.failed_over = True

    @property
    def begun(self) -> bool:
        """True in a transaction, as the last answer has said. Sends nothing."""
        # After a failure the driver's answer is an old one, and of a closed connection it has none.
        return bool(self.failure is None and self._impl is not None and self.transaction_in_progress)

    # --- the pool -------------------------------------------------------------------------------------------

    def number_at_server(self) -> int | None:
        """Return the SID of the session, as in V$SESSION; None: the driver is too old to know it."""
        number: int | None = getattr(self, "session_id", None)
        return number

    def mark_clean(self) -> None:
        """Record the present state as that of a clean session: the session was just initialised."""
        self.dirty = False
        self.unshareable = None
        self.autocommit_at_rest = self.autocommit
        self.marks_at_rest = marks_of(self, self.CHANGING)

    def reason_to_close(self) -> str | None:
        """Implement ``Guarded.reason_to_close()``."""
        return self.failure or self.unshareable or (None if self.is_healthy() else CLOSED)

    def clean(self) -> None:
        """End the transaction and remove the borrower's marks. Sends something only for a transaction."""
        restore(self, self.marks_at_rest, self.CHANGING)
        # The server does not report what SET TRANSACTION or a savepoint has begun. In autocommit mode each
        # statement ends it.
        autocommit = self.autocommit
        has_begun = self.transaction_in_progress or not autocommit
        if autocommit is not self.autocommit_at_rest:
            Connection.autocommit.fset(self, self.autocommit_at_rest)
        if has_begun:
            with self._bounded(CLEANING_LIMIT):
                Connection.rollback(self)

    def answers(self, seconds: float) -> bool:
        """Implement ``Guarded.answers()``."""
        self.check_process()
        try:
            with self._bounded(seconds):
                Connection.ping(self)
        except oracledb.Error:
            return False
        return True

    @contextmanager
    def _bounded(self, seconds: float) -> Iterator[None]:
        """Bound each call of the block. A session that does not answer in time is closed by the driver."""
        own = self.call_timeout
        Connection.call_timeout.fset(self, _milliseconds(seconds))
        try:
            yield
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise
        Connection.call_timeout.fset(self, own)


def _milliseconds(seconds: float) -> int:
    """Return the ``call_timeout`` for a limit: the driver waits as long again for the answer to its break."""
    return max(1, int(seconds * 500))


def _reconfiguring(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a property's setter after which no other borrower may have the session."""

    @wraps(method)
    def call(self: OracleConnection, *args: Any, **kwargs: Any) -> Any:
        self.unshareable = SET_OTHERWISE
        return method(self, *args, **kwargs)

    return call


def _unless_lost(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that refuses to work in a lost session, which python-oracledb 2.3 may not know."""

    @wraps(method)
    def call(self: OracleConnection, *args: Any, **kwargs: Any) -> Any:
        if self.lost:
            raise oracledb.InterfaceError(f"not connected to database: {self.failure}")
        return method(self, *args, **kwargs)

    return call


def _distributing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method after which no other borrower may have the session, because of its transaction."""

    @wraps(method)
    def call(self: OracleConnection, *args: Any, **kwargs: Any) -> Any:
        self.unshareable = "it was part of a distributed transaction"
        return method(self, *args, **kwargs)

    return call


def _guard_all() -> None:
    """Guard the driver's public methods and properties that ``OracleConnection`` does not have itself."""
    for name in dir(Connection):
        if name.startswith("_") or name in vars(OracleConnection):
            continue
        value = getattr(Connection, name)
        if isinstance(value, property):
            if value.fset is not None:
                setattr(OracleConnection, name, guarded_property(Connection, name, _reconfiguring))
        elif callable(value) and name != "is_healthy":
            if name in DISTRIBUTED:
                value = _distributing(value)
            elif name not in HARMLESS:
                value = leaving(value)
            setattr(OracleConnection, name, guarded(_unless_lost(value)))


_guard_all()
