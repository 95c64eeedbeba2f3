"""Driver connections with a socket, and the methods that only a borrower may call."""

from __future__ import annotations

import _thread
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from poollife.drivers.contract import HELD, Guarded
from poollife.process.atfork import at_fork
from poollife.process.greenlets import unpatched_poll
from poollife.process.guard import Guard, WeakRegistry, alive

#: Seconds after which a reset or a rollback of the pool's is given up. The session is closed then.
CLEANING_LIMIT = 30.0
NO_RECONNECT = (
    "A pooled connection does not reconnect: settings, locks and a transaction of its session would be lost "
    "without an error, and its new socket would not be guarded. Call close() on Django's connection in place "
    "of this; its next query borrows a session that is alive."
)


class GuardedSocket(Guarded):
    """The common part of guarded connections that have a socket."""

    #: The object for the socket check.
    poller: select.poll
    CHANGING: frozenset[str] = Guarded.CHANGING | {"poller"}

    def closed_by_server(self) -> bool:
        """Return whether this idle connection's socket is readable: at its end, or with unread bytes.

        Sends nothing, and does not notice a network that silently drops packets.
        """
        return bool(self.poller.poll(0))


def begin(driver: Any, guard: Guard, guarded_class: type[GuardedSocket] | None = None) -> None:
    """Begin the life of a guarded connection.

    :param driver: the driver connection.
    :param guard: the guard of its process and socket.
    :param guarded_class: the class to assign; None: the connection has it.
    """
    driver.guard = guard  # first, because the destructor asks it
    if guarded_class:
        driver.__class__ = guarded_class
    Guarded.note_opening(driver)
    driver.poller = unpatched_poll()
    if guard.fd is not None:  # a database behind JDBC may have no socket
        driver.poller.register(guard.fd, select.POLLIN)
    live.add(driver)


@contextmanager
def ended_after(seconds: float, end: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Call a function if the block takes longer than this, for a call of a driver that has no limit.

    It costs the start of a thread, which calls the function. (No ``threading.Timer``: its ``start()`` waits
    for the new thread. With Python 3.11 that wait never ends, if ``PyThreadState_SetAsyncExc`` throws an
    exception at the starting thread meanwhile: it may strike the new one.)

    :param seconds: the limit.
    :param end: a function that ends the block's wait, such as ``Guard.shut_down()``.
    :param arguments: the arguments of the function.
    """
    running = threading.Lock()

    def watch() -> None:
        if not running.acquire(timeout=seconds):
            end(*arguments)

    # Outside of the block that releases it: an asynchronous exception may come first.
    running.acquire()
    try:
        _thread.start_new_thread(watch, ())
        yield
    finally:
        running.release()


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


def guarded_property(
    driver_class: type, name: str, mark: Callable[..., Any] = lambda method: method
) -> property:
    """Return a property of the driver's that only the borrower can assign.

    :param driver_class: the driver's class of connections.
    :param name: the name of the property.
    :param mark: returns another method for the one that assigns it; by default, the same.
    """
    descriptor = getattr(driver_class, name)
    return property(descriptor.__get__, guarded(mark(descriptor.__set__)))


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


class _Inherited:
    """The fork participant of all connections with a socket: a child abandons the parent's."""

    def settle(self) -> None:
        """Wait for nothing: the gate waits for handshakes, and a fork may interrupt all other operations."""

    def strong_references(self) -> list[GuardedSocket]:
        return live.strong_references()

    def abandon(self, held: list[GuardedSocket]) -> None:
        for connection in held:
            connection.abandon()
        live.forget()


#: The connections with a socket that this process has opened.
live: WeakRegistry[GuardedSocket] = WeakRegistry()
at_fork.join(_Inherited())
