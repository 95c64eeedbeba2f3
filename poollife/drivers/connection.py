"""Methods of a driver connection that only the borrower may call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from poollife.drivers.contract import HELD, Guarded
from poollife.process.guard import alive

NO_RECONNECT = (
    "A pooled connection does not reconnect: settings, locks and a transaction of its session would be lost "
    "without an error, and its new socket would not be guarded. Call close() on Django's connection in place "
    "of this; its next query borrows a session that is alive."
)


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's method that refuses calls as ``Guarded.check()`` does, and reports its errors.

    :param method: the method of the driver's class.
    """

    @wraps(method)
    def call(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        lease = self.lease
        if not alive[0] or lease is None or lease.state is not HELD:
            self.check()
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self.note_failure(error)
            raise

    return call


def leaving(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a driver's method that marks its session as dirty, because it leaves state there.

    :param method: the method of the driver's class.
    """

    @wraps(method)
    def call(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        self.dirty = True
        return method(self, *args, **kwargs)

    return call


def unwrap(connection: Any, driver_class: type) -> Any:
    """Return the driver connection inside an APM tool's proxies (wrapt's, by their ``__wrapped__``).

    :param connection: the result of the driver's ``connect()``.
    :param driver_class: the driver's class of connections.
    :raises TypeError: if no driver connection is found, so that it can't be guarded.
    """
    found = connection
    # type() and not isinstance(): a proxy reports the class of the object that it wraps.
    while not issubclass(type(found), driver_class):
        try:
            found = found.__wrapped__
        except AttributeError:
            raise TypeError(
                f"The driver's connect() returned {type(connection)!r}, neither {driver_class!r} nor a proxy "
                f"with __wrapped__ around one: poollife can't keep it safe across forks."
            ) from None
    return found
