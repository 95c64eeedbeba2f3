"""The errors that are poollife's own. Each is one of Django's as well."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import OperationalError


class BadPoolOption(ImproperlyConfigured, CommandError):
    """POOL says something that can't be.

    Whatever part of ``manage.py`` comes upon it, its message is printed and no traceback: newer versions of
    Django ask the database server when they check models, maybe before our check gets to name the mistake.
    """


class PoolTimeout(OperationalError):
    """No connection became free within ``POOL["timeout"]`` seconds.

    The message says how many are out, who has held them longest, and which settings rule it.
    """


class PoolOverloaded(PoolTimeout):
    """As many wait as ``POOL["max_waiting"]`` allows, so this one was refused at once."""


class ForkedTransaction(OperationalError):
    """This process was forked while its parent was using the same SQLite database.

    SQLite keeps its file locks per process and the child inherited that bookkeeping, but not the locks:
    whatever it did to the file could corrupt it (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """
