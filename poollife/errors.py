"""The errors of poollife. Each of them is an error of Django's as well."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError


class BadPoolOption(ImproperlyConfigured, CommandError):
    """The error of wrong options in ``POOL``.

    Each command of ``manage.py`` prints its message without a traceback: it is a ``CommandError``, too. Newer
    versions of Django ask the database server when they check models, maybe before the check of poollife
    names the mistake.
    """


@dataclass(frozen=True, slots=True)
class Hold:
    """A connection that was out when the wait of a checkout ended. An item of ``PoolTimeout.holders``."""

    #: The name of the thread that borrowed the connection.
    thread: str
    #: The work that it was borrowed for, such as "GET /report/"; None: not known.
    work: str | None
    #: Seconds from the checkout to that moment.
    held: float
    #: The site's own line that borrowed it, with ``POOL["trace"]``; None: not known.
    borrowed_at: str | None = None
    #: The line that the thread was at, in that moment; None: not known.
    now_at: str | None = None
    #: Whether the waiting request, task or thread had this connection itself.
    own: bool = False
    #: The number of its session at the server, as in SHOW PROCESSLIST or pg_stat_activity; None: not known.
    session: int | None = None

    @property
    def holder(self) -> str:
        """The work and the thread that had the connection, for people."""
        thread = f"thread {self.thread}"
        return f"{self.work} in {thread}" if self.work else thread

    def __str__(self) -> str:
        places = (("borrowed at", self.borrowed_at), ("now at", self.now_at))
        told = [
            f"{self.holder} for {self.held:.1f} s",
            *([f"session {self.session}"] if self.session else []),
            *(f"{what} {where}" for what, where in places if where),
        ]
        return ", ".join(told)


class PoolTimeout(OperationalError):
    """The error of a checkout for which no connection became free within ``POOL["timeout"]`` seconds.

    The message has the number of connections that are out, the borrowers that have held them longest, the
    settings that decide on the wait, and the likeliest cause. The attributes have these facts, too.
    ``__cause__`` is the last error in opening a session, if none was opened since.
    """

    #: The first line of the message: the result of the wait, and the likeliest cause.
    summary: str
    #: The alias.
    pool: str
    #: Seconds.
    waited: float
    #: Numbers of connections that are out and being opened, and of other checkouts that wait.
    out: int
    opening: int
    waiting: int
    #: ``pool_size`` and ``max_overflow``.
    size: int
    overflow: int
    #: The connections that are out and their borrowers, the longest hold first.
    holders: tuple[Hold, ...]
    #: One sentence, with advice.
    likeliest_cause: str
    #: The options that decide on the wait, and the options that differ from their default.
    settings: dict[str, Any]

    def __init__(self, message: str = "", **facts: Any) -> None:
        # In this form it can be pickled, as Celery and multiprocessing do.
        super().__init__(message)
        vars(self).update(facts)


class PoolOverloaded(PoolTimeout):
    """The error of a checkout that was refused at once, as ``POOL["max_waiting"]`` others wait already."""


class ForkedTransaction(OperationalError):
    """The error of a process that was forked while its parent was using the same SQLite database.

    SQLite keeps its file locks per process. The child inherited SQLite's record of the locks, but not the
    locks: any use of the file by the child could corrupt it (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """


class ForkedJVM(InterfaceError):
    """The error of a process that was forked from one with a JVM, at its first use of JDBC.

    A JVM does not survive a fork, and a process can't have a second one.
    """


class UselessSession(OperationalError):
    """The error of a new session whose server accepts logins, and nothing else.

    A Galera node out of its cluster is such a server, and so is one that hangs. A checkout gets this error if
    no other session was found in time. Have the balancer's check ask ``wsrep_ready``, or send a statement.
    """


class WrongRole(OperationalError):
    """The error of a new session of a pool with ``"role": "primary"`` whose server takes no writes.

    A checkout gets this error if its ``timeout`` ends before ``outage_wait``. After ``outage_wait`` such a
    session is lent all the same. Have the address lead to the primary.
    """


def remembered(error: Exception) -> Exception:
    """Return a copy of an error, to be kept: without the traceback, whose frames keep their variables."""
    try:
        return copy.copy(error)
    except Exception:  # a class that can't be made from its arguments
        return OperationalError(f"{type(error).__name__}: {error}")
