"""The two questions of the demo to the database: the id of the session, and a word to send back."""

from __future__ import annotations

from django.db import connection


def session_id() -> int:
    """Return the server's id of the session that this thread has.

    SQLite has no server, so there it is the address of the connection object.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT CONNECTION_ID()")
            return int(cursor.fetchone()[0])
        cursor.execute("SELECT 1")
        return id(connection.connection)


def echo(word: str) -> str:
    """Return the word that the database sends back. In a shared session it may be another process's word."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [word])
        return str(cursor.fetchone()[0])
