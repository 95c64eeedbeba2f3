"""``poollife.backends.mysql_gis``: GeoDjango on MariaDB, pooled."""

from __future__ import annotations

from io import StringIO
from types import ModuleType
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from poollife.backends.creation import PooledCreation
from poollife.drivers.mysql.mysqlclient import GuardedConnection
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import needs
from tests.support.counting import Questions, pool_of

ENGINE = "poollife.backends.mysql_gis"


@pytest.fixture
def places() -> ModuleType:
    """The module with the model."""
    needs.gis_libraries()
    from tests.support import places

    return places


@pytest.fixture
def alias(places: ModuleType, make_alias: MakeAlias) -> str:
    """A database with three places, and one idle session."""
    from django.contrib.gis.geos import Point

    alias = make_alias(ENGINE)
    with connections[alias].schema_editor() as editor:
        editor.create_model(places.Place)
    for name, x, y in [("harbour", 9.97, 53.54), ("island", 7.89, 54.18), ("castle", 11.42, 53.62)]:
        places.Place.objects.using(alias).create(name=name, point=Point(x, y, srid=places.SRID))
    connections[alias].close()
    return alias


def names_in(places: ModuleType, alias: str, lookup: str, shape: Any) -> list[str]:
    found = places.Place.objects.using(alias).filter(**{f"point__{lookup}": shape}).order_by("name")
    return [place.name for place in found]


def mainland(places: ModuleType) -> Any:
    """A rectangle around two of the places."""
    from django.contrib.gis.geos import Polygon

    shape = Polygon.from_bbox((9, 53, 12, 54))
    shape.srid = places.SRID
    return shape


@pytest.mark.parametrize("lookup", ["within", "contained", "intersects"])
def test_places_within_a_shape(places: ModuleType, alias: str, lookup: str) -> None:
    for _ in range(2):
        assert names_in(places, alias, lookup, mainland(places)) == ["castle", "harbour"]
        connections[alias].close()
    assert pool_of(alias).opened == 1


def test_what_comes_back_is_a_point(places: ModuleType, alias: str) -> None:
    harbour = places.Place.objects.using(alias).get(name="harbour")
    assert (harbour.point.coords, harbour.point.srid) == ((9.97, 53.54), places.SRID)
    assert mainland(places).contains(harbour.point)


def test_the_nearest(places: ModuleType, alias: str) -> None:
    from django.contrib.gis.db.models.functions import Distance

    harbour = places.Place.objects.using(alias).get(name="harbour")
    others = places.Place.objects.using(alias).exclude(pk=harbour.pk)
    by_distance = others.annotate(distance=Distance("point", harbour.point)).order_by("distance")
    assert [place.name for place in by_distance] == ["castle", "island"]


def test_a_warm_checkout_sends_nothing(places: ModuleType, alias: str, mariadb: MariaDB) -> None:
    shape = mainland(places)
    names_in(places, alias, "within", shape)
    connections[alias].close()
    with Questions(mariadb) as asked:
        for _ in range(10):
            names_in(places, alias, "within", shape)
            connections[alias].close()
    assert asked.count == 10
    assert (pool_of(alias).opened, pool_of(alias).out) == (1, 0)


def test_it_is_geodjangos_backend_and_a_pooled_one(alias: str) -> None:
    from django.contrib.gis.db.backends.mysql.base import DatabaseWrapper

    wrapper = connections[alias]
    wrapper.ensure_connection()
    assert isinstance(wrapper, DatabaseWrapper)
    assert isinstance(wrapper.creation, PooledCreation)
    assert type(wrapper.connection) is GuardedConnection
    assert wrapper.features.gis_enabled


def test_tables_are_inspected(places: ModuleType, alias: str) -> None:
    """The spatial index is there, and ``inspectdb`` knows the type of the column."""
    with connections[alias].cursor() as cursor:
        constraints = connections[alias].introspection.get_constraints(cursor, places.Place._meta.db_table)
    assert [it["columns"] for it in constraints.values() if it["type"] == "spatial"] == [["point"]]
    models = StringIO()
    call_command("inspectdb", database=alias, stdout=models)
    assert "point = models.GeometryField()" in models.getvalue()
