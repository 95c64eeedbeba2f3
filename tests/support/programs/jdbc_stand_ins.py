"""A program that uses JDBC with stubs in place of drivers. Its arguments: DATABASES and the case, as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, ProgrammingError, connections, models, transaction
from django.db.models import F, Sum

from tests.support.programs.databases import set_up

Report = dict[str, Any]


def do(*statements: str) -> None:
    with connections["default"].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def oracle() -> Report:
    """Use Django's Oracle backend: models, transactions, a warm session, what is left in one."""

    class Entry(models.Model):
        name = models.CharField(max_length=20, unique=True)
        number = models.IntegerField(default=0)
        price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
        ratio = models.FloatField(null=True)
        day = models.DateField(null=True)
        at = models.DateTimeField(null=True)
        is_open = models.BooleanField(default=False)
        text = models.TextField(default="")

        class Meta:
            app_label, db_table = "poollife", "entry"

    wrapper: Any = connections["default"]
    do(
        "CREATE SEQUENCE ENTRY_SQ",
        'CREATE TABLE ENTRY ("ID" NUMBER(19) DEFAULT ENTRY_SQ.NEXTVAL PRIMARY KEY,'
        ' "NAME" NVARCHAR2(20) UNIQUE, "NUMBER" NUMBER(11), "PRICE" NUMBER(10, 2), "RATIO" DOUBLE PRECISION,'
        ' "DAY" DATE, "AT" TIMESTAMP,'
        ' "IS_OPEN" NUMBER(1), "TEXT" NCLOB);',
        "CREATE VIEW USER_TAB_IDENTITY_COLS AS SELECT 'x' SEQUENCE_NAME, 'x' TABLE_NAME, 'x' COLUMN_NAME",
    )
    wrapper.close()
    noon = datetime(2026, 2, 3, 12, 0, 0, 250000, UTC)
    values: dict[str, Any] = {
        "number": 7,
        "price": Decimal("1.50"),
        "ratio": 0.5,
        "day": date(2026, 2, 3),
        "at": noon,
        "is_open": True,
        "text": "100 %\n" * 1000,
    }
    entries = Entry._default_manager
    made = [entries.create(name="a", **values), entries.create(name="b", number=2)]
    found: Report = {"keys": [entry.pk for entry in made]}
    entry = entries.get(name="a")
    found["changed"] = [
        (name, repr(getattr(entry, name)))
        for name, value in values.items()
        if (type(getattr(entry, name)), getattr(entry, name)) != (type(value), value)
    ]
    entries.filter(name="b").update(number=F("number") + 40)
    found["sum"] = entries.aggregate(Sum("number"))["number__sum"]
    found["like"] = list(entries.filter(name__contains="a").values_list("name", flat=True))
    found["slice"] = list(entries.order_by("-name").values_list("name", flat=True)[1:2])
    try:
        with transaction.atomic():
            entries.create(name="c")
            with transaction.atomic():
                entries.create(name="a")
    except IntegrityError:
        found["rolled back"] = entries.count()
    wrapper.close()
    pool = wrapper.lease_pool
    opened, java_class = pool.opened, __import__("jpype").JClass("oracle.jdbc.OracleDriver")
    java_class.heard.clear()
    found["warm"] = [entries.count(), wrapper.close(), pool.opened - opened, len(java_class.heard)]
    do("ALTER SESSION SET NLS_TERRITORY = 'JAPAN'")
    wrapper.close()
    java_class.heard.clear()
    entries.count()
    found["renewed"] = [str(each) for each in java_class.heard][:3]
    found["version"] = wrapper.oracle_version
    found["queries"] = logged(entries)
    found["commit"] = failed_commit(wrapper)
    return found


def failed_commit(wrapper: Any) -> str:
    """Return the module of the error of a COMMIT in a session that has ended."""
    logging.disable(logging.CRITICAL)
    wrapper.set_autocommit(False)
    wrapper.connection.java.close()
    try:
        wrapper.commit()
    except Exception as error:
        return type(error).__module__
    return ""


def logged(entries: Any) -> list[str]:
    """Return the statement that DEBUG writes down."""
    wrapper = connections["default"]
    wrapper.force_debug_cursor = True
    entries.filter(name="a").exists()
    return [query["sql"] for query in wrapper.queries]


def oceanbase() -> Report:
    """Run raw SQL, and leave a variable in a session."""
    wrapper: Any = connections["default"]
    do("CREATE TABLE entry (id INT PRIMARY KEY, name VARCHAR(20))")
    wrapper.close()
    found: Report = {"url": wrapper.jdbc_url, "rows": []}
    for sql, params in (
        ("INSERT INTO entry (id, name) VALUES (%s, %s)", [1, "100 %"]),
        ("SELECT id, name FROM entry WHERE name LIKE '100 %%' AND id = %(id)s", {"id": 1}),
    ):
        with wrapper.cursor() as cursor:
            cursor.execute(sql, params)
            found["rows"].append(cursor.fetchall() if cursor.description else cursor.rowcount)
    try:
        do("INSERT INTO entry (id, name) VALUES (1, 'b')")
    except IntegrityError:
        found["error"] = "IntegrityError"
    wrapper.close()
    opened = wrapper.lease_pool.opened
    do("SET @left = 5")
    wrapper.close()
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT @left")
        found["left"] = [cursor.fetchone()[0], wrapper.lease_pool.opened - opened]
    try:
        do("SELEC 1")
    except ProgrammingError as error:
        found["other error"] = type(error).__name__
    return found


if __name__ == "__main__":
    set_up(json.loads(sys.argv[1]))
    print(json.dumps(globals()[json.loads(sys.argv[2])](), default=repr))
