"""Invariant 3 costs a site nothing: no statement that Django's ORM makes of its own forms counts as dirt.

But for those that docs/settings.md names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.test.utils import CaptureQueriesContext

from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.counting import pool_of
from tests.support.orm_forms import Thing, forms

SETTINGS = ROOT / "docs" / "settings.md"
#: Forms that Django or the server refuses.
UNSUPPORTED = {
    *("data__contained_by", "data__contains", "data__a__b__contains"),  # SQLite
    *("UUID4", "UUID7", "AnyValue"),  # of Django 6.0 and 6.1: newer servers, Python 3.14
}


def named_in_docs() -> set[str]:
    """The forms in the list of those that cost a reset."""
    (row,) = re.findall(r"^Of the ORM's own forms, these cost a reset: (.*?)\.$", SETTINGS.read_text(), re.M)
    return {*re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("engine", ["mysql", "sqlite3"])
def test_no_form_of_the_orm_is_dirty(make_alias: MakeAlias, tmp_path: Path, engine: str) -> None:
    entry: dict[str, Any] = {"NAME": str(tmp_path / "db.sqlite3")} if engine == "sqlite3" else {}
    alias = make_alias(f"poollife.backends.{engine}", POOL={"pool_size": 1, "max_overflow": 0}, **entry)
    connection: Any = connections[alias]
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    things = Thing._default_manager.using(alias)
    things.create(text="first", data={"a": [1]})
    things.create(text="second", parent=things.first(), number=1)
    connection.close()
    dirty, failed, ran = {}, {}, 0
    for name, form in forms():
        connection.ensure_connection()
        with CaptureQueriesContext(connection) as queries:
            try:
                form(things)
            except DatabaseError as error:
                failed[name] = str(error)
        ran += len(queries)
        if connection.lease.driver.dirty:
            dirty[name] = [query["sql"] for query in queries]
        connection.close()
    assert failed.keys() <= UNSUPPORTED, failed
    assert {name: sqls for name, sqls in dirty.items() if name not in named_in_docs()} == {}
    assert ran > 500, "too few to mean anything"
    assert pool_of(alias).out == 0
