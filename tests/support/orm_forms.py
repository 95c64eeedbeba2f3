"""A statement for every function, aggregate, expression, lookup, transform and method of Django's ORM.

Made by introspection: what a new version of Django adds has no entry in these tables, and is found by that.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from django.apps.registry import Apps
from django.db import connections, models, transaction
from django.db.models import (
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    Max,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    RowRange,
    Subquery,
    Sum,
    Value,
    ValueRange,
    When,
    Window,
    aggregates,
    expressions,
)
from django.db.models import functions as f
from django.db.models.expressions import Combinable, RawSQL

apps = Apps(["tests.support.orm_forms"])
THEN = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
TEXT = "it's 100 %; @left := 1 -- # /*! \\' \" `"


class Thing(models.Model):
    """A row with a column of each type."""

    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
    friends = models.ManyToManyField("self")
    text = models.CharField(max_length=200, default="", unique=True)
    long = models.TextField(default="")
    slug = models.SlugField(default="")
    number = models.IntegerField(default=4)
    big = models.BigIntegerField(default=1)
    small = models.PositiveSmallIntegerField(default=1)
    real = models.FloatField(default=0.5)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=1)
    flag = models.BooleanField(default=False)
    raw = models.BinaryField(default=b"")
    day = models.DateField(default=date(2020, 2, 29))
    moment = models.DateTimeField(default=THEN)
    hour = models.TimeField(default=time(12, 30))
    lasts = models.DurationField(default=timedelta(days=1, seconds=2))
    key = models.UUIDField(default=uuid.uuid4)
    address = models.GenericIPAddressField(default="127.0.0.1")
    data = models.JSONField(default=dict, null=True)
    file = models.FileField(default="")
    set_by_server = models.IntegerField(db_default=Value(7))
    computed = models.GeneratedField(
        expression=F("number") + 1, output_field=models.IntegerField(), db_persist=True
    )

    class Meta:
        apps = apps
        app_label = "orm_forms"


#: A form is run with the model's QuerySet.
Form = Callable[[Any], object]


def shown(expression: Any, output_field: Any = None) -> Form:
    """As a column, in a condition, and in the order."""

    def run(things: Any) -> None:
        annotated = things.annotate(it=expression)
        list(annotated.values("it"))
        list(annotated.order_by("it").filter(it__isnull=False)[:2])

    return run


def window(expression: Any, **options: Any) -> Form:
    return shown(Window(expression, partition_by="flag", order_by="number", **options))


def ranked(name: str, *arguments: Any) -> Form:
    return window(getattr(f, name)(*arguments))


def calculated(name: str, **options: Any) -> Form:
    return each(
        aggregated(getattr(models, name)("number")),
        aggregated(getattr(models, name)("number", filter=Q(flag=False), **options)),
    )


def aggregated(expression: Any) -> Form:
    def run(things: Any) -> None:
        things.aggregate(it=expression)
        list(things.values("flag").annotate(it=expression).filter(it__isnull=False))

    return run


def text(name: str, *arguments: Any) -> Form:
    return shown(getattr(f, name)("text", *arguments))


def number(name: str, *arguments: Any) -> Form:
    return shown(getattr(f, name)("real", *arguments))


def moment(name: str, *arguments: Any, **options: Any) -> Form:
    return shown(getattr(f, name)("moment", *arguments, **options))


EXTRACTS = [
    "Day",
    "Hour",
    "Minute",
    "Month",
    "Quarter",
    "Second",
    "Week",
    "IsoWeekDay",
    "WeekDay",
    "IsoYear",
    "Year",
]
TRUNCS = ["Day", "Hour", "Minute", "Month", "Quarter", "Second", "Week", "Year", "Date", "Time"]
MATHS = [
    "ACos",
    "ASin",
    "ATan",
    "Ceil",
    "Cos",
    "Cot",
    "Degrees",
    "Exp",
    "Floor",
    "Ln",
    "Radians",
    "Round",
    "Sign",
    "Sin",
    "Sqrt",
    "Tan",
    "Abs",
]
FUNCTIONS: dict[str, Callable[[], Form]] = {
    **{name: partial(number, name) for name in MATHS},
    **{f"Extract{part}": partial(moment, f"Extract{part}") for part in EXTRACTS},
    **{f"Trunc{part}": partial(moment, f"Trunc{part}", tzinfo=UTC) for part in TRUNCS},
    **{name: partial(text, name) for name in ("MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512")},
    **{name: partial(text, name) for name in ("Length", "Lower", "LTrim", "Ord", "Reverse", "RTrim")},
    **{name: partial(text, name) for name in ("Trim", "Upper")},
    **{name: partial(ranked, name) for name in ("CumeDist", "DenseRank", "PercentRank", "Rank", "RowNumber")},
    **{name: partial(ranked, name, "number") for name in ("FirstValue", "LastValue")},
    **{name: partial(ranked, name, "number", 2) for name in ("Lag", "Lead")},
    "NthValue": lambda: window(f.NthValue("number", 2)),
    "Ntile": lambda: window(f.Ntile(3)),
    "Cast": lambda: each(*(shown(f.Cast(column, field)) for column, field in CASTS)),
    "Coalesce": lambda: shown(f.Coalesce(F("text"), Value(TEXT))),
    "Collate": lambda: lambda things: list(things.order_by(f.Collate("text", collation(things)))),
    "Greatest": lambda: shown(f.Greatest("number", F("number") % 3)),
    "Least": lambda: shown(f.Least("number", F("number") % 3)),
    "NullIf": lambda: shown(f.NullIf("text", Value(TEXT))),
    "Extract": lambda: moment("Extract", "year"),
    "Now": lambda: shown(f.Now()),
    "Trunc": lambda: moment("Trunc", "week", tzinfo=UTC),
    "JSONArray": lambda: shown(f.JSONArray("text", Value(TEXT), "number")),
    "JSONObject": lambda: shown(f.JSONObject(a="text", b=Value(1), c=f.Lower("text"))),
    "ATan2": lambda: number("ATan2", "number"),
    "Log": lambda: number("Log", "number"),
    "Mod": lambda: number("Mod", "number"),
    "Power": lambda: number("Power", 2),
    "Pi": lambda: shown(f.Pi()),
    "Random": lambda: each(shown(f.Random()), lambda things: list(things.order_by("?"))),
    "Chr": lambda: shown(f.Chr("number")),
    "Concat": lambda: text("Concat", Value(TEXT), "text"),
    "ConcatPair": lambda: text("ConcatPair", Value(TEXT)),
    "Left": lambda: text("Left", 2),
    "Right": lambda: text("Right", 2),
    "LPad": lambda: text("LPad", 9, Value("'")),
    "RPad": lambda: text("RPad", 9, Value("'")),
    "Repeat": lambda: text("Repeat", 2),
    "Replace": lambda: text("Replace", Value("'"), Value("%")),
    "StrIndex": lambda: text("StrIndex", Value("@")),
    "Substr": lambda: text("Substr", 1, 3),
    "UUID4": lambda: shown(f.UUID4()),  # Django 6.1
    "UUID7": lambda: shown(f.UUID7()),
}
CASTS: list[tuple[str, Any]] = [
    *(
        ("number", field)
        for field in [models.CharField(), models.CharField(max_length=9), models.TextField()]
    ),
    *(("text", field) for field in [models.IntegerField(), models.BigIntegerField(), models.FloatField()]),
    ("real", models.DecimalField(max_digits=9, decimal_places=3)),
    ("number", models.PositiveIntegerField()),
    ("number", models.DurationField()),
    ("text", models.JSONField()),
    *(("moment", field) for field in [models.DateField(), models.DateTimeField(), models.TimeField()]),
    ("key", models.UUIDField()),
]
AGGREGATES: dict[str, Callable[[], Form]] = {
    "Aggregate": lambda: aggregated(models.Aggregate("number", function="MAX")),
    **{
        name: partial(calculated, name, default=0)
        for name in ("Avg", "Max", "Min", "StdDev", "Sum", "Variance")
    },
    **{name: partial(calculated, name) for name in ("BitAnd", "BitOr", "BitXor")},  # Django 6.1
    "Count": lambda: each(
        aggregated(Count("*")),
        aggregated(Count("text", distinct=True, filter=Q(flag=False))),
        window(Count("*")),
    ),
    "AnyValue": lambda: aggregated(models.AnyValue("number")),  # Django 6.0
    "StringAgg": lambda: string_agg,  # Django 6.0
}


def string_agg(things: Any) -> None:
    aggregated(models.StringAgg("text", delimiter=Value(TEXT)))(things)
    aggregated(models.StringAgg("text", delimiter=Value(","), filter=Q(flag=False)))(things)
    if connections[things.db].vendor == "mysql":
        aggregated(models.StringAgg("text", delimiter=Value("'"), order_by="number", distinct=True))(things)


def frames(things: Any) -> None:
    for frame in (
        RowRange(start=-1, end=0),
        RowRange(start=None, end=None),
        ValueRange(start=0, end=None),
        ValueRange(start=None, end=0),
    ):
        list(things.annotate(it=Window(Sum("number"), order_by="number", frame=frame)))


def case() -> Any:
    return Case(When(number__gt=5, then=Value(TEXT)), When(flag=True, then="text"), default=Value("'"))


EXPRESSIONS: dict[str, Form | None] = {
    "F": shown(F("number")),
    "OuterRef": lambda things: list(things.filter(Exists(things.filter(pk=OuterRef("pk"), text="'")))),
    "Sliced": lambda things: list(things.values(it=F("text")[1:3])),
    "Func": shown(models.Func("text", function="UPPER")),
    "Value": shown(Value(TEXT)),
    "RawSQL": shown(RawSQL("number + %s", (1,))),
    "Star": aggregated(Count("*")),
    "DatabaseDefault": lambda things: things.create(text="by default"),
    "ExpressionList": lambda things: list(
        things.values("flag", "number").annotate(n=Count("*")).order_by("flag", "n")
    ),
    "ExpressionWrapper": shown(ExpressionWrapper(F("number") * F("real"), models.FloatField())),
    "NegatedExpression": shown(~ExpressionWrapper(Q(number=1), models.BooleanField())),
    "When": shown(case()),
    "Case": lambda things: things.update(long=case()),
    "Subquery": lambda things: list(
        things.annotate(it=Subquery(things.filter(parent=OuterRef("pk")).order_by("-pk").values("text")[:1]))
    ),
    "Exists": lambda things: list(things.filter(~Exists(things.filter(parent=OuterRef("pk"))))),
    "OrderBy": lambda things: list(
        things.order_by(F("number").desc(nulls_last=True), F("text").asc(nulls_first=True), "-real")
    ),
    "Window": window(Sum("number")),
    "JSONNull": lambda things: each(shown(models.JSONNull()), lambda it: it.update(data=models.JSONNull()))(
        things
    ),
    "RowRange": frames,
    "CombinedExpression": shown(F("number") + F("small")),
    "DurationExpression": lambda things: list(things.values(it=F("moment") + F("lasts"))),
    "TemporalSubtraction": lambda things: list(
        things.values(it=F("moment") - Value(THEN), b=F("day") - F("day"))
    ),
}
#: Made of these by Django itself, parts of them, or classes to derive from.
NOT_FORMS = {
    "SQLiteNumericMixin", "Combinable", "OutputFieldIsNoneError", "BaseExpression", "Expression",
    "ResolvedOuterRef", "Col", "ColPairs", "Ref", "OrderByList", "WindowFrame", "WindowFrameExclusion",
    "ValueRange",
}  # fmt: skip

OPERATORS: dict[str, Form] = {
    "ADD": shown(F("number") + 1), "SUB": shown(F("number") - 1), "MUL": shown(F("number") * 2),
    "DIV": shown(F("number") / 2), "POW": shown(F("number") ** 2), "MOD": shown(F("number") % 3),
    "BITAND": shown(F("number").bitand(1)), "BITOR": shown(F("number").bitor(1)),
    "BITLEFTSHIFT": shown(F("number").bitleftshift(1)), "BITRIGHTSHIFT": shown(F("number").bitrightshift(1)),
    "BITXOR": shown(F("number").bitxor(1)),
}  # fmt: skip


def each(*forms: Form) -> Form:
    def run(things: Any) -> None:
        for form in forms:
            form(things)

    return run


def collation(things: Any) -> str:
    return {"sqlite": "nocase", "postgresql": "C"}.get(connections[things.db].vendor, "utf8mb4_bin")


#: Methods of a QuerySet; None: it sends nothing by itself, or is a part of another form.
METHODS: dict[str, Form | None] = {
    **dict.fromkeys(
        [
            "query",
            "as_manager",
            "none",
            "all",
            "using",
            "ordered",
            "db",
            "resolve_expression",
            "alias",
            "fetch_mode",
            "totally_ordered",
        ]
    ),
    "iterator": lambda things: list(things.iterator(chunk_size=2)),
    "aggregate": lambda things: things.distinct()[:3].aggregate(Max("number")),
    "count": lambda things: (things.count(), things.values("flag").distinct().count()),
    "get": lambda things: things.get(text="first"),
    "create": lambda things: things.create(text="created", data={"@": [1, {"a": TEXT}]}, raw=TEXT.encode()),
    "bulk_create": lambda things: bulk(things),
    "bulk_update": lambda things: things.bulk_update(
        list(things.all()), ["number", "text", "data", "moment"]
    ),
    "get_or_create": lambda things: (things.get_or_create(text="got"), things.get_or_create(text="got")),
    "update_or_create": lambda things: (
        things.update_or_create(text="put", defaults={"number": 1}),
        things.update_or_create(text="put", defaults={"number": F("number") + 1}),
    ),
    "earliest": lambda things: things.earliest("moment"),
    "latest": lambda things: things.latest("-moment"),
    "first": lambda things: things.first(),
    "last": lambda things: things.last(),
    "in_bulk": lambda things: (things.in_bulk([1, 2]), things.in_bulk(["first"], field_name="text")),
    "delete": lambda things: (
        things.filter(text__startswith="gone").delete(),
        things.filter(parent__text="x").delete(),
    ),
    "update": lambda things: things.filter(children__text="x").update(number=F("number") + 1, long=TEXT),
    "exists": lambda things: things.filter(text="first").exists(),
    "contains": lambda things: things.contains(things.first()),
    "explain": lambda things: explain(things),
    "raw": lambda things: list(things.raw("SELECT * FROM orm_forms_thing WHERE text = %s", [TEXT])),
    "values": lambda things: list(things.values("parent__text", "data__a", "flag")),
    "values_list": lambda things: list(things.values_list("text", flat=True)),
    "dates": lambda things: [list(things.dates("day", kind)) for kind in ("year", "month", "week", "day")],
    "datetimes": lambda things: [
        list(things.datetimes("moment", kind, tzinfo=UTC))
        for kind in ("year", "month", "day", "hour", "minute", "second")
    ],
    "filter": lambda things: list(
        things.filter(Q(text="x") | ~Q(number=1) ^ Q(flag=True), parent__isnull=True)
    ),
    "exclude": lambda things: list(things.exclude(children__text="x", friends__number=1)),
    "complex_filter": lambda things: list(things.complex_filter({"number": 1})),
    "union": lambda things: list(
        things.values("text").union(things.values("slug"), all=True).order_by("text")[:3]
    ),
    "intersection": lambda things: list(things.values("text").intersection(things.values("slug"))),
    "difference": lambda things: list(things.values("text").difference(things.values("slug"))),
    "select_for_update": lambda things: lock(things),
    "select_related": lambda things: list(things.select_related("parent__parent")),
    "prefetch_related": lambda things: list(things.prefetch_related("friends", Prefetch("children"))),
    "annotate": lambda things: list(
        things.annotate(n=Count("children"), m=Sum("friends__number")).filter(n__gte=0)
    ),
    "order_by": lambda things: list(things.order_by("parent__text", "-number", "?")),
    "distinct": lambda things: list(things.values("flag").distinct()),
    "extra": lambda things: list(
        things.extra(select={"it": "number + %s"}, select_params=[1], where=["text <> %s"], params=[TEXT])
    ),
    "reverse": lambda things: list(things.order_by("pk").reverse()[5:15]),
    "defer": lambda things: list(things.defer("long")),
    "only": lambda things: list(things.only("text")),
}


def bulk(things: Any) -> None:
    things.bulk_create([Thing(text=f"{TEXT}{number}") for number in range(50)])
    rows = [Thing(text=f"{TEXT}1", number=9)]
    things.bulk_create(rows, ignore_conflicts=True)
    unique = {} if connections[things.db].vendor == "mysql" else {"unique_fields": ["text"]}
    things.bulk_create(rows, update_conflicts=True, update_fields=["number"], **unique)


def explain(things: Any) -> None:
    things.filter(text="x").explain()
    if connections[things.db].vendor == "mysql":
        things.explain(format="JSON")
        things.explain(analyze=True)
        things.filter(text="x").explain(format="JSON", analyze=True)


def lock(things: Any) -> None:
    if not connections[things.db].features.has_select_for_update:
        return
    with transaction.atomic(using=things.db):
        list(things.select_for_update())
        list(things.select_for_update(nowait=True))
        list(things.select_for_update(skip_locked=True))


#: What is looked up in a column of a type; of an integer's by default.
SAMPLES: dict[type[models.Field[Any, Any]], Any] = {
    models.DateTimeField: THEN,
    models.DateField: THEN.date(),
    models.TimeField: time(1, 2),
    models.DurationField: timedelta(hours=1),
    models.UUIDField: uuid.UUID(int=1),
    models.GenericIPAddressField: "127.0.0.1",
    models.BooleanField: True,
    models.BinaryField: b"'",
    models.DecimalField: Decimal("1.5"),
    models.FloatField: 1.5,
    models.JSONField: {"a": TEXT},
    models.CharField: TEXT,
    models.TextField: TEXT,
    models.FileField: "x",
}
#: Lookups that compare with something else than a value of the column's type.
COMPARED = {
    "isnull": lambda value: True,
    "in": lambda value: [value, value],
    "range": lambda value: (value, value),
    **dict.fromkeys(["regex", "iregex"], lambda value: "^x.*[0-9]"),
    **dict.fromkeys(
        ["contains", "icontains", "startswith", "istartswith", "endswith", "iendswith"],
        lambda value: "it's %",
    ),
    **dict.fromkeys(["has_key"], lambda value: "a'b"),
    **dict.fromkeys(["has_keys", "has_any_keys"], lambda value: ["a", "b'"]),
    **dict.fromkeys(
        [
            "year",
            "iso_year",
            "month",
            "day",
            "week",
            "week_day",
            "iso_week_day",
            "quarter",
            "hour",
            "minute",
            "second",
        ],
        lambda value: 2,
    ),
    "date": lambda value: THEN.date(),
    "time": lambda value: time(1, 2),
}
AS_VALUE = {"exact", "iexact", "gt", "gte", "lt", "lte", "contained_by"}


def lookups() -> Iterator[tuple[str, Form]]:
    """Every lookup and transform of every column, and of what a transform makes of it."""
    for field in Thing._meta.get_fields():
        if not field.concrete or field.many_to_many:
            continue
        sample = next((SAMPLES[kind] for kind in type(field).__mro__ if kind in SAMPLES), 1)
        for name, lookup in sorted(field.get_lookups().items()):
            if lookup.__module__.startswith("django.contrib.postgres"):
                continue  # there for all databases once a module has imported it
            path = f"{field.name}__{name}"
            yield path, compared(path, name, sample, isinstance(field, models.JSONField))
            if issubclass(lookup, models.Transform) and name not in ("date", "time"):
                for last in "gte", "in", "range":
                    yield f"{path}__{last}", compared(f"{path}__{last}", last, 2, False)
    for name in "a", "a__0", "a__b__contains", "a__isnull", "a__in", "a__gt", "a__iexact", "a__regex":
        last = name.rpartition("__")[2]
        yield f"data__{name}", compared(f"data__{name}", last if last in COMPARED else "exact", "x", False)


def compared(path: str, name: str, sample: Any, is_json: bool) -> Form:
    if name not in COMPARED and name not in AS_VALUE:
        raise KeyError(f"the lookup {name!r} is in no table of tests/support/orm_forms.py")
    value = (
        sample if (is_json and name in ("contains", "exact")) or name in AS_VALUE else COMPARED[name](sample)
    )

    def run(things: Any) -> None:
        list(things.filter(**{path: value}))
        list(things.exclude(**{path: value}))

    return run


def entries(found: set[str], table: dict[str, Any], what: str) -> Iterator[tuple[str, Any]]:
    """Entries of a table for all that Django has."""
    if unknown := sorted(found - table.keys()):
        raise KeyError(f"{what} of this Django that are in no table of tests/support/orm_forms.py: {unknown}")
    for name in sorted(found):
        yield name, table[name]


def forms() -> Iterator[tuple[str, Form]]:
    """Every form by a name for people.

    :raises KeyError: where this version of Django has something that no table names.
    """
    for name, make in entries({*f.__all__}, FUNCTIONS, "functions"):
        yield name, make()
    for name, make in entries({*aggregates.__all__}, AGGREGATES, "aggregates"):
        yield name, make()
    found = {
        name
        for name, each in vars(expressions).items()
        if inspect.isclass(each) and each.__module__ == expressions.__name__
    }
    yield from entries(found - NOT_FORMS, EXPRESSIONS, "expressions")
    yield from entries({name for name in vars(Combinable) if name.isupper()}, OPERATORS, "operators")
    public = {name for name in vars(QuerySet) if not name.startswith("_")}
    asynchronous = {name for name in public if name[0] == "a" and name[1:] in public}
    for name, form in entries(public - asynchronous, METHODS, "methods"):
        if form:
            yield f"{name}()", form
    yield from lookups()
