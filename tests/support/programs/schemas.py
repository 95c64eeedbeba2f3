"""django-tenants on pooled sessions: a schema for each tenant, and sessions that belong to none.

Arguments: the name of the case, and the settings of a database. Prints its findings. django-tenants needs an
app of Django's, and so a process of its own.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import django
from django.conf import settings as django_settings

Settings = dict[str, Any]


def set_up(settings: Settings, **more: Any) -> None:
    """Begin with two schemas, each with a table of the same name and one row."""
    django_settings.configure(
        DATABASES={"default": settings},
        INSTALLED_APPS=["poollife", "django.contrib.contenttypes"],
        USE_TZ=True,
        TIME_ZONE="UTC",
        **more,
    )
    django.setup()
    from django.db import connection

    with connection.cursor() as cursor:
        for schema in ("one", "two", "public"):
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            cursor.execute(f"CREATE TABLE {schema}.note (text TEXT)")
            cursor.execute(f"INSERT INTO {schema}.note VALUES (%s)", [schema])
    connection.close()


def note() -> str:
    """Return the row of the table that the search path leads to."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM note")
        return str(cursor.fetchone()[0])


def each_tenant_has_its_schema() -> dict[str, Any]:
    """Have threads of two tenants borrow one session in turn."""
    from django.db import connection

    from poollife import PooledThread, pool_stats

    found: set[tuple[str, str]] = set()

    def work(tenant: str) -> None:
        connection.set_schema(tenant)  # type: ignore[attr-defined]  # django-tenants' own
        for _ in range(5):
            found.add((tenant, note()))
            connection.close()

    threads = [PooledThread(target=work, args=[name]) for name in ["one", "two"] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"found": sorted(found), "opened": pool_stats()["default"]["opened"]}


def the_next_borrower_has_the_path_of_the_login() -> dict[str, Any]:
    """Borrow for a tenant, and then look at the session with a cursor that sets no path."""
    from django.db import connection

    connection.set_schema("one")  # type: ignore[attr-defined]
    note()
    connection.close()
    connection.ensure_connection()
    cursor = connection.connection.cursor()
    cursor.execute("SHOW search_path")
    path = cursor.fetchone()[0]
    cursor.close()
    connection.close()
    return {"path": path}


def a_tenant_keeps_its_schema_between_two_works() -> dict[str, Any]:
    """Query in two works of one thread, which returns its session in between without ``close()``."""
    from django.db import connection

    from poollife import auto_close_db

    found = []

    def work() -> None:
        connection.set_schema("two")  # type: ignore[attr-defined]
        for _ in range(3):
            with auto_close_db():
                found.append(note())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return {"found": found}


CASES = [
    each_tenant_has_its_schema,
    the_next_borrower_has_the_path_of_the_login,
    a_tenant_keeps_its_schema_between_two_works,
]


if __name__ == "__main__":
    case, settings, limits_set_calls = map(json.loads, sys.argv[1:])
    set_up(settings, TENANT_LIMIT_SET_CALLS=limits_set_calls)
    found = next(each for each in CASES if each.__name__ == case)()
    from django.db import connections

    connections.close_all()
    print(json.dumps(found))
