"""Greenlets that use JDBC, in a process that gevent has patched before all imports."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from poollife import auto_close_db  # noqa: E402
from tests.support.counting import pool_of  # noqa: E402
from tests.support.programs.databases import ask, change, session, set_up  # noqa: E402

#: Seconds after which something has not happened.
PATIENCE = 30

set_up({"default": json.loads(sys.argv[1])})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", RuntimeWarning)
    change("CREATE TABLE log (n INT)")
    connection.close()
report: dict[str, Any] = {"warnings": [str(each.message) for each in caught]}


@auto_close_db
def work(number: int) -> bool:
    """Return whether two statements of a transaction ran in one session, with others in between."""
    with transaction.atomic():
        mine = session()
        gevent.sleep(0)
        change("INSERT INTO log VALUES (%s)", number)
        gevent.sleep(0)
        return session() == mine and ask("SELECT MAX(n) FROM log WHERE n = %s", number) == number


@auto_close_db
def wait() -> None:
    with transaction.atomic():
        change("INSERT INTO log VALUES (1000)")
        waits.set()
        gevent.sleep(PATIENCE)


pool = pool_of("default")
opened = pool.opened
greenlets = [gevent.spawn(work, number) for number in range(20)]
report["right"] = [greenlet.get(timeout=PATIENCE) for greenlet in greenlets]
report["sessions"] = pool.opened - opened

ticks = 0


def tick() -> None:
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0)


ticker = gevent.spawn(tick)
gevent.sleep(0)
before = ticks
ask("SELECT SLEEP(0.1)")
report["ticks"] = ticks - before
ticker.kill()
connection.close()

waits = gevent.event.Event()
waiter = gevent.spawn(wait)
assert waits.wait(PATIENCE)
waiter.kill()
report["rows"] = ask("SELECT COUNT(*) FROM log")
connection.close()
print(json.dumps(report | {"out": pool.out}))
