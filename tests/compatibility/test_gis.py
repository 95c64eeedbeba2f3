"""``poollife.backends.mysql_gis`` and ``poollife.backends.postgis``: GeoDjango, pooled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from poollife.backends.creation import PooledCreation
from poollife.drivers.contract import Guarded
from servers import MariaDB, PacketProxy, PostgreSQL
from tests.conftest import MakeAlias, NewDatabase
from tests.kit.backends import ask, do
from tests.support import needs
from tests.support.counting import Questions, pool_of

MYSQL, POSTGIS = "poollife.backends.mysql_gis", "poollife.backends.postgis"
#: The database that the tests of PostGIS share: CREATE EXTENSION takes a second.
SHARED = "gis"
psycopg3_only = pytest.mark.skipif(not is_psycopg3, reason="with psycopg2 no session has adapters of its own")


@pytest.fixture
def places() -> ModuleType:
    """The module with the model."""
    needs.gis_libraries()
    from tests.support import places

    return places


@pytest.fixture(scope="session")
def postgis(postgresql: PostgreSQL) -> PostgreSQL:
    """The server, with a database that has PostGIS."""
    needs.postgis(postgresql)
    postgresql.create_database(SHARED)
    postgresql.execute("CREATE EXTENSION postgis", database=SHARED)
    return postgresql


@pytest.fixture
def make_postgis(places: ModuleType, postgis: PostgreSQL, make_alias: MakeAlias) -> Callable[..., str]:
    """A function that makes an alias on the shared database, with three places and one idle session."""

    def make(**entry: Any) -> str:
        alias = make_alias(POSTGIS, server=postgis, NAME=SHARED, **entry)
        if ask(alias, f"SELECT to_regclass('{places.Place._meta.db_table}')::text") is None:
            fill(places, alias)
        connections[alias].close()
        return alias

    return make


@pytest.fixture(params=[MYSQL, POSTGIS])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def alias(places: ModuleType, engine: str, request: pytest.FixtureRequest) -> str:
    """A database with three places, and one idle session."""
    if engine == POSTGIS:
        return request.getfixturevalue("make_postgis")()  # type: ignore[no-any-return]
    alias: str = request.getfixturevalue("make_alias")(engine)
    fill(places, alias)
    connections[alias].close()
    return alias


def fill(places: ModuleType, alias: str) -> None:
    """Make the table, and three places."""
    from django.contrib.gis.geos import Point

    with connections[alias].schema_editor() as editor:
        editor.create_model(places.Place)
    for name, x, y in [("harbour", 9.97, 53.54), ("island", 7.89, 54.18), ("castle", 11.42, 53.62)]:
        places.Place.objects.using(alias).create(name=name, point=Point(x, y, srid=places.SRID))


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


@pytest.mark.parametrize("engine", [MYSQL])
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


def test_it_is_geodjangos_backend_and_a_pooled_one(engine: str, alias: str) -> None:
    from django.contrib.gis.db.backends.mysql.base import DatabaseWrapper as OnMySQL
    from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper as OnPostgreSQL

    wrapper: Any = connections[alias]
    wrapper.ensure_connection()
    assert isinstance(wrapper, OnMySQL if engine == MYSQL else OnPostgreSQL)
    assert isinstance(wrapper.creation, PooledCreation)
    assert isinstance(wrapper.connection, Guarded)
    assert wrapper.features.gis_enabled


def test_tables_are_inspected(places: ModuleType, engine: str, alias: str) -> None:
    """The spatial index is there, and ``inspectdb`` knows the type of the column."""
    with connections[alias].cursor() as cursor:
        constraints = connections[alias].introspection.get_constraints(cursor, places.Place._meta.db_table)
    kinds = [it["type"] for it in constraints.values() if it["index"] and it["columns"] == ["point"]]
    assert kinds == ["spatial" if engine == MYSQL else "gist"]
    models = StringIO()
    call_command("inspectdb", database=alias, stdout=models)
    assert "point = models.GeometryField()" in models.getvalue()


# --- PostGIS ------------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(make_postgis: Callable[..., str], postgis: PostgreSQL) -> Iterator[tuple[str, PacketProxy]]:
    """An alias whose packets are counted."""
    with PacketProxy(postgis.host, postgis.port) as proxy:
        alias = make_postgis(PORT=str(proxy.port))
        yield alias, proxy
        connections[alias].close()
        pool_of(alias).drain("the test is over")


def in_a_thread(work: Callable[[], object]) -> None:
    """Run something in another thread, which has a wrapper of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_filter_uses_the_index(places: ModuleType, make_postgis: Callable[..., str]) -> None:
    alias = make_postgis()
    do(alias, "SET enable_seqscan = off")
    filtered = places.Place.objects.using(alias).filter(point__within=mainland(places))
    assert "Index Scan" in filtered.explain()
    connections[alias].close()


def test_warm_checkout_sends_nothing_in_any_thread(
    places: ModuleType, proxied: tuple[str, PacketProxy]
) -> None:
    alias, proxy = proxied
    found = []

    def request() -> None:
        found.append(names_in(places, alias, "within", mainland(places)))
        connections[alias].close()

    with proxy.counting() as count:
        for _ in range(5):
            request()
            in_a_thread(request)
    assert found == [["castle", "harbour"]] * 10
    assert count.total == 10


def test_version_of_postgis_is_asked_once_for_each_pool(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    found = []

    def request() -> None:
        found.append(connections[alias].ops.spatial_version)  # type: ignore[attr-defined]

    with proxy.counting() as count:
        for _ in range(3):
            in_a_thread(request)
    assert [text for text in count.texts if "version" in text] == [
        "SELECT version()",
        "SELECT postgis_lib_version()",
    ]
    assert len(set(found)) == 1
    assert found[0] >= (3,)


@psycopg3_only
def test_session_asks_for_its_types_by_one_packet(proxied: tuple[str, PacketProxy]) -> None:
    alias, proxy = proxied
    pool_of(alias).drain("another begins")
    with proxy.counting() as count:
        ask(alias, "SELECT 1")
    assert [text.partition(" oid")[0] for text in count.texts if "typname" in text] == ["SELECT typname,"]
    assert not {"BEGIN", "COMMIT", "ROLLBACK"} & set(count.texts)


#: With this option the numbers of the types are sent to the server, and otherwise their names.
SERVER_SIDE = {"sslmode": "disable", **({"server_side_binding": True} if is_psycopg3 else {})}
TWO = {"pool_size": 2, "max_overflow": 0, "timeout": 5}


def use(places: ModuleType, alias: str) -> None:
    """Insert, read back and find, in a transaction that is rolled back."""
    from django.contrib.gis.geos import Point

    with transaction.atomic(using=alias):
        for x in (8.5, 11):
            places.Place.objects.using(alias).create(name=f"new {x}", point=Point(x, 53.5, srid=places.SRID))
        new = places.Place.objects.using(alias).filter(name__startswith="new").order_by("pk")
        assert [place.point.coords for place in new] == [(8.5, 53.5), (11, 53.5)]
        assert "new 11" in names_in(places, alias, "within", mainland(places))
        transaction.set_rollback(True, using=alias)


def numbers_in_adapters(alias: str) -> set[Any]:
    """Return the numbers of the type geometry by which the session's adapters send and receive."""
    from django.contrib.gis.db.backends.postgis.adapter import PostGISAdapter
    from django.contrib.gis.geos import Point
    from psycopg.adapt import PyFormat

    connections[alias].ensure_connection()
    adapters = connections[alias].connection.adapters
    dumper = adapters.get_dumper(PostGISAdapter, PyFormat.TEXT)(PostGISAdapter)
    info = adapters.types.get("geometry")
    return {dumper.upgrade(PostGISAdapter(Point(1, 2)), PyFormat.TEXT).oid, info and info.oid}


@pytest.mark.parametrize("statements", [["SET my.a = '1'"], ["BEGIN", "SET TIME ZONE 'Asia/Tokyo'"]])
def test_adapters_outlive_a_reset(
    places: ModuleType, make_postgis: Callable[..., str], statements: list[str]
) -> None:
    alias = make_postgis(OPTIONS=SERVER_SIDE)
    resets = pool_of(alias).resets
    do(alias, *statements)
    connections[alias].close()
    assert pool_of(alias).resets == resets + 1
    use(places, alias)
    connections[alias].close()
    assert pool_of(alias).opened == 1


def test_idle_sessions_find_an_extension_that_another_session_has_created(
    places: ModuleType, make_alias: MakeAlias, postgis: PostgreSQL
) -> None:
    """The other session is the administrator's: no pool learns of it. One idle session has been reset."""
    alias = make_alias(POSTGIS, server=postgis, POOL=TWO, OPTIONS=SERVER_SIDE)

    def request() -> None:
        if ask(alias, "SELECT to_regtype('geometry')::text"):
            use(places, alias)
            used.append(alias)
        elif threading.current_thread() is threading.main_thread():
            do(alias, "SET my.a = '1'")
        connections[alias].close()

    def in_both_sessions() -> None:
        connections[alias].ensure_connection()
        in_a_thread(request)
        request()

    used: list[str] = []
    in_both_sessions()
    postgis.execute(
        "CREATE EXTENSION postgis;"
        f"CREATE TABLE {places.Place._meta.db_table} (id serial, name text, point geometry(POINT, 4326));"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {postgis.user};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {postgis.user}",
        database=connections[alias].settings_dict["NAME"],
    )
    in_both_sessions()
    assert used == [alias, alias]
    assert pool_of(alias).opened == 2


@psycopg3_only
def test_adapters_have_the_numbers_of_their_own_database(
    make_postgis: Callable[..., str], new_database: NewDatabase, postgis: PostgreSQL
) -> None:
    """One alias leads to both, as with a clone of a test database."""
    alias = make_postgis()
    other = new_database(postgis)
    postgis.execute("CREATE TYPE geometry AS (a int)", database=other)
    found = []
    for name in [connections[alias].settings_dict["NAME"], other] * 2:
        connections[alias].settings_dict["NAME"] = name
        number = ask(alias, "SELECT 'geometry'::regtype::oid::bigint")
        assert numbers_in_adapters(alias) == {number}
        connections[alias].close()
        found.append(number)
    assert len(set(found)) == 2
