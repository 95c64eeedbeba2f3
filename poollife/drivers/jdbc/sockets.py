"""The socket behind a JDBC connection.

JDBC has no method for it. Each driver has a ``java.net.Socket`` in some field, or in a field of an object in
a field. That is found by reflection. Its ports, which are public, identify the descriptor.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poollife.drivers.jdbc.jvm import Throwable, java_class

#: The most objects that are looked at.
MOST_OBJECTS = 2000
#: Packages whose objects have no driver's fields: the JDK keeps theirs closed.
OF_THE_JDK = ("java.", "javax.", "jdk.", "sun.", "com.sun.")


def descriptor_of(connection: Any) -> int | None:
    """Return the descriptor of the socket of a JDBC connection.

    :param connection: a ``java.sql.Connection``.
    :returns: None if no open socket is found: a database in the JVM's own process has none.
    """
    found = _socket_in(connection)
    return None if found is None else _descriptor_with(int(found.getLocalPort()), int(found.getPort()))


def _socket_in(root: Any) -> Any:
    """Return the first connected ``java.net.Socket`` that an object refers to, the nearest one first."""
    identity = java_class("java.lang.System").identityHashCode
    queue, seen = deque([root]), {identity(root)}
    while queue and len(seen) < MOST_OBJECTS:
        for value in _values_in(queue.popleft()):
            if isinstance(value, java_class("java.nio.channels.SocketChannel")):
                value = value.socket()
            if isinstance(value, java_class("java.net.Socket")):
                if value.isConnected() and not value.isClosed():
                    return value
            elif (number := identity(value)) not in seen:
                seen.add(number)
                queue.append(value)
    return None


def _values_in(thing: Any) -> Iterator[Any]:
    """Yield the objects in the fields of a driver's object."""
    kind = thing.getClass()
    if java_class("java.lang.reflect.Proxy").isProxyClass(kind):
        yield java_class("java.lang.reflect.Proxy").getInvocationHandler(thing)
        return
    while kind is not None and not str(kind.getName()).startswith(OF_THE_JDK):
        for field in kind.getDeclaredFields():
            if not field.getType().isPrimitive() and (value := _value_of(field, thing)) is not None:
                yield value
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
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    for entry in folder.iterdir():
        fd = int(entry.name)
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
