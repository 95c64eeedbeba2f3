"""The DB-API's exceptions for JDBC: what Django calls ``Database``."""

from __future__ import annotations

from typing import Any

from poollife.drivers.jdbc.jvm import java_class
from poollife.drivers.verdicts import Verdict

apilevel = "2.0"
threadsafety = 1
paramstyle = "pyformat"


class Warning(Exception):  # noqa: A001  # the DB-API's name
    """The DB-API's class. Nothing raises it."""


class Error(Exception):
    """The base class. Its objects have no reference to an object of Java, so they can be pickled."""

    #: The SQLSTATE; None: the driver gave none.
    sqlstate: str | None = None
    #: The number that the database gave; 0: none.
    code: int = 0
    #: The names of the classes of Java's exception and of its causes, the outermost first.
    java_classes: tuple[str, ...] = ()
    #: The meaning for the pool, if the session could not be opened.
    verdict: Verdict = Verdict.NONE


class InterfaceError(Error):
    """An error of the caller's, or of this module, and not of the database."""


class DatabaseError(Error):
    """An error of the database."""


class DataError(DatabaseError):
    """A value that the database does not take."""


class OperationalError(DatabaseError):
    """An error of the database's operation, such as a lost session."""


class IntegrityError(DatabaseError):
    """A constraint that a statement would violate."""


class InternalError(DatabaseError):
    """A transaction in a wrong state."""


class ProgrammingError(DatabaseError):
    """A statement that is wrong."""


class NotSupportedError(DatabaseError):
    """A feature that the database or its driver does not have."""


#: Classes by the first two characters of a SQLSTATE. Sources: ISO/IEC 9075-2, "SQLSTATE class and subclass
#: codes"; the classes are psycopg's where the standard leaves a choice.
BY_SQLSTATE: dict[str, type[Error]] = {
    "07": ProgrammingError,
    "08": OperationalError,
    "0A": NotSupportedError,
    "21": ProgrammingError,
    "22": DataError,
    "23": IntegrityError,
    "24": InternalError,
    "25": InternalError,
    "28": OperationalError,
    "2D": InternalError,
    "3D": ProgrammingError,
    "3F": ProgrammingError,
    "40": OperationalError,
    "42": ProgrammingError,
    "44": ProgrammingError,
    "53": OperationalError,
    "54": OperationalError,
    "55": OperationalError,
    "57": OperationalError,
    "58": OperationalError,
    # MariaDB: the statement or its session was killed.
    "70": OperationalError,
    # The general class of ODBC, which drivers use for all that has none.
    "HY": OperationalError,
}


def error_of(thrown: Any) -> Error:
    """Return the DB-API's exception for one of Java's.

    :param thrown: a ``java.lang.Throwable``.
    """
    message = str(thrown.getMessage() or thrown.toString())
    if isinstance(thrown, java_class("java.sql.SQLException")):
        state = thrown.getSQLState()
        sqlstate = None if state is None else str(state)
        error = BY_SQLSTATE.get((sqlstate or "")[:2].upper(), DatabaseError)(message)
        error.sqlstate, error.code = sqlstate, int(thrown.getErrorCode())
    else:
        error = InternalError(message)
    error.java_classes = tuple(_classes_of(thrown))
    return error


def _classes_of(thrown: Any) -> list[str]:
    names: list[str] = []
    while thrown is not None and len(names) < 20:  # a chain may lead back to its beginning
        names.append(str(thrown.getClass().getName()))
        thrown = thrown.getCause()
    return names
