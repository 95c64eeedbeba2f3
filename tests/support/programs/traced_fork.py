"""A fork with a driver whose ``connect`` an APM tool has wrapped.

Arguments: the database, and whether the fork is a bare one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from django.db import connections
from opentelemetry.instrumentation.mysqlclient import MySQLClientInstrumentor

from tests.support.programs import children, databases


def use_the_parents() -> None:
    """Everything that ends on the wire, on what the parent has."""
    for attempt in (
        lambda: cursor.execute("SELECT 1"),
        lambda: raw.cursor().execute("SELECT 1"),
        lambda: raw.commit(),
        lambda: raw.rollback(),
        lambda: raw.ping(),
    ):
        try:
            attempt()
        except Exception as error:
            refusals.append(type(error).__name__)
    cursor.close()
    raw.close()


def child() -> dict[str, Any]:
    use_the_parents()
    return {"session": databases.session(), "refusals": refusals}


if __name__ == "__main__":
    entry, bare = map(json.loads, sys.argv[1:])
    MySQLClientInstrumentor().instrument()
    databases.set_up({"default": {**entry, "ENGINE": "poollife.backends.mysql"}})
    refusals: list[str] = []
    before = databases.session()
    raw: Any = connections["default"].connection
    cursor = connections["default"].cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    report = children.fork(child, bare=bare).finish()
    rest = cursor.fetchall()
    print(
        json.dumps(
            {
                "traced": type(raw).__name__,
                "child": report,
                "rows": rest,
                "before": before,
                "after": databases.session(),
            }
        )
    )
