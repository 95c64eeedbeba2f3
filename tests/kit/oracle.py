"""The description of python-oracledb, with the stand-in for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError

from servers import OracleStandIn
from tests.kit.description import Backend, Count, Leaving


def half_read(wrapper: Any) -> Callable[[], object]:
    """Read the rows of a cursor by half: the server has the rest."""
    cursor = wrapper.connection.cursor()
    cursor.execute("SELECT LEVEL FROM DUAL CONNECT BY LEVEL <= 1000")
    cursor.fetchone()
    return lambda: len(cursor.fetchall()) == 999 and not cursor.close()


@contextmanager
def by_log(server: OracleStandIn) -> Iterator[tuple[dict[str, Any], Count]]:
    """Have the server count."""

    def count(work: Callable[[], object]) -> int:
        before = server.count()
        work()
        return server.count() - before

    yield {}, count


ORACLE = Backend(
    "oracledb",
    "poollife.backends.oracle",
    "oracle",
    "SELECT SYS_CONTEXT('USERENV', 'SID') FROM DUAL",
    "SELECT COUNT(*) FROM v$session WHERE blocking_session IS NOT NULL",
    {"plain": half_read},
    {
        "setting": Leaving(
            ("ALTER SESSION SET NLS_DATE_FORMAT = 'DD.MM.YYYY'",),
            "SELECT value FROM nls_session_parameters WHERE parameter = 'NLS_DATE_FORMAT'",
            "YYYY-MM-DD HH24:MI:SS",
        ),
        "schema": Leaving(
            ("ALTER SESSION SET CURRENT_SCHEMA = SYS",),
            "SELECT SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') FROM DUAL",
            "POOLLIFE",
        ),
        "isolation level": Leaving(
            ("ALTER SESSION SET ISOLATION_LEVEL = SERIALIZABLE",),
            "SELECT value FROM nls_session_parameters WHERE parameter = 'ISOLATION_LEVEL'",
            "READ COMMITTED",
        ),
        "block": Leaving(
            ("BEGIN DBMS_APPLICATION_INFO.SET_CLIENT_INFO('kit'); END;",),
            "SELECT SYS_CONTEXT('USERENV', 'CLIENT_INFO') FROM DUAL",
            None,
        ),
        "role": Leaving(("SET ROLE NONE",), "SELECT COUNT(*) FROM session_roles", 1),
    },
    counting=by_log,
    lost=DatabaseError,
    resets=False,
    vias=("tcp", "tls"),
)
