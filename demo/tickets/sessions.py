"""Which session are we talking in, and does it answer us? What every check of the demo comes down to."""

from __future__ import annotations

from django.db import connection


def session_id() -> int:
    """The server's own number for the session that this thread holds.

    SQLite has no server, so there it is the address of the file handle.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT CONNECTION_ID()")
            return int(cursor.fetchone()[0])
        cursor.execute("SELECT 1")
        return id(connection.connection)


def echo(word: str) -> str:
    """Send a word through the database. Over a session shared by accident, another word comes back."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [word])
        return str(cursor.fetchone()[0])
