"""What Django's ORM sends for a site, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps.registry import Apps
from django.db import IntegrityError, connections, models, transaction
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models import functions as f
from django.utils.timezone import override

#: Not the site's.
apps = Apps(["tests.support.orm"])


class Author(models.Model):
    """Who writes."""

    name = models.CharField(max_length=100, unique=True)
    mail = models.EmailField()
    data = models.JSONField(default=dict)

    class Meta:
        apps = apps
        app_label = "orm"


class Book(models.Model):
    """What is written; with a column of each type."""

    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    readers = models.ManyToManyField(Author, related_name="read")
    title = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=1)
    weight = models.FloatField(default=1)
    pages = models.IntegerField(default=1)
    cover = models.BinaryField(default=b"")
    sold = models.BooleanField(default=False)
    written = models.DateTimeField(null=True)
    lent = models.DurationField(null=True)

    class Meta:
        apps = apps
        app_label = "orm"


TEXT = "it's 100 %; @left := 1 -- # /*! \\' \" `"
THEN = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)


def traffic(alias: str) -> Iterator[str]:
    """Makes the tables, then yields behind each step, for the caller to look what it has left."""
    connection = connections[alias]
    with connection.schema_editor() as editor:
        editor.create_model(Author)
        editor.create_model(Book)
    connection.close()
    for step in STEPS:
        step(alias)
        yield step.__name__


STEPS: list[Callable[[str], object]] = []


def step(function: Callable[[str], object]) -> Callable[[str], object]:
    STEPS.append(function)
    return function


def authors(alias: str) -> Any:
    return Author._default_manager.using(alias)


def books(alias: str) -> Any:
    return Book._default_manager.using(alias)


@step
def create(alias: str) -> None:
    author = authors(alias).create(name="O'Reilly", mail="o'reilly@example.com", data={"@": [1, {"a": TEXT}]})
    books(alias).create(
        author=author, title=TEXT, cover=TEXT.encode(), written=THEN, lent=timedelta(days=1, seconds=2)
    )


@step
def bulk(alias: str) -> None:
    authors(alias).bulk_create(Author(name=f"{TEXT}{number}", mail="x@example.com") for number in range(1000))
    authors(alias).bulk_create([Author(name="O'Reilly", mail="y@example.com")], ignore_conflicts=True)
    rows = list(authors(alias).all()[:10])
    for row in rows:
        row.mail = f"{row.pk}@example.com"
    authors(alias).bulk_update(rows, ["mail"])
    unique = {} if connections[alias].vendor == "mysql" else {"unique_fields": ["name"]}
    authors(alias).bulk_create(rows, update_conflicts=True, update_fields=["mail"], **unique)


@step
def read(alias: str) -> None:
    author = authors(alias).get(name="O'Reilly")
    assert author.mail == "o'reilly@example.com" or author.mail.endswith("@example.com")
    assert books(alias).get(author=author).title == TEXT
    list(authors(alias).filter(pk__in=range(300)).order_by("-name")[5:15])
    list(
        authors(alias).filter(Q(name__contains="%") | ~Q(mail__iendswith="@x.org"), name__regex="^O").values()
    )
    list(authors(alias).filter(name__startswith=F("mail")).exclude(name__icontains=F("mail")))
    list(books(alias).select_related("author").prefetch_related(Prefetch("readers")))
    list(authors(alias).filter(data__a__0="x", data__has_key="@"))
    if connections[alias].features.supports_json_field_contains:
        list(authors(alias).filter(data__contains={"a": 1}))
    with override(UTC):  # the server may not know other time zones
        list(books(alias).dates("written", "month"))
        list(books(alias).datetimes("written", "hour"))
    list(books(alias).filter(written__year=2020, written__week_day=7, written__date=THEN.date()))
    assert authors(alias).exists()
    authors(alias).in_bulk([1, 2])
    list(authors(alias).iterator(chunk_size=100))
    authors(alias).explain()


@step
def aggregate(alias: str) -> None:
    books(alias).aggregate(
        Sum("price"), Avg("weight"), Count("author", distinct=True), models.StdDev("pages")
    )
    list(
        authors(alias)
        .annotate(
            n=Count("books"), best=Subquery(books(alias).filter(author=OuterRef("pk")).values("title")[:1])
        )
        .filter(n__gte=0)[:5]
    )
    list(authors(alias).filter(Exists(books(alias).filter(author=OuterRef("pk")))))
    list(books(alias).annotate(rank=Window(f.Rank(), partition_by="author", order_by="-price")))
    list(
        books(alias).annotate(kind=Case(When(price__gt=5, then=Value("dear")), default=Value("it's @cheap")))
    )
    list(authors(alias).values("mail").union(authors(alias).values("name"))[:3])
    with override(UTC):
        list(all_functions(alias))


def all_functions(alias: str) -> Any:
    return books(alias).annotate(
        f1=f.Coalesce("title", Value("")),
        f2=f.Concat("title", Value("@")),
        f3=f.Cast("pages", models.CharField()),
        f4=f.TruncMonth("written"),
        f5=f.ExtractYear("written"),
        f6=f.Greatest("pages", "pages"),
        f7=f.Length("title"),
        f8=f.Lower("title"),
        f9=f.Substr("title", 1, 3),
        f10=f.Now(),
        f11=f.Round("weight"),
        f12=f.MD5("title"),
        f13=f.Replace("title", Value("'"), Value("x")),
        f14=f.Trim("title"),
        f15=f.Mod("pages", 2),
        f16=F("written") + timedelta(1),
        f17=F("pages").bitand(1),
        f18=f.NullIf("pages", 1),
        f19=f.StrIndex("title", Value("@")),
        f20=f.LPad("title", 9),
        f21=f.Cast("written", models.DateTimeField()),
        f22=f.TruncQuarter("written"),
        f23=f.Left("title", 2),
        f24=f.Repeat("title", 2),
    )


@step
def change(alias: str) -> None:
    authors(alias).filter(name="O'Reilly").update(mail=f.Concat(F("name"), Value("@x.org")))
    author, created = authors(alias).update_or_create(name=TEXT, defaults={"mail": TEXT})
    author.save(update_fields=["mail"])
    authors(alias).get_or_create(name=TEXT)
    author.read.set(books(alias).all())
    author.read.clear()
    books(alias).filter(author__name="nobody").delete()
    author.delete()
    assert created


@step
def transactions(alias: str) -> None:
    with transaction.atomic(using=alias):
        authors(alias).select_for_update().first()
        if connections[alias].features.has_select_for_update_skip_locked:
            authors(alias).select_for_update(skip_locked=True).first()
        with transaction.atomic(using=alias):
            authors(alias).create(name="inner", mail="")
        try:
            with transaction.atomic(using=alias):
                authors(alias).create(name="inner", mail="")
        except IntegrityError:
            pass
    connections[alias].set_autocommit(False)
    authors(alias).create(name="by hand", mail="")
    transaction.commit(using=alias)
    authors(alias).update(mail="")
    transaction.rollback(using=alias)
    connections[alias].set_autocommit(True)


@step
def introspection(alias: str) -> None:
    if connections[alias].vendor == "sqlite":
        return  # it is made of PRAGMAs
    introspection = connections[alias].introspection
    with connections[alias].cursor() as cursor:
        for table in introspection.table_names(cursor):
            introspection.get_table_description(cursor, table)
            introspection.get_constraints(cursor, table)
            introspection.get_relations(cursor, table)
            introspection.get_primary_key_column(cursor, table)


@step
def by_hand(alias: str) -> None:
    list(authors(alias).raw("SELECT * FROM orm_author WHERE name LIKE %s LIMIT %s", ["%@%", 5]))
    with connections[alias].cursor() as cursor:
        cursor.execute("UPDATE orm_author SET mail = %s", [TEXT])
        cursor.executemany("UPDATE orm_author SET mail = %s WHERE name = %s", [[TEXT, "a"], [TEXT, "b"]])
    list(authors(alias).extra(where=["name <> %s"], params=[TEXT])[:2])
