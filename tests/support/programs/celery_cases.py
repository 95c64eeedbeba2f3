"""What Celery's tracer does with a task, in this process.

Arguments: the name of the case, the settings of a database, and what else it takes. Prints its findings.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import warnings
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.celery_site.settings")
os.environ["CELERY_SITE_WITH"] = json.dumps([] if sys.argv[3:] == ["false"] else ["poollife"])
os.environ["CELERY_SITE_DATABASES"] = json.dumps({"default": json.loads(sys.argv[2])})

from billiard.exceptions import SoftTimeLimitExceeded  # Celery looks for Django's settings
from celery import Celery
from celery.app.trace import trace_task
from celery.platforms import SecurityWarning
from django.db import connection, transaction

import poollife.celery
from poollife import auto_close_db, pool_stats
from poollife.work import current_work
from tests.support.programs.databases import ask, session

Report = dict[str, Any]

app = Celery(
    "tests.support.programs",
    broker="memory://",
    changes={"worker_hijack_root_logger": False, "CELERY_DB_REUSE_MAX": 1000},
)


def start_worker(*, with_poollife: bool = True) -> None:
    """Not quite: it is made ready, so that all who take part in a worker's life do so from then on."""
    if with_poollife:
        poollife.celery.install()
    warnings.simplefilter("ignore", SecurityWarning)  # root may do the tests
    app.Worker(pool="prefork", concurrency=1, loglevel=logging.CRITICAL)


def do(task: Any) -> Any:
    """As a worker does it: what it returned, or its error."""
    return trace_task(task, "some-id", (), {}, {"id": "some-id", "is_eager": False}, app=app).retval


def out() -> int:
    """Of the pool."""
    return pool_stats()["default"]["out"] if pool_stats() else 0


# --- time limits --------------------------------------------------------------------------------------------

#: Where they strike: all that is between a task's code and the C code of the driver.
STRUCK = (
    "poollife.",
    "sqlalchemy.",
    "MySQLdb.",
    "django.db.",
    "celery.utils.dispatch",
    "celery.fixups",
    "celery.app.trace",
    "contextlib",
    "threading",
    "weakref",
    "__main__",
)
#: Destructors and callbacks of weak references: what is thrown in there has nowhere to go.
FINALIZERS = {"__del__", "remove", "_remove", "_borrower_died"}


class TimeLimit:
    """Raises ``SoftTimeLimitExceeded`` at the nth chance that the interpreter gives to a signal's handler."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.where: str | None = None

    def start(self) -> None:
        sys.setprofile(self)

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event not in ("call", "c_return") or not module.startswith(STRUCK) or is_in_finalizer(frame):
            return
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            self.where = f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno} {event}"
            raise SoftTimeLimitExceeded(self.where)


def is_in_finalizer(frame: Any) -> bool:
    while frame:
        if frame.f_code.co_name in FINALIZERS:
            return True
        frame = frame.f_back
    return False


limit: TimeLimit


@app.task
def work() -> None:
    limit.start()
    with transaction.atomic():
        ask("SELECT 1")


@app.task
def check() -> int:
    if connection.in_atomic_block:
        raise RuntimeError("in a block that another task has left open: what this writes is never committed")
    with transaction.atomic():
        return session()


def struck(with_poollife: bool) -> Report:
    """A soft time limit, at each point of a task's life where it can come; after it an ordinary task."""
    global limit
    start_worker(with_poollife=with_poollife)
    # Celery logs each error of a task, and warns of each one that comes from outside of its code.
    logging.disable(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Exception raised outside body", RuntimeWarning)
    report: Report = {"points": 0, "left": [], "failed": []}
    for number in itertools.count(1):
        limit = TimeLimit(number)
        try:
            do(work)
        except SoftTimeLimitExceeded:
            pass
        finally:
            sys.setprofile(None)
        if limit.where is None:
            return report
        report["points"] += 1
        if out():
            report["left"].append(limit.where)
        if not isinstance(do(check), int):
            report["failed"].append(limit.where)
    raise AssertionError("not reached")


# --- eager tasks --------------------------------------------------------------------------------------------


@app.task
def inner() -> Report:
    return {"session": session(), "work": str(current_work.get())}


@auto_close_db
def outer() -> Report:
    """Work with a connection calls a task, as tests and ``task_always_eager`` do."""
    mine = session()
    result = inner.apply().result
    return {
        "inner": {**result, "session": result["session"] == mine},
        "out": out(),
        "same session": session() == mine,
        "work": str(current_work.get()),
    }


def eager() -> Report:
    start_worker()
    return {**outer(), "out in the end": out()}


# --- embedded workers ---------------------------------------------------------------------------------------


def embedded() -> Report:
    """A worker of another program, a test for example, sends less as it starts."""
    poollife.celery.install()
    app.WorkController(pool="threads", concurrency=1)
    return {"work": do(inner)["work"], "out": out()}


if __name__ == "__main__":
    name, _, *arguments = map(json.loads, sys.argv[1:])
    print(json.dumps(globals()[name](*arguments)))
