"""The errors that are poollife's own. Each is one of Django's as well."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import OperationalError


class BadPoolOption(ImproperlyConfigured, CommandError):
    """POOL says something that can't be.

    Whatever part of ``manage.py`` comes upon it, its message is printed and no traceback: newer versions of
    Django ask the database server when they check models, maybe before our check gets to name the mistake.
    """


@dataclass(frozen=True, slots=True)
class Hold:
    """A connection that was out when somebody's waiting for one ended."""

    #: The name of the thread that borrowed it.
    thread: str
    #: What it was borrowed for, such as "GET /report/"; None: nothing that is known.
    work: str | None
    #: Seconds.
    held: float
    #: The site's own line that borrowed it, with ``POOL["trace"]``.
    borrowed_at: str | None = None
    #: What its thread was at, then.
    now_at: str | None = None
    #: Whether whoever waited had it himself: the same request, task or thread.
    own: bool = False

    @property
    def holder(self) -> str:
        """Who had it, for people."""
        thread = f"thread {self.thread}"
        return f"{self.work} in {thread}" if self.work else thread

    def __str__(self) -> str:
        places = (("borrowed at", self.borrowed_at), ("now at", self.now_at))
        told = [
            f"{self.holder} for {self.held:.1f} s",
            *(f"{what} {where}" for what, where in places if where),
        ]
        return ", ".join(told)


class PoolTimeout(OperationalError):
    """No connection became free within ``POOL["timeout"]`` seconds.

    The message says how many are out, who has held them longest, which settings rule it, and what is the
    likeliest cause; so do the attributes. ``__cause__`` is the last error in opening a session, if none was
    opened since.
    """

    #: The first line of the message: what happened, and why, as far as can be told.
    summary: str
    #: The alias.
    pool: str
    #: Seconds.
    waited: float
    #: Connections out, being opened, and others that wait for one.
    out: int
    opening: int
    waiting: int
    #: ``pool_size`` and ``max_overflow``.
    size: int
    overflow: int
    #: Who had them, the longest first.
    holders: tuple[Hold, ...]
    #: In one sentence.
    likeliest_cause: str
    #: What POOL says where it differs from the defaults, and what rules this.
    settings: dict[str, Any]

    def __init__(self, message: str = "", **facts: Any) -> None:
        # In this form it can be pickled: Celery and multiprocessing do.
        super().__init__(message)
        vars(self).update(facts)


class ForkedTransaction(OperationalError):
    """This process was forked while its parent was using the same SQLite database.

    SQLite keeps its file locks per process and the child inherited that bookkeeping, but not the locks:
    whatever it did to the file could corrupt it (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """


def remembered(error: Exception) -> Exception:
    """A copy to be kept: without the traceback, whose frames would keep what their variables hold."""
    try:
        return copy.copy(error)
    except Exception:  # somebody's own class, which can't be made from its arguments
        return OperationalError(f"{type(error).__name__}: {error}")
