"""Invariant 3 costs a site nothing: no statement that Django's ORM makes for PostgreSQL is dirty.

Named in ``DIRTY`` are the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import DatabaseError, connections, models
from django.db.models import Value
from django.db.models.functions import Cast, Lower

from poollife.drivers.effects import LEAVES
from poollife.drivers.postgresql.statements import EFFECTS
from tests.support import orm
from tests.support.orm_forms import CASTS, Form, Thing, forms, shown
from tests.support.postgresql_server import running_server

pytest.importorskip("psycopg")

from django.contrib.postgres import aggregates, search
from django.contrib.postgres import functions as postgres_functions
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import ArrayField, DateRangeField, HStoreField, IntegerRangeField
from django.contrib.postgres.signals import register_type_handlers

ALIAS = "postgresql_orm"
#: Forms that cost a reset: UUID7 calls a function that PostgreSQL has from 18 on, JSONArray one from 16 on.
DIRTY = {"UUID7", "JSONArray"}
#: Forms that Django or the server refuses: a cast of the text of a row, and comparisons of other types.
UNSUPPORTED = re.compile(r"UUID4|UUID7|AnyValue|JSONArray|Cast|\w+__iexact|\w+__contained_by|raw__\w+")
EXTENSIONS = (
    "CREATE EXTENSION pg_trgm; CREATE EXTENSION unaccent; CREATE EXTENSION hstore; CREATE EXTENSION pgcrypto"
)


class Special(models.Model):
    """A row with columns that only PostgreSQL has."""

    text = models.CharField(max_length=50, default="")
    numbers = ArrayField(models.IntegerField(), default=list)
    pairs = HStoreField(default=dict)
    span = IntegerRangeField(null=True)
    days = DateRangeField(null=True)
    data = models.JSONField(default=dict)

    class Meta:
        apps = Apps(["tests.support"])
        app_label = "support"


@pytest.fixture(scope="module")
def sent() -> Iterator[list[tuple[str, bool]]]:
    """The texts that the alias has sent, as the cursor gets them, and whether they are templates."""
    with running_server() as server:
        parameters = server.parameters
        known = {
            **connections.settings,
            ALIAS: {
                "ENGINE": "django.db.backends.postgresql",
                **{key.upper(): parameters[key] for key in ("host", "port", "user", "password")},
                "NAME": parameters["dbname"],
            },
        }
        connections.settings = connections.configure_settings(known)
        connection: Any = connections[ALIAS]
        with connection.cursor() as cursor:
            cursor.execute(EXTENSIONS)
        texts: list[tuple[str, bool]] = []

        def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
            texts.append((sql, params is not None))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield texts
        connection.close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


def dirty_of(sent: list[tuple[str, bool]]) -> list[str]:
    found = [str(sql) for sql, is_template in sent if EFFECTS[is_template][sql] & LEAVES]
    sent.clear()
    return found


def run(named: Iterator[tuple[str, Form]], things: Any, sent: list[tuple[str, bool]]) -> tuple[Any, Any, int]:
    dirty, failed, ran = {}, {}, 0
    for name, form in named:
        sent.clear()
        try:
            form(things)
        except DatabaseError as error:
            failed[name] = str(error)
        ran += len(sent)
        if found := dirty_of(sent):
            dirty[name] = found
    return dirty, failed, ran


def test_no_form_of_the_orm_is_dirty(sent: list[tuple[str, bool]]) -> None:
    with connections[ALIAS].schema_editor() as editor:
        editor.create_model(Thing)
    things = Thing._default_manager.using(ALIAS)
    things.create(text="first", data={"a": [1]})
    things.create(text="second", parent=things.first(), number=1)
    dirty, failed, ran = run(forms(), things, sent)
    assert {name: text for name, text in failed.items() if not UNSUPPORTED.fullmatch(name)} == {}
    assert {name: sqls for name, sqls in dirty.items() if name not in DIRTY} == {}
    assert ran > 500, "too few to mean anything"


@pytest.mark.parametrize(("column", "field"), CASTS)
def test_no_cast_is_dirty(sent: list[tuple[str, bool]], column: str, field: Any) -> None:
    query = Thing._default_manager.using(ALIAS).values(it=Cast(column, field)).query
    sql, _ = query.get_compiler(ALIAS).as_sql()
    assert not EFFECTS[True][sql] & LEAVES


def test_no_step_of_a_site_is_dirty(sent: list[tuple[str, bool]]) -> None:
    dirty = {}
    for step in orm.traffic(ALIAS):
        if found := [sql for sql in dirty_of(sent) if not sql.startswith(("CREATE ", "ALTER "))]:
            dirty[step] = found
    assert dirty == {}


def aggregated(expression: Any, things: Any) -> object:
    return things.aggregate(it=expression)


def filtered(condition: dict[str, Any], things: Any) -> object:
    return list(things.filter(**condition))


def special_forms() -> Iterator[tuple[str, Form]]:
    """Forms of django.contrib.postgres: each aggregate, function, search expression and lookup."""
    columns = {
        "ArrayAgg": "text",
        "StringAgg": "text",
        "JSONBAgg": "text",
        "BoolAnd": "flag",
        "BoolOr": "flag",
    }
    for name in aggregates.general.__all__:
        arguments: list[Any] = [models.Q(id=1) if name.startswith("Bool") else columns.get(name, "id")]
        if name == "StringAgg":
            arguments.append(Value(","))
        kind = getattr(aggregates, name)
        yield name, partial(aggregated, kind(*arguments))
    for name in sorted({*aggregates.statistics.__all__} - {"StatAggregate"}):
        kind = getattr(aggregates, name)
        yield name, partial(aggregated, kind("id", "id"))
    for name in "RandomUUID", "TransactionNow":
        yield name, shown(getattr(postgres_functions, name)())
    vector = search.SearchVector("text", config="english", weight="A")
    query = search.SearchQuery("a | b", search_type="raw", config="english") & search.SearchQuery("c")
    yield "SearchRank", shown(search.SearchRank(vector, query, cover_density=True, normalization=Value(2)))
    yield "SearchVector", lambda things: list(things.annotate(it=vector).filter(it=query))
    yield (
        "SearchHeadline",
        shown(search.SearchHeadline("text", query, start_sel="<b>", min_words=1, max_words=9)),
    )
    for name in "TrigramSimilarity", "TrigramDistance":
        yield name, shown(getattr(search, name)("text", "x"))
    for name in "TrigramWordSimilarity", "TrigramWordDistance", "TrigramStrictWordSimilarity":
        yield name, shown(getattr(search, name)("x", "text"))
    yield "TrigramStrictWordDistance", shown(search.TrigramStrictWordDistance("x", "text"))
    yield "ArraySubquery", lambda things: list(things.annotate(it=ArraySubquery(things.values("text"))))
    yield "Lower", shown(Lower("text"))
    for path, value in LOOKUPS.items():
        yield path, partial(filtered, {path: value})


LOOKUPS = {
    "text__unaccent": "x", "text__unaccent__icontains": "x", "text__trigram_similar": "x",
    "text__trigram_word_similar": "x", "text__trigram_strict_word_similar": "x", "text__search": "x",
    "numbers__contains": [1], "numbers__contained_by": [1], "numbers__overlap": [1], "numbers__len": 1,
    "numbers__0": 1, "numbers__0_2": [1], "numbers": [1], "numbers__in": [[1]], "pairs__a": "x",
    "pairs__contains": {"a": "b"}, "pairs__contained_by": {"a": "b"}, "pairs__has_key": "a",
    "pairs__has_keys": ["a"], "pairs__has_any_keys": ["a"], "pairs__keys": ["a"], "pairs__values": ["a"],
    "span__contains": 4, "span__contained_by": (1, 9), "span__overlap": (1, 2), "span__fully_lt": (1, 2),
    "span__fully_gt": (1, 2), "span__not_lt": (1, 2), "span__not_gt": (1, 2), "span__adjacent_to": (1, 2),
    "span__startswith": 1, "span__endswith": 1, "span__isempty": True, "span__lower_inc": True,
    "span__lower_inf": True, "span__upper_inc": True, "span__upper_inf": True,
    "data__contains": {"a": 1}, "data__has_any_keys": ["a"], "data__a__b": 1,
}  # fmt: skip


# Django 6.1 deprecates BitAnd and its like here, for those that all databases have.
@pytest.mark.filterwarnings("ignore:The PostgreSQL.specific")
def test_no_form_of_contrib_postgres_is_dirty(sent: list[tuple[str, bool]]) -> None:
    from django.contrib.postgres.lookups import (
        SearchLookup,
        TrigramSimilar,
        TrigramStrictWordSimilar,
        TrigramWordSimilar,
        Unaccent,
    )

    lookups = (SearchLookup, TrigramSimilar, TrigramStrictWordSimilar, TrigramWordSimilar, Unaccent)
    for lookup in lookups:  # as the app's ready() does
        models.CharField.register_lookup(lookup)
    try:
        with connections[ALIAS].schema_editor() as editor:
            editor.create_model(Special)
        register_type_handlers(connections[ALIAS])
        specials = Special._default_manager.using(ALIAS)
        specials.create(text="x", numbers=[1, 2], pairs={"a": "b"}, span=(1, 5))
        dirty, failed, ran = run(special_forms(), specials, sent)
    finally:
        for lookup in lookups:
            models.CharField._unregister_lookup(lookup)  # type: ignore[arg-type]
    assert failed == {}
    assert dirty == {}
    assert ran > 60, "too few to mean anything"
