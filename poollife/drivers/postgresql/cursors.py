"""Cursors that read a statement before the driver puts parameters into it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import wraps
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any
from uuid import UUID

from poollife.drivers.contract import HELD
from poollife.drivers.cursors import LeasedCursor
from poollife.drivers.postgresql import poolers
from poollife.process.guard import alive

#: Types of parameters that the drivers write as one literal, and classes whose subclasses are, too.
PLAIN = (
    {str, int, float, bool, bytes, memoryview, type(None), Decimal, UUID, datetime, date, time, timedelta}
    # Django's fields of addresses.
    | {IPv4Address, IPv6Address, IPv4Interface, IPv6Interface}
)
PLAIN_CLASSES = tuple(PLAIN)
#: The packages of the cursor classes that send a statement as it was given.
PACKAGES = frozenset({"psycopg", "psycopg2", "django", "builtins", "typing"})


def is_own(module: str) -> bool:
    """Return whether a module is a driver's or Django's."""
    return module.partition(".")[0] in PACKAGES


def sends_sql_unchanged(cursor_class: type) -> bool:
    """Return whether a cursor class sends a statement as it was given: a class of the site's own may not."""
    return all(is_own(each.__module__) for each in cursor_class.__mro__)


def inside(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cursor's method during which the connection knows what is sent: nothing that leaves state."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        driver = self._driver
        if driver.lease is not self._lease:  # freed late: the session may be another borrower's
            return method(self, *args, **kwargs)
        outer, driver.reader = driver.reader, self
        try:
            return method(self, *args, **kwargs)
        finally:
            driver.put_back(self, outer)

    return call


def are_plain(params: Any) -> bool:
    """Return whether each parameter becomes one literal, whatever its value is.

    An object of the site's own may have an adapter that writes code, and psycopg2's ``AsIs`` is code.

    :param params: the parameters of one statement, or a list among them.
    """
    if isinstance(params, dict):
        params = params.values()
    elif not isinstance(params, list | tuple):
        return False
    if PLAIN.issuperset(map(type, params)):
        return True
    return all(
        isinstance(value, PLAIN_CLASSES)
        or (isinstance(value, list | tuple) and are_plain(value))
        or (type(value).__module__.partition(".")[0] in PACKAGES and type(value).__name__ != "AsIs")
        for value in params
    )


def are_all_plain(params_seq: Any) -> bool:
    """Return whether the parameters of each statement of an ``executemany()`` become literals.

    :param params_seq: the parameters; an iterator is not asked, because the driver reads it.
    """
    return isinstance(params_seq, list | tuple) and all(map(are_plain, params_seq))


class ReadingCursor(LeasedCursor):
    """A cursor that reads a statement before the driver puts parameters in: these may look like any SQL."""

    statusmessage: Any

    def _note(self, error: BaseException) -> None:
        """Report each error to the connection, which knows by itself whether the session goes on."""
        self._driver.note_failure(error)

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        send = super(LeasedCursor, self).execute  # type: ignore[misc]  # the driver's
        return self._run(send, are_plain, query, params, kwargs)

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        send = super(LeasedCursor, self).executemany  # type: ignore[misc]
        return self._run(send, are_all_plain, query, params_seq, kwargs)

    def _run(
        self, send: Callable[..., Any], plain: Callable[[Any], bool], query: Any, params: Any, kwargs: Any
    ) -> Any:
        """Read a statement, run it, and note what its answer shows.

        :param send: the driver's method.
        :param plain: returns whether the parameters become literals.
        """
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        driver = self._driver
        # No asynchronous exception comes between the two assignments and their block: there is no call.
        outer, driver.reader = driver.reader, self
        try:
            driver.note_statement(driver.text_of(query), params is not None)
            if params is not None and not plain(params):
                driver.note_unread()
            if driver.reader is not self:  # the lease has ended since the check
                self._check()
            result = send(query, params, **kwargs)
            driver.note_answer(self.statusmessage)
            return result
        except BaseException as error:
            self._note(error)
            raise
        finally:
            driver.put_back(self, outer)


class NamedCursor(ReadingCursor):
    """A cursor on the server, which each of its methods asks."""

    #: The driver's: whether the cursor outlives its transaction.
    withhold: Any
    #: Whether the server has it.
    _is_declared = False

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        if not self._is_declared:
            if self._driver.behind_pooler and self.withhold:
                raise self._driver.InterfaceError(poolers.REFUSED_CURSOR)
            self._driver.portals += 1
            self._is_declared = True
        return super().execute(query, params, **kwargs)

    @inside
    def close(self) -> None:
        """Close the cursor here and on the server. Do nothing after its lease, and in another process."""
        super().close()
        if self._is_declared and self._may_close():
            self._is_declared = False
            self._driver.portals -= 1

    @inside
    def fetchone(self) -> Any:
        return super().fetchone()

    @inside
    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return super().fetchmany(*args, **kwargs)

    @inside
    def fetchall(self) -> Any:
        return super().fetchall()

    @inside
    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        return super().scroll(*args, **kwargs)  # type: ignore[misc]  # the driver's

    @inside
    def __next__(self) -> Any:
        if not alive[0] or self._lease.state is not HELD:
            self._check()
        # The driver's own, which fetches many rows at once.
        return super(LeasedCursor, self).__next__()  # type: ignore[misc]
