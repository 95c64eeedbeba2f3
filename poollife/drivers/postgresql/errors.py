"""Errors of PostgreSQL that concern a session or its server.

All other errors concern one statement: its session goes on.

In a session the SQLSTATE decides. An error without one comes from the client library, in the middle of the
protocol. While a session is opened, neither driver has a SQLSTATE (measured with psycopg 3.3 and psycopg2 2.9
and PostgreSQL 15): only the text tells the server's errors from one another. A text that is not known, as in
another language, leaves the state of the server open, and the pool finds out by itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from poollife.drivers.verdicts import OVER, Verdict


class Meaning(NamedTuple):
    """An entry of the table."""

    #: The server's name of the condition.
    name: str
    verdict: Verdict


#: Meanings by SQLSTATE. Sources: "PostgreSQL Error Codes" (Appendix A) and src/backend/utils/errcodes.txt. A
#: comment that says more than these pages names its source.
MEANINGS: dict[str, Meaning] = {
    # The server rejects the user: no such role, no entry in pg_hba.conf, NOLOGIN. Only at the opening.
    "28000": Meaning("invalid_authorization_specification", Verdict.REFUSED),
    "28P01": Meaning("invalid_password", Verdict.REFUSED),
    # max_connections, and the limits of a role and of a database (src/backend/utils/init/postinit.c).
    "53300": Meaning("too_many_connections", Verdict.FULL),
    # INSERT, or a temporary table, on a standby, or with default_transaction_read_only.
    "25006": Meaning("read_only_sql_transaction", Verdict.READ_ONLY),
    # The server ends the session with these (src/backend/tcop/postgres.c, ProcessInterrupts()).
    "25P03": Meaning("idle_in_transaction_session_timeout", Verdict.LOST),
    "25P04": Meaning("transaction_timeout", Verdict.LOST),
    "57P01": Meaning("admin_shutdown", OVER),
    "57P02": Meaning("crash_shutdown", OVER),
    # Starting, stopping or in recovery: no session can be opened.
    "57P03": Meaning("cannot_connect_now", Verdict.LOST | Verdict.UNREACHABLE),
    # The database was dropped.
    "57P04": Meaning("database_dropped", Verdict.LOST),
    "57P05": Meaning("idle_session_timeout", Verdict.LOST),
}
#: Class 08: the connection. PgBouncer uses 08P01 for all that it has to say, and closes the connection.
CONNECTION_CLASS = "08"

# The texts of the server and of libpq at the opening, in the language of their sources. Each was measured
# with both drivers, but for those with a comment.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|role \"[^\n]*\" (?:does not exist|is not permitted to log in)"
    # src/backend/libpq/auth.c: auth_failed(), for the other methods.
    r"|authentication failed for user"
)
_FULL = re.compile(
    r"too many clients already|too many connections for (?:role|database)|connection slots are reserved"
    # PgBouncer: max_client_conn.
    r"|no more connections allowed"
)
_UNREACHABLE = re.compile(
    r"Connection refused|No such file or directory|could not translate host name|failed to resolve host"
    r"|the database system is (?:starting up|shutting down|not yet accepting|not accepting|in recovery)"
    # The kernel's answers of a machine, or a network, that is not there.
    r"|timeout expired|Connection timed out|No route to host|Network is unreachable|Host is down"
)
#: PostgreSQL's own severity: a server has answered.
_ANSWERED = re.compile(r"(?:FATAL|PANIC):  ")


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of psycopg (``sqlstate``) or psycopg2 (``pgcode``), or None."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def verdict_on(error: BaseException) -> Verdict:
    """Return the meaning of an error in a session, for this session and its server.

    A database error without a SQLSTATE counts as LOST. psycopg2 may call such a session open and idle.
    A ProgrammingError, DataError, IntegrityError or NotSupportedError without one is a mistake of the caller:
    the driver has sent nothing.

    :param error: the exception.
    """
    code = sqlstate_of(error)
    if code is None:
        return Verdict.LOST if _is_of_session(error) else Verdict.NONE
    if meaning := MEANINGS.get(code):
        return meaning.verdict
    return OVER if code.startswith(CONNECTION_CLASS) else Verdict.NONE


def _is_of_session(error: BaseException) -> bool:
    """Return whether an error without a SQLSTATE is of a class that the client library's errors have."""
    names = [each.__name__ for each in type(error).__mro__]
    # psycopg's PipelineAborted says that an earlier statement of an executemany() has failed.
    return "PipelineAborted" not in names and (
        names[0] in ("OperationalError", "DatabaseError", "InternalError", "Error")
        or "OperationalError" in names
    )


def verdict_on_opening(error: BaseException) -> Verdict:
    """Return the meaning of an error of ``connect()``.

    :param error: the exception.
    :returns: CUT_OFF for an error that leaves the state of the server open.
    """
    if code := sqlstate_of(error):
        return verdict_on(error) if code in MEANINGS else _of_unknown_code(code)
    text = str(error)
    # Several hosts have an error each. One that is full makes room; one that refuses the user was reached.
    for texts, verdict in ((_FULL, Verdict.FULL), (_REFUSED, Verdict.REFUSED)):
        if texts.search(text):
            return verdict
    if _needs_password(error):
        return Verdict.REFUSED
    if _UNREACHABLE.search(text) or type(error).__name__ == "ConnectionTimeout":
        return Verdict.UNREACHABLE
    # A server that answers has no such database, or no privilege or setting of that name.
    return Verdict.NONE if _ANSWERED.search(text) else Verdict.CUT_OFF


def _of_unknown_code(code: str) -> Verdict:
    return Verdict.CUT_OFF if code.startswith(CONNECTION_CLASS) else Verdict.NONE


def _needs_password(error: BaseException) -> bool:
    """Return whether the server asked for a password and there was none. psycopg 3 knows, in no language."""
    return bool(getattr(getattr(error, "pgconn", None), "needs_password", False))
