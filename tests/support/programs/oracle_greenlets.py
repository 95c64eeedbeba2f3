"""Greenlets on the stand-in for Oracle, in a process that gevent has patched before all imports."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402

from poollife import auto_close_db  # noqa: E402
from tests.support.counting import pool_of  # noqa: E402
from tests.support.programs.databases import ask, set_up  # noqa: E402

#: Seconds after which something has not happened.
PATIENCE = 30

set_up({"default": json.loads(sys.argv[1])})


@auto_close_db
def sleep() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        begun.set()  # other greenlets run when this one waits for the server
        cursor.execute("BEGIN DBMS_SESSION.SLEEP(60); END;")


@auto_close_db
def answer() -> int:
    return int(ask("SELECT 40 + 2 FROM DUAL"))


begun = gevent.event.Event()
sleeper = gevent.spawn(sleep)
assert begun.wait(PATIENCE)
report = {"answer": gevent.spawn(answer).get(timeout=PATIENCE), "sleeps": not sleeper.ready()}
pool = pool_of("default")
closed = pool.closed
sleeper.kill()
report |= {"closed": pool.closed - closed, "out": pool.out, "answers": [answer() for _ in range(3)]}
print(json.dumps(report))
