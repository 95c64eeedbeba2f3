"""A child made in one way or another, while its parent has sessions in every state.

Arguments: the way, and the settings of a database. Prints what became of the child and of the sessions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

import billiard
from billiard.pool import Pool
from django.conf import settings as django_settings
from django.db import connections, transaction

from tests.support.programs import children, sockets
from tests.support.programs.databases import change, session, set_up
from tests.support.programs.states import half_read, rest_is_right

Settings = dict[str, Any]
Report = dict[str, Any]
Way = Callable[[Settings], Report]

ALIASES = ("default", "idle", "transaction", "reading")


def look(settings: Settings) -> Report:
    """What a child finds and does: the sockets that it inherited, and queries of its own."""
    inherited = sockets.to_server(settings)
    if not django_settings.configured:  # a new interpreter
        set_up(dict.fromkeys(ALIASES, settings))
    return {"inherited": inherited, "session": session("idle"), "again": session("idle")}


# --- by forks that Python knows of --------------------------------------------------------------------------


def fork(settings: Settings) -> Report:
    return children.fork(partial(look, settings)).finish()


def forkpty(settings: Settings) -> Report:
    """The child has a terminal: what it prints there is part of its report."""
    reader, writer = os.pipe()
    pid, terminal = os.forkpty()
    if not pid:
        os.close(reader)
        os.write(writer, json.dumps(look(settings)).encode())
        raise SystemExit(0)
    os.close(writer)
    report = children.Child(pid, reader).finish()
    return {**report, "printed": read_all(terminal)}


def read_all(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode()
    except OSError:  # as Linux says it when nobody has the other end any more
        return ""
    finally:
        os.close(terminal)


def daemon(settings: Settings) -> Report:
    """Two forks, of which the one in the middle ends at once and leaves its child to nobody."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return children.Child(pid, reader).finish()
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(writer, json.dumps(look(settings)).encode())
    raise SystemExit(0)


# --- by libraries -------------------------------------------------------------------------------------------


def multiprocessing_process(settings: Settings, start: str) -> Report:
    return joined(multiprocessing.get_context(start), settings)


def billiard_process(settings: Settings) -> Report:
    """Celery's multiprocessing."""
    return joined(billiard.get_context("fork"), settings)


def joined(context: BaseContext, settings: Settings) -> Report:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(sender, settings))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    report: Report = receiver.recv()
    process.join(children.LIMIT)
    return {**report, "status": process.exitcode}


def send(sender: Any, settings: Settings) -> None:
    sender.send(look(settings))


def multiprocessing_pool(settings: Settings) -> Report:
    """A thread of the pool's replaces its children, each after one task."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        reports = [pool.apply(look, (settings,)) for _ in range(3)]
        pool.close()
        pool.join()
    return summary(reports)


def billiard_pool(settings: Settings) -> Report:
    """The same of Celery's."""
    pool = Pool(1, maxtasksperchild=1)
    reports = [pool.apply(look, (settings,)) for _ in range(2)]
    pool.close()
    pool.join()
    return summary(reports)


def process_pool_executor(settings: Settings) -> Report:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        reports = [executor.submit(look, settings).result() for _ in range(3)]
    # One child for all tasks: one session, too.
    return {**summary(reports[:1]), "sessions": len({report["session"] for report in reports})}


def summary(reports: list[Report]) -> Report:
    """Of several children, each with a session of its own."""
    assert len({report["session"] for report in reports}) == len(reports)
    return {
        "inherited": [socket for report in reports for socket in report["inherited"]],
        "session": min(report["session"] for report in reports),
        "again": min(report["again"] for report in reports),
    }


# --- by exec ------------------------------------------------------------------------------------------------


def preexec(settings: Settings) -> Report:
    """The code between fork and exec queries; the program has none of its sockets, nor of its parent's."""
    reader, writer = os.pipe()

    def before_exec() -> None:
        os.write(writer, json.dumps(look(settings)).encode())

    program = [sys.executable, "-m", "tests.support.programs.fork_ways"]
    program += [json.dumps("count"), json.dumps(settings)]
    done = subprocess.run(
        program, preexec_fn=before_exec, close_fds=False, stdout=subprocess.PIPE, check=True
    )
    os.close(writer)
    report: Report = json.loads(os.read(reader, 65536))
    os.close(reader)
    return {**report, "program": json.loads(done.stdout)}


WAYS: dict[str, Way] = {
    "fork": fork,
    "forkpty": forkpty,
    "daemon": daemon,
    **{
        f"multiprocessing, {start}": partial(multiprocessing_process, start=start)
        for start in ("fork", "spawn", "forkserver")
    },
    "multiprocessing, pool": multiprocessing_pool,
    "billiard": billiard_process,
    "billiard, pool": billiard_pool,
    "ProcessPoolExecutor": process_pool_executor,
    "preexec_fn": preexec,
}


def main(way: Way, settings: Settings) -> Report:
    set_up(dict.fromkeys(ALIASES, settings))
    change("CREATE TABLE t (who TEXT) ENGINE=InnoDB")
    mine = {alias: session(alias) for alias in ALIASES}
    connections["idle"].close()
    with half_read("reading") as reading, transaction.atomic(using="transaction"):
        change("INSERT INTO t VALUES ('parent')", using="transaction")
        child = way(settings)
        rest = rest_is_right(reading)
    own = child.pop("session")
    child |= {"own session": own > max(mine.values()), "again": child["again"] == own}
    return {
        "child": child,
        "half read": rest,
        "same sessions": {alias: session(alias) for alias in ALIASES} == mine,
        "rows": column(),
    }


def column() -> list[str]:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT who FROM t")
        return [who for (who,) in cursor.fetchall()]


if __name__ == "__main__":
    way, entry = map(json.loads, sys.argv[1:])
    print(json.dumps(sockets.to_server(entry) if way == "count" else main(WAYS[way], entry)))
