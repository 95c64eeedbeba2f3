"""The two questions of the demo to the database: the id of the session, and a word to send back."""

from __future__ import annotations

from django.db import connection

#: The question for the session's id, by Django's name of the vendor.
_SESSION_ID = {"mysql": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}


def session_id() -> int:
    """Return the server's id of the session that this thread has.

    SQLite has no server, so there it is the address of the connection object.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SESSION_ID.get(connection.vendor, "SELECT 1"))
        number = int(cursor.fetchone()[0])
        return number if connection.vendor in _SESSION_ID else id(connection.connection)


def echo(word: str) -> str:
    """Return the word that the database sends back. In a shared session it may be another process's word."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [word])
        return str(cursor.fetchone()[0])
