"""The socket behind a JDBC connection.

JDBC has no method for it. Each driver has a ``java.net.Socket`` in some field, or in a field of an object in
a field. That is found by reflection. Its ports, which are public, identify the descriptor.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from poollife.drivers.jdbc.jvm import Throwable, java_class
from poollife.process.atfork import descriptors

#: The most objects that are looked at.
MOST_OBJECTS = 2000
#: Packages whose objects have no driver's fields: the JDK keeps theirs closed.
OF_THE_JDK = ("java.", "javax.", "jdk.", "sun.", "com.sun.")

#: A way from one object to the next: a field of its class, or a function.
Step = Callable[[Any], Any]
#: The ways from a connection to its socket, by the class of the connection: the search is for the first one.
_ways: dict[str, tuple[Step, ...]] = {}


def descriptor_of(connection: Any) -> int | None:
    """Return the descriptor of the socket of a JDBC connection.

    :param connection: a ``java.sql.Connection``.
    :returns: None if no open socket is found: a database in the JVM's own process has none.
    """
    found = _socket_in(connection)
    return None if found is None else _descriptor_with(int(found.getLocalPort()), int(found.getPort()))


def _socket_in(connection: Any) -> Any:
    """Return the connected ``java.net.Socket`` of a connection, or None."""
    name = str(connection.getClass().getName())
    thing = connection
    for step in _ways.get(name, ()):
        if (thing := step(thing)) is None:
            break
    if found := _as_socket(thing):
        return found
    for way, found in _sockets_in(connection):
        _ways[name] = way
        return found
    return None


def _sockets_in(root: Any) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Yield the connected sockets that an object refers to, the nearest one first, and the way to each."""
    identity = java_class("java.lang.System").identityHashCode
    queue: deque[tuple[tuple[Step, ...], Any]] = deque([((), root)])
    seen = {identity(root)}
    while queue and len(seen) < MOST_OBJECTS:
        way, thing = queue.popleft()
        for step in _steps_from(thing):
            if (value := step(thing)) is None or (number := identity(value)) in seen:
                continue
            seen.add(number)
            queue.append(((*way, step), value))
            if found := _as_socket(value):
                yield (*way, step), found


def _as_socket(value: Any) -> Any:
    """Return a connected ``java.net.Socket`` if a value is one, or a channel of one; otherwise None."""
    if isinstance(value, java_class("java.nio.channels.SocketChannel")):
        value = value.socket()
    if not isinstance(value, java_class("java.net.Socket")) or value.isClosed() or not value.isConnected():
        return None
    return value


def _steps_from(thing: Any) -> Iterator[Step]:
    """Yield the ways to the objects in the fields of a driver's object."""
    kind, proxy = thing.getClass(), java_class("java.lang.reflect.Proxy")
    if proxy.isProxyClass(kind):
        yield proxy.getInvocationHandler
        return
    while kind is not None and not str(kind.getName()).startswith(OF_THE_JDK):
        for field in kind.getDeclaredFields():
            if not field.getType().isPrimitive():
                yield partial(_value_of, field)
        kind = kind.getSuperclass()


def _value_of(field: Any, thing: Any) -> Any:
    if java_class("java.lang.reflect.Modifier").isStatic(field.getModifiers()):
        return None
    try:
        field.setAccessible(True)
        return field.get(thing)
    except Throwable:  # a module of the driver's that keeps it closed
        return None


def _descriptor_with(local_port: int, port: int) -> int | None:
    """Return the descriptor of the TCP socket with these two ports."""
    for fd in descriptors():
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            probe = socket.socket(fileno=fd)
        except OSError:  # the descriptor of the listing itself
            continue
        try:
            if (_port(probe.getsockname()), _port(probe.getpeername())) == (local_port, port):
                return fd
        except OSError:  # not connected
            continue
        finally:
            probe.detach()
    return None


def _port(address: Any) -> int | None:
    return address[1] if isinstance(address, tuple) and len(address) > 1 else None
