"""The data of the stand-in: a file of SQLite for each user of a database, and what sessions do with it."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.oracle.columns import Column, column_of, column_of_values
from servers.oracle.sql import Statement, translate

#: Seconds between two looks of a session that waits: whether it was killed, or interrupted by its client.
LOOK = 0.01
#: The settings of a new session that a test may ask for.
SETTINGS = {
    "NLS_TERRITORY": "AMERICA",
    "NLS_DATE_FORMAT": "DD-MON-RR",
    "NLS_TIMESTAMP_FORMAT": "DD-MON-RR HH.MI.SSXFF AM",
    "NLS_LANGUAGE": "AMERICAN",
    "TIME_ZONE": "+00:00",
    "ISOLATION_LEVEL": "READ COMMITTED",
    # Of the user's profile, in Oracle.
    "IDLE_TIME": "UNLIMITED",
}
#: Views with the names of Oracle's catalog. The tables of SQLite's own names are left out.
_VIEWS = """
CREATE TEMP VIEW dual AS SELECT 'X' AS dummy;
CREATE TEMP VIEW user_tables AS SELECT upper(name) AS table_name FROM main.sqlite_master
    WHERE type = 'table' AND name NOT LIKE 'sqlite%';
CREATE TEMP VIEW user_tab_comments AS SELECT table_name, NULL AS comments FROM user_tables;
CREATE TEMP VIEW user_mviews AS SELECT NULL AS mview_name WHERE 0;
CREATE TEMP VIEW user_views AS SELECT NULL AS view_name WHERE 0;
CREATE TEMP VIEW nls_session_parameters AS SELECT value AS parameter, setting(value) AS value
    FROM json_each(setting(NULL));
CREATE TEMP VIEW v_session AS SELECT value AS blocking_session FROM json_each(waiting());
CREATE TEMP VIEW user_resource_limits AS SELECT 'IDLE_TIME' AS resource_name, setting('IDLE_TIME') AS "limit";
CREATE TEMP VIEW session_roles AS SELECT value AS role FROM json_each(sys_context('USERENV', 'ROLES'));
"""
_SET = re.compile(r"(\w+)\s*=\s*('[^']*'|\"[^\"]*\"|[\w.]+(?: COMMITTED)?)")
#: Oracle's errors, by what SQLite says.
_ERRORS = [
    (r"UNIQUE constraint failed: (.*)", 1, "unique constraint ({}) violated"),
    (r"NOT NULL constraint failed: (.*)", 1400, 'cannot insert NULL into ("{}")'),
    (r"CHECK constraint failed: (.*)", 2290, "check constraint ({}) violated"),
    (r"no such table: (.*)", 942, 'table or view "{}" does not exist'),
    (r"no such column: (.*)", 904, '"{}": invalid identifier'),
    (r"no such function: (.*)", 904, '"{}": invalid identifier'),
    (r"table (.*) already exists", 955, "name {} is already used by an existing object"),
]


class OracleError(Exception):
    """An error with one of Oracle's numbers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"ORA-{code:05}: {text}")
        self.code = code


@dataclass
class Answer:
    """The answer to a statement."""

    columns: list[Column] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0
    #: The values of RETURNING, for each execution: the rows.
    returned: list[list[tuple[Any, ...]]] = field(default_factory=list)


class Lock:
    """The lock on a file: while a session has changed rows, another one waits before it changes any."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._owner: object = None
        #: The number of sessions that wait.
        self.waiting = 0

    def acquire(self, owner: object, look: Callable[[], None]) -> None:
        """Wait for the lock.

        :param look: called now and then; it raises an error if the wait has to end.
        """
        with self._condition:
            self.waiting += 1
            try:
                while self._owner not in (None, owner):
                    self._condition.wait(LOOK)
                    look()
                self._owner = owner
            finally:
                self.waiting -= 1

    def release(self, owner: object) -> None:
        """Let the next session go on, if this one has the lock."""
        with self._condition:
            if self._owner is owner:
                self._owner = None
                self._condition.notify_all()


class Store:
    """The users, and their files."""

    def __init__(self, folder: Path, user: str, password: str) -> None:
        """
        :param folder: where the files are.
        """
        self._folder = folder
        self.users = {user.upper(): password}
        self.databases: set[str] = set()
        self._locks: dict[Path, Lock] = {}

    def path(self, database: str, user: str) -> Path:
        """Return the file of a user's tables."""
        return self._folder / f"{database}.{user}.sqlite"

    def lock(self, path: Path) -> Lock:
        """Return the lock of a file."""
        return self._locks.setdefault(path, Lock())

    def create(self, database: str) -> None:
        """Make an empty database, in place of one of that name."""
        self.drop(database)
        self.databases.add(database)

    def drop(self, database: str) -> None:
        """Remove a database."""
        self.databases.discard(database)
        for path in self._folder.glob(f"{database}.*"):
            path.unlink(missing_ok=True)

    def administer(self, text: str) -> None:
        """Carry out what concerns users; tablespaces are not kept."""
        if found := re.match(
            r"\s*(?:CREATE|ALTER)\s+USER\s+\"?(\w+)\"?\s+IDENTIFIED\s+BY\s+\"(.*?)\"", text, re.I
        ):
            self.users[found[1].upper()] = found[2]
        elif found := re.match(r"\s*DROP\s+USER\s+\"?(\w+)", text, re.I):
            if self.users.pop(found[1].upper(), None) is None:
                raise OracleError(1918, f"user '{found[1]}' does not exist")
            for path in self._folder.glob(f"*.{found[1].upper()}.sqlite*"):
                path.unlink(missing_ok=True)


class Handle:
    """The data, as one session uses them."""

    def __init__(
        self, store: Store, database: str, user: str, session: int, look: Callable[[], None]
    ) -> None:
        """
        :param session: its number.
        :param look: see ``Lock.acquire()``.
        """
        self._store, self._look, self._session = store, look, session
        path = store.path(database, user)
        self._lock = store.lock(path)
        self._settings = dict(SETTINGS)
        self._context = {
            "SID": str(session),
            "SESSION_USER": user,
            "CURRENT_SCHEMA": user,
            "DB_NAME": database,
            "CLIENT_INFO": None,
            "ROLES": '["CONNECT"]',
        }
        #: Whether a transaction is open.
        self.in_transaction = False
        self._sqlite = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._sqlite.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
        self._sqlite.execute("PRAGMA case_sensitive_like = ON")
        self._make_functions()
        self._sqlite.executescript(_VIEWS)
        self._described: dict[str, list[Column]] = {}

    def _make_functions(self) -> None:
        make = self._sqlite.create_function
        make("sys_context", 2, lambda _, name: self._context.get(name.upper()))
        make(
            "setting",
            1,
            lambda name: str(list(SETTINGS)).replace("'", '"') if name is None else self._settings[name],
        )
        make("waiting", 0, lambda: str([0] * self._lock.waiting))
        for name in (
            "to_number",
            "to_nclob",
            "to_clob",
            "to_blob",
            "to_date",
            "to_timestamp",
            "dbms_lob_substr",
        ):
            make(name, 1, lambda value: value)
        make("nvl", 2, lambda value, other: other if value is None else value)

    def close(self) -> None:
        """Roll back, and close the file."""
        with suppress(sqlite3.Error):
            self.rollback()
        self._sqlite.close()

    # --- transactions -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self.in_transaction:
            self._lock.acquire(self, self._look)
            self.in_transaction = True
            self._sqlite.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction."""
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        if self.in_transaction:
            try:
                if self._sqlite.in_transaction:
                    self._sqlite.execute(how)
            finally:
                self.in_transaction = False
                self._lock.release(self)

    # --- statements -------------------------------------------------------------------------------------

    def execute(self, text: str, rows: list[list[Any]], commit: bool = False) -> Answer:
        """Execute a statement.

        :param rows: the values of the binds, for each execution. Those of RETURNING are not among them.
        :param commit: whether a commit follows.
        :raises OracleError: as Oracle would.
        """
        statement = translate(text)
        with _oracle_errors():
            answer: Answer = getattr(self, f"_run_{statement.kind}")(statement, rows or [[]])
        if commit:
            self.commit()
        return answer

    @staticmethod
    def outputs(text: str) -> int:
        """Return how many binds of a statement take values; they are its last ones."""
        return translate(text).returned

    def _columns(self, statement: Statement) -> list[Column]:
        if statement.text not in self._described:
            # The types of a view's columns are those of the tables, where there are any.
            self._sqlite.execute(f"CREATE TEMP VIEW described AS {statement.without_binds}")
            try:
                found = self._sqlite.execute("PRAGMA temp.table_info(described)").fetchall()
            finally:
                self._sqlite.execute("DROP VIEW temp.described")
            self._described[statement.text] = [column_of(name, declared) for _, name, declared, *_ in found]
        return self._described[statement.text]

    def _run_query(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        if statement.locks:
            self._begin()
        columns = self._columns(statement)
        found = self._sqlite.execute(statement.translated, rows[0]).fetchall()
        columns = [
            column if column.data_type else column_of_values(column.name, (row[at] for row in found))
            for at, column in enumerate(columns)
        ]
        return Answer(columns, found)

    def _run_change(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self._begin()
        answer = Answer()
        # A statement that fails undoes itself, and not its transaction.
        self._sqlite.execute("SAVEPOINT statement")
        try:
            for values in rows:
                cursor = self._sqlite.execute(statement.translated, values)
                found = cursor.fetchall() if statement.returned else []
                if statement.returned:
                    answer.returned.append(found)
                answer.count += len(found) if statement.returned else max(cursor.rowcount, 0)
        except sqlite3.Error:
            self._sqlite.execute("ROLLBACK TO statement")
            raise
        finally:
            self._sqlite.execute("RELEASE statement")
        return answer

    def _run_definition(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self.commit()
        self._begin()
        self._described.clear()
        try:
            text = statement.translated
            self._sqlite.execute(re.sub(r"^\s*TRUNCATE\s+TABLE", "DELETE FROM", text, flags=re.I))
        except sqlite3.Error:
            self.rollback()
            raise
        self.commit()
        return Answer()

    def _run_savepoint(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self._begin()
        self._sqlite.execute(statement.translated)
        return Answer()

    def _run_lock(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self._begin()
        return Answer()

    def _run_commit(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self.commit()
        return Answer()

    def _run_rollback(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self.rollback()
        return Answer()

    def _run_session(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        if re.match(r"\s*SET\s+ROLE", statement.text, re.I):
            self._context["ROLES"] = "[]"
        for name, value in _SET.findall(statement.text):
            place: dict[str, Any] = self._context if name.upper() in self._context else self._settings
            place[name.upper()] = value.strip("'\"")
        return Answer()

    def _run_block(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        if found := re.search(r"SLEEP\s*\(\s*([\d.]+)\s*\)", statement.text, re.I):
            self.sleep(float(found[1]))
        elif found := re.search(r"SET_CLIENT_INFO\s*\(\s*'(.*?)'", statement.text, re.I):
            self._context["CLIENT_INFO"] = found[1]
        return Answer()

    def sleep(self, seconds: float) -> None:
        """Wait, as DBMS_SESSION.SLEEP does."""
        ended = threading.Event()
        for _ in range(int(seconds / LOOK)):
            ended.wait(LOOK)
            self._look()

    def _run_administration(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self.commit()
        self._store.administer(statement.text)
        return Answer()

    def _run_nothing(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        self.commit()
        return Answer()

    def _run_unknown(self, statement: Statement, rows: list[list[Any]]) -> Answer:
        raise OracleError(900, "invalid SQL statement")


@contextmanager
def _oracle_errors() -> Iterator[None]:
    """Raise Oracle's error for SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        for pattern, code, text in _ERRORS:
            if found := re.search(pattern, str(error)):
                raise OracleError(code, text.format(found[1])) from error
        raise OracleError(900, f"invalid SQL statement ({error})") from error
