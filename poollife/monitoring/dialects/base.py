"""The interface of a dialect's questions to its server."""

from __future__ import annotations

import ipaddress
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

#: The weight of a finding: only a problem makes the exit status 1.
Level = Literal["ok", "warning", "problem"]


#: The most seconds of ``recycle`` behind a proxy: load is to spread again within minutes.
LONGEST_BEHIND_PROXY = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of ``pool_check``."""

    #: The question, such as "role".
    subject: str
    level: Level
    #: The answer.
    text: str
    #: What to do; empty where nothing is to be done.
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """A limit of a server on its sessions: of all, of a user, or of a database."""

    #: The limit, for people, such as "max_connections".
    name: str
    #: The most sessions, without those that are kept for administrators.
    allowed: int
    #: The sessions that count for this limit now, whatever client has them.
    in_use: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """The limits of a server, as a session of one alias sees them."""

    #: The server: the same text for all its addresses, and another one for each other server.
    identity: str
    #: The user and the database of that session. Another client with both of them counts as the site's.
    user: str
    database: str
    #: The sessions of this user in this database now.
    own: int
    scopes: list[Scope] = field(default_factory=list)


class Session:
    """A session that an alias has borrowed, to ask its server."""

    def __init__(self, wrapper: Any, cursor: Any) -> None:
        """
        :param wrapper: Django's connection of the alias; with an ENGINE of poollife, or with another one.
        :param cursor: an open cursor of that connection.
        """
        self.wrapper, self._cursor = wrapper, cursor

    @property
    def driver(self) -> Any:
        """The ``Guarded`` driver connection. Only a connection with an ENGINE of poollife has one."""
        return self.wrapper.lease.driver

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        self._cursor.execute(sql)
        return list(self._cursor.fetchall())

    def row(self, sql: str) -> tuple[Any, ...]:
        """Return the only row of a statement."""
        (row,) = self.rows(sql)
        return row

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address and the port at the other end of the socket; None: it is a socket of this host."""
        # The driver keeps its own descriptor: a socket object closes the one that it has.
        with socket.socket(fileno=os.dup(self.driver.guard.fd)) as line:
            name = line.getpeername()
        return (name[0], name[1]) if isinstance(name, tuple) else None


class Dialect(ABC):
    """The questions to the servers of one vendor."""

    #: Django's name of it.
    vendor: ClassVar[str]
    #: The port of a server, where ``PORT`` is empty.
    port: ClassVar[str]
    #: MiB of memory of a session that has run a query. They were measured with 500 sessions and more, on
    #: MariaDB 10.11 with a thread for each session, and on PostgreSQL 15.
    session_mib: ClassVar[float]

    @abstractmethod
    def capacity(self, session: Session) -> Capacity:
        """Return the limits of the server, and the sessions that it has now."""

    @abstractmethod
    def findings(self, session: Session) -> Iterator[Finding]:
        """Yield the answers to the questions that only this dialect has.

        :param session: of an alias with an ENGINE of poollife.
        """


def lifetime(session: Session) -> Finding:
    """Return the finding about the age of sessions behind a proxy."""
    recycle = session.wrapper.pool_options.recycle
    if recycle is not None and 0 <= recycle <= LONGEST_BEHIND_PROXY:
        return Finding("recycle", "ok", f"{recycle} s: a server that comes back soon gets its share again")
    return Finding(
        "recycle",
        "warning",
        "sessions live for up to an hour: of several servers behind the proxy, one that was away gets none "
        "before",
        f"Set POOL['recycle'] to some minutes, {LONGEST_BEHIND_PROXY} s at most",
    )


def encryption(session: Session, cipher: str | None) -> Finding:
    """Return the finding about TLS.

    :param cipher: the version or the cipher, as the server names it; None: the session has none.
    """
    peer = session.peer
    if cipher:
        return Finding("TLS", "ok", f"encrypted: {cipher}")
    if peer is None:
        return Finding("TLS", "ok", "not encrypted, over a socket of this host")
    if ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback:
        return Finding("TLS", "ok", "not encrypted, on this host")
    return Finding(
        "TLS",
        "warning",
        f"not encrypted on the way to {peer[0]}: passwords and rows can be read there",
        "Ask for TLS in OPTIONS",
    )
