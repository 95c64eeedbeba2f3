"""Dialects: what is different from one database to the next behind JDBC."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from poollife.drivers.effects import LEAVES, UNKNOWN, memories
from poollife.drivers.jdbc import parameters
from poollife.drivers.jdbc.dbapi import Error
from poollife.drivers.jdbc.values import Getter, number_getter
from poollife.drivers.mysql import effects as mysql_effects
from poollife.drivers.mysql import errors as mysql_errors
from poollife.drivers.mysql import statements as mysql
from poollife.drivers.oracle import errors as oracle_errors
from poollife.drivers.oracle import statements as oracle
from poollife.drivers.postgresql import connection as postgresql_connection
from poollife.drivers.postgresql import effects as postgresql_effects
from poollife.drivers.postgresql import errors as postgresql_errors
from poollife.drivers.postgresql import statements as postgresql
from poollife.drivers.verdicts import OVER, Verdict

#: Exceptions that say that nothing was reached, at the opening of a session.
UNREACHED = frozenset({"ConnectException", "UnknownHostException", "NoRouteToHostException"})
#: Exceptions of java.sql for a session that has ended, whatever the SQLSTATE is.
LOST = frozenset({"java.sql.SQLRecoverableException", "java.sql.SQLNonTransientConnectionException"})

Reader = Mapping[bool, Mapping[object, int]]


@dataclass(frozen=True)
class Dialect:
    """A kind of database."""

    #: The port of a URL without one; None: not known.
    port: int | None
    #: The character around names.
    quote: str
    #: The text in which a percent sign is no parameter.
    pattern: re.Pattern[str]
    #: Effects of statements, by whether parameters are put in.
    effects: Reader
    #: The meaning of an error in a session.
    verdict: Callable[[Error], Verdict]
    #: Returns the function or variable in a statement that reads what another one has set.
    told_by: Callable[[object, int], str] = lambda statement, effects: "This statement"
    #: The database to connect to in order to make or drop another one.
    maintenance: str = ""
    #: The drivers' methods for the number of the session at the server.
    number_methods: tuple[str, ...] = ()
    #: Whether the driver tells the id that an INSERT has generated, without another statement.
    returns_keys: bool = False
    #: The parameters by which the server reports, with any answer, whether it takes writes.
    writability: tuple[str, ...] = ()
    #: The characters at the end of a statement that are for the database's shell, and that a server refuses.
    ends: tuple[str, ...] = ()
    #: Returns the function that reads a column of the type NUMERIC, by the description of the rows and the
    #: number of the column; None: it is a ``Decimal``.
    number_getter: Callable[[Any, int], Getter] | None = None

    def verdict_on(self, error: Error) -> Verdict:
        """Return the meaning of an error in a session."""
        return OVER if LOST.intersection(error.java_classes[:1]) else self.verdict(error)

    def verdict_on_opening(self, error: Error) -> Verdict:
        """Return the meaning of an error of ``connect()``."""
        verdict = self.verdict(error)
        if verdict not in (Verdict.NONE, OVER):
            return verdict
        if any(name.rpartition(".")[2] in UNREACHED for name in error.java_classes):
            return Verdict.LOST | Verdict.UNREACHABLE
        return self.verdict_on(error)


def _verdict_by_class(error: Error) -> Verdict:
    """Return the meaning of an error by the class of its SQLSTATE alone."""
    return {"08": OVER, "28": Verdict.REFUSED}.get((error.sqlstate or "")[:2], Verdict.NONE)


def _verdict_by_number(error: Error) -> Verdict:
    """Return the meaning of an error of MySQL or MariaDB, whose drivers use SQLSTATE for their own errors."""
    if error.code in mysql_errors.MEANINGS:
        return mysql_errors.verdict_on(Exception(error.code, str(error)))
    return _verdict_by_class(error)


def _verdict_of_oracle(error: Error) -> Verdict:
    """Return the meaning of an error of Oracle, whose SQLSTATEs say little."""
    return oracle_errors.SERVERS.get(error.code) or _verdict_by_class(error)


# --- statements -----------------------------------------------------------------------------------------

#: Statements of PostgreSQL that begin or end a transaction. Other drivers know by the server's status that
#: one is open; JDBC has no method for that.
_TRANSACTION = re.compile(
    rb"\s*(?:BEGIN|START|COMMIT|END|ABORT|PREPARE|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b))\b"
)


def _read_postgresql(sql: object, is_template: bool) -> int:
    effects = postgresql.read(sql, is_template)
    code = postgresql_effects.code_of(postgresql_effects.text_of(sql, is_template) or b"")
    return effects | LEAVES if any(map(_TRANSACTION.match, code.split(b";"))) else effects


def _read_oracle(sql: object, is_template: bool) -> int:
    if is_template and isinstance(sql, str):
        # As Oracle has parameters.
        sql = parameters.ORACLE.sub(lambda match: match["text"] or (":p" if match["parameter"] else "%"), sql)
    return oracle.read(sql)


#: Functions of the standard that leave nothing, and words before a parenthesis.
_KNOWN = """
    ABS AVG CASE CAST CEIL CEILING CHAR CHARACTER_LENGTH CHAR_LENGTH COALESCE COUNT DECIMAL EXISTS EXP EXTRACT
    FLOOR IN LN LOWER MAX MIN MOD NULLIF NUMERIC OVER POSITION POWER ROUND SQRT SUBSTRING SUM TRIM UPPER USING
    VALUES VARCHAR AND OR NOT ON WHERE FROM JOIN AS ANY ALL SOME SELECT UNION EXCEPT INTERSECT BY
"""
#: The beginning of a statement of a database whose SQL is not known.
_HEAD = re.compile(
    r"\s*(?:(?:SELECT|UPDATE|DELETE|SAVEPOINT|RELEASE\s+SAVEPOINT|ROLLBACK\s+TO)\b"
    r"|INSERT\s+INTO\s+[\w.]+(?:\s*\(|(?=\s+VALUES\b)))"
)
#: Its tokens: letters, numbers, plain strings and names, plain operators and known functions. "#", "@", "$",
#: ";" and "{" are not understood; nor is INTO but behind INSERT, since SELECT ... INTO may make a temporary
#: table. The last alternative captures all the rest.
_TOKEN = re.compile(
    r"[\s,()=<>!+*|.]++|-(?!-)|/(?!\*)|%S|%\(\w+\)S|'(?:[^'\\%]++|'')*'(?!')|\"[\w ]+\"(?!\s*\()"
    rf"|(?:{'|'.join(_KNOWN.split())})\s*\(|(?!(?:INTO|NEXT|NEXTVAL|CURRVAL|LASTVAL)\b)\w++(?!['\"]|\s*\()|((?s:.+))"
)


def _read_standard(sql: object, is_template: bool) -> int:
    if not isinstance(sql, str) or not sql.isascii():
        return UNKNOWN
    # A percent sign that is no parameter is an operator, or a character of a string.
    text = sql.upper().replace("%%" if is_template else "%", "|")
    head = _HEAD.match(text)
    # findall() returns the only group, which is empty for each token that is understood.
    return 0 if head and not any(_TOKEN.findall(text, head.end())) else UNKNOWN


# --- the dialects ---------------------------------------------------------------------------------------

STANDARD = Dialect(None, '"', parameters.STANDARD, memories(_read_standard), _verdict_by_class)
MYSQL = Dialect(
    3306,
    "`",
    parameters.MYSQL,
    mysql.EFFECTS,
    _verdict_by_number,
    mysql_effects.told_by,
    # MariaDB's driver, versions 2 and 3, and MySQL's.
    number_methods=("getServerThreadId", "getThreadId", "getId"),
    returns_keys=True,
)
POSTGRESQL = Dialect(
    5432,
    '"',
    parameters.POSTGRESQL,
    memories(_read_postgresql),
    postgresql_errors.verdict_on,
    postgresql_effects.told_by,
    maintenance="postgres",
    number_methods=("getBackendPID",),
    writability=postgresql_connection.REPORTED[-2:],
)
ORACLE = Dialect(
    1521,
    '"',
    parameters.ORACLE,
    memories(_read_oracle),
    _verdict_of_oracle,
    oracle.told_by,
    # As Django's Oracle backend does.
    ends=(";", "/"),
    number_getter=number_getter,
)
#: Dialects by a part of the URL before its "//".
BY_SUBPROTOCOL: dict[str, Dialect] = {
    "mariadb": MYSQL,
    "mysql": MYSQL,
    "postgresql": POSTGRESQL,
    "oracle": ORACLE,
}


def dialect_of(url: str) -> Dialect:
    """Return the dialect of a JDBC URL.

    :param url: such as "jdbc:mariadb://db.example.com/shop". A driver around another one may name itself
        first, as in "jdbc:aws-wrapper:postgresql://...".
    """
    parts = url.partition("//")[0].lower().split(":")
    return next((BY_SUBPROTOCOL[part] for part in parts if part in BY_SUBPROTOCOL), STANDARD)
