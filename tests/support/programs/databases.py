"""Django for the programs, and the few questions that they ask."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.db import connections


def set_up(databases: dict[str, dict[str, Any]], **more: Any) -> None:
    """Configure Django with these databases."""
    settings.configure(
        DATABASES=databases, INSTALLED_APPS=["poollife"], SECRET_KEY="tests", USE_TZ=True, **more
    )
    django.setup()


def ask(sql: str, *parameters: Any, using: str = "default") -> Any:
    """The first column of the first row."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchone()[0]


def session(using: str = "default") -> int:
    """The server's number for the session of this thread."""
    is_postgresql = connections[using].vendor == "postgresql"
    number: int = ask("SELECT pg_backend_pid()" if is_postgresql else "SELECT CONNECTION_ID()", using=using)
    return number


def session_of_statement(using: str = "default") -> int:
    """The number of the session that a statement runs in, as the driver has it.

    A thread that asks the server for it keeps its session.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1")
        number: int = connections[using].connection.thread_id()
        return number


def hold(using: str = "default") -> None:
    """Borrow, and keep: who works with the driver's own connection has it until a clock takes it back."""
    connections[using].ensure_connection()
    connections[using].connection.cursor().close()


def held_session(using: str = "default") -> int:
    """The same, and which session that is."""
    hold(using)
    return session(using)


def change(sql: str, *parameters: Any, using: str = "default") -> None:
    """Run a statement that has no result."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters or None)
