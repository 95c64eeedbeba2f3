"""One situation of a fork each, announced by Python's hooks.

Arguments: the name of the case, the settings of a database, and what else it takes. Prints its findings.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import resource
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, transaction

from tests.support.programs import children, sockets
from tests.support.programs.databases import change, held_session, hold, session, set_up
from tests.support.programs.removal import take_out
from tests.support.programs.states import half_read, locked, pool_locks, refusal, rest_is_right, thread

Settings = dict[str, Any]
Report = dict[str, Any]


# --- in the middle of something -----------------------------------------------------------------------------


def inside_atomic(settings: Settings) -> Report:
    """The forking thread is in an atomic block. Its child tries to work in it, leaves it, and works on."""
    set_up({"default": settings})
    change("CREATE TABLE t (who TEXT) ENGINE=InnoDB")
    mine = session()
    on_commit: list[str] = []
    refusals: list[str] = []

    def refuse(attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except DatabaseError as error:
            refusals.append(str(error))

    with transaction.atomic():
        change("INSERT INTO t VALUES ('before')")
        transaction.on_commit(lambda: on_commit.append("parent's"))
        child, say = children.branch()
        if child:
            change("INSERT INTO t VALUES ('after')")
        else:
            refuse(lambda: change("INSERT INTO t VALUES ('intruder')"))
            refuse(connections["default"].savepoint)
            refuse(nested)
    if not child:
        with transaction.atomic():
            change("INSERT INTO t VALUES ('child')")
        say({"refusals": refusals, "own session": session() > mine, "on_commit": on_commit})
        raise SystemExit
    report = child.finish()
    return {
        "child": report,
        "rows": column("SELECT who FROM t ORDER BY who"),
        "same session": session() == mine,
        "on_commit": on_commit,
    }


def leaving_atomic(settings: Settings, bare: bool) -> Report:
    """The child makes no query: it leaves the parent's block as if to commit. The parent rolls back."""
    set_up({"default": settings})
    change("CREATE TABLE t (who TEXT) ENGINE=InnoDB")
    mine = session()
    found: Report = {"refused": None}
    try:
        with transaction.atomic():
            change("INSERT INTO t VALUES ('parent')")
            child, say = children.branch(bare=bare)
            if child:
                report = child.finish()
                transaction.set_rollback(True)
    except InterfaceError:
        found = {"refused": "InterfaceError"}
    if not child:
        say({**found, "own session": session() > mine, "rows": column("SELECT COUNT(*) FROM t")})
        raise SystemExit
    return {"child": report, "rows": column("SELECT COUNT(*) FROM t"), "same session": session() == mine}


def nested() -> None:
    with transaction.atomic():
        session()


def column(sql: str) -> list[Any]:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()]


def inherited_cursors(settings: Settings, bare: bool) -> Report:
    """A half-read cursor and an open one: the child reads from them, executes with them and closes them."""
    set_up({"default": settings, "other": settings})
    mine = session(), session("other")
    plain = connections["other"].cursor()
    plain.execute("SELECT 1 UNION SELECT 2")
    with half_read() as reading:

        def touch() -> Report:
            return {name: attempts(cursor) for name, cursor in {"half read": reading, "open": plain}.items()}

        report = children.fork(touch, bare=bare).finish()
        report.pop("inherited")
        rest = rest_is_right(reading)
    return {
        "child": report,
        "half read": rest,
        "open": plain.fetchall(),
        "same sessions": (session(), session("other")) == mine,
    }


def attempts(cursor: Any) -> list[str | None]:
    return [
        refusal(attempt)
        for attempt in (
            cursor.fetchone,
            cursor.fetchall,
            lambda: cursor.fetchmany(2),
            lambda: cursor.execute("SELECT 1"),
            lambda: cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)]),
            lambda: cursor.callproc("p"),
            cursor.nextset,
            cursor.close,
        )
    ]


def locks_held(settings: Settings) -> Report:
    """At the fork every lock of the pool and the registry is held by a thread that the child has not got."""
    set_up({"default": settings})
    mine = session()
    with locked(*pool_locks("default")):
        child = children.fork(lambda: {"own session": session() > mine, "again": reconnects()})
        report = child.finish()
    return {"child": report, "same session": session() == mine}


def reconnects() -> bool:
    """Whether giving back and borrowing work, on one session."""
    before = session()
    connections["default"].close()
    return session() == before


def connecting_itself(settings: Settings) -> Report:
    """The forking thread is inside its own connect(), in a wrapper that somebody has put around it."""
    set_up({"default": settings})
    import MySQLdb

    connect = MySQLdb.connect
    branches: list[Any] = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        if not branches:
            branches.append(children.branch())
        return connection

    MySQLdb.connect = wrapped
    with suppress(DatabaseError, InterfaceError):
        mine = session()
    child, say = branches[0]
    if not child:
        held = sockets.to_server(settings)
        connections["default"].close()
        say({"sockets": len(held), "own session": session()})
        raise SystemExit
    report = child.finish()
    report["own session"] = report["own session"] > mine
    return {"child": report, "same session": session() == mine}


def hook_that_queries(settings: Settings) -> Report:
    """Somebody else's hook, which runs after the package's own, opens a connection right before the fork."""
    opened: list[int] = []
    os.register_at_fork(
        before=lambda: opened.append(session())
    )  # the last to be registered is the first to run
    set_up({"default": settings})
    connections["default"]  # loads the backend
    report = children.fork(lambda: {"own session": session() > opened[0]}).finish()
    return {"child": report, "same session": [session()] == opened}


# --- endings ------------------------------------------------------------------------------------------------


def endings(settings: Settings) -> Report:
    """Children of the main thread and of another one end normally, while threads have what they have.

    A function registered with atexit queries the database at each end.
    """
    set_up({"default": settings})
    mine = session()
    connections["default"].close()
    same: list[bool] = []

    def borrow(ready: threading.Event, stop: threading.Event) -> None:
        before = held_session()
        with ExitStack() as stack:
            if threading.current_thread().name == "in a transaction":
                stack.enter_context(transaction.atomic())
                session()
            elif threading.current_thread().name == "reading":
                stack.enter_context(half_read())
            ready.set()
            stop.wait()
        same.append(session() == before)
        connections["default"].close()

    def from_thread(ending: children.Ending) -> Report:
        found: list[Report] = []
        forking = threading.Thread(target=lambda: found.append(children.fork(dict, ending).finish()))
        forking.start()
        forking.join()
        return found[0]

    atexit.register(session)
    with ExitStack() as stack:
        for name in ("borrowing", "in a transaction", "reading"):
            stack.enter_context(thread(borrow, name))
        ended = {
            "main thread": children.fork(dict).finish(),
            "other thread": from_thread(children.finalize),
            "other thread returns": from_thread(sys.exit),
        }
    return {"children": ended, "same sessions": same, "idle": session() == mine}


def one_exit(settings: Settings, without: str) -> Report:
    """One child ends normally. The parent has an idle session and one with an open transaction.

    :param without: the part of the invariant's code that is taken out.
    """
    set_up({"default": settings, "idle": settings})
    change("CREATE TABLE t (who TEXT) ENGINE=InnoDB", using="idle")
    take_out(without)
    mine = session(), session("idle")
    connections["idle"].close()
    lost = None
    try:
        with transaction.atomic():
            change("INSERT INTO t VALUES ('parent')")
            report = children.fork(dict).finish()
    except DatabaseError as error:
        lost = error.args[0]
    connections.close_all()
    return {
        "child": report,
        "lost": lost,
        "same sessions": [session() == mine[0], session("idle") == mine[1]],
        "rows": column("SELECT who FROM t"),
    }


def out_of_descriptors(settings: Settings) -> Report:
    """At the fork the process has no descriptor left to open anything with."""
    set_up({"default": settings, "idle": settings})
    mine = session(), session("idle")
    connections["idle"].close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust() -> None:
        os.close(lowest := os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))

    def relax() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    os.register_at_fork(before=exhaust, after_in_parent=relax, after_in_child=relax)
    report = children.fork(dict).finish()
    return {"child": report, "same sessions": (session(), session("idle")) == mine}


# --- more than one fork -------------------------------------------------------------------------------------


def many(settings: Settings, forks: int) -> Report:
    """The parent has ten idle sessions."""
    set_up({"default": {**settings, "POOL": {"pool_size": 10}}})
    mine = ten_sessions()
    before = sockets.descriptors()
    reports = [children.process(dict).finish() for _ in range(forks)]
    after = sockets.descriptors()
    return {
        "children": [report for i, report in enumerate(reports) if report not in reports[:i]],
        "same sessions": ten_sessions() == mine,
        "sessions": len(mine),
        "growth": after - before,
    }


def ten_sessions() -> set[int]:
    """Borrow ten at once."""
    found: set[int] = set()
    everybody = threading.Barrier(10)

    def borrow() -> None:
        found.add(held_session())
        everybody.wait()
        connections["default"].close()

    threads = [threading.Thread(target=borrow) for _ in range(10)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


def all_at_once(settings: Settings) -> Report:
    """Four threads, each with a session, fork at the same time, while two connect anew again and again."""
    set_up({"default": settings, "anew": {**settings, "POOL": False}})
    stop = threading.Event()
    found: list[Report] = []
    failures: list[str] = []
    everybody = threading.Barrier(4)

    def work() -> Report:
        return {"own session": reconnects()}

    def fork() -> None:
        mine = held_session()
        everybody.wait()
        reports = [children.fork(work, children.finalize).finish() for _ in range(5)]
        found.append({"children": reports, "same session": session() == mine})
        connections["default"].close()

    def connect() -> None:
        try:
            while not stop.is_set():
                session("anew")
                connections["anew"].close()
        except Exception as error:
            failures.append(str(error))

    connecting = [threading.Thread(target=connect) for _ in range(2)]
    forking = [threading.Thread(target=fork) for _ in range(4)]
    for each in (*connecting, *forking):
        each.start()
    for each in forking:
        each.join()
    stop.set()
    for each in connecting:
        each.join()
    return {"found": found, "failures": failures}


def generations(settings: Settings) -> Report:
    """A child and its children: forked before it asked anything, and after."""
    set_up({"default": settings})
    mine = session()

    def grandchild() -> Report:
        return {"session": session()}

    def child() -> Report:
        before = children.fork(grandchild, children.finalize).finish()
        own = session()
        after = children.fork(grandchild, children.finalize).finish()
        return {"before": before, "session": own, "after": after, "same session": session() == own}

    report = children.fork(child).finish()
    sessions = [mine, report["before"].pop("session"), report.pop("session"), report["after"].pop("session")]
    return {"child": report, "in order": sessions == sorted(set(sessions)), "same session": session() == mine}


def failed_fork(settings: Settings) -> Report:
    """The kernel refuses a fork. After it threads of the parent connect, and the next fork is right."""
    set_up({"default": settings, "other": settings})
    mine = session()
    go = threading.Event()
    connected: list[int] = []

    def connect() -> None:
        go.wait()
        connected.append(session("other"))

    thread = threading.Thread(target=connect)
    thread.start()
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)  # root may have as many processes as it likes
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, limits[1]))
    error = refusal(os.fork)
    resource.setrlimit(resource.RLIMIT_NPROC, limits)
    if root:
        os.setresuid(0, 0, 0)
    go.set()
    thread.join()
    report = children.fork(lambda: {"own session": session() > mine}).finish()
    return {"error": error, "connected": len(connected), "child": report, "same session": session() == mine}


# --- what others see ----------------------------------------------------------------------------------------


def log(settings: Settings, borrowed: bool) -> Report:
    """What the package logs in a child that borrows twice."""
    set_up({"default": settings, "other": settings})
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    # SQLAlchemy traces each step of a pool, under the name of the pool's class.
    handler.addFilter(lambda record: record.name == "poollife")
    logging.getLogger("poollife").addHandler(handler)
    logging.getLogger("poollife").setLevel(logging.DEBUG)

    def borrow(ready: threading.Event, stop: threading.Event) -> None:
        hold()
        if not borrowed:
            connections["default"].close()
        ready.set()
        stop.wait()
        connections["default"].close()

    def child() -> Report:
        before = len(lines)
        session("other")
        session()
        connections["default"].close()
        session()
        return {"before": before, "lines": list(lines)}

    with thread(borrow, "some thread"):
        lines.clear()
        report = children.fork(child).finish()
    return {"child": report, "parent": lines}


#: Ends with the number of its sockets as its status.
COUNT = """
import os, stat, sys
found = 0
for fd in range(3, 1000):
    try:
        found += stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        pass
sys.exit(found)
"""


def heirs(settings: Settings) -> Report:
    """Programs started with every descriptor that is not close-on-exec; one socket of ours is inheritable."""
    set_up({"default": settings, "idle": settings, "transaction": settings})
    session("idle")
    connections["idle"].close()
    command = [sys.executable, "-I", "-S", "-c", COUNT]
    with transaction.atomic(using="transaction"), half_read(), socket.socket() as known:
        session("transaction")
        known.set_inheritable(True)
        replaced = children.branch()[0]
        if replaced is None:
            os.execv(command[0], command)
        spawned = os.posix_spawn(command[0], command, dict(os.environ))
        return {
            "subprocess": subprocess.run(command, close_fds=False).returncode,
            "subprocess with preexec_fn": subprocess.run(
                command, close_fds=False, preexec_fn=os.getpid
            ).returncode,
            "execv in a child": replaced.finish()["status"],
            "posix_spawn": os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1]),
            "os.system": os.waitstatus_to_exitcode(os.system(shlex.join(command))),
        }


if __name__ == "__main__":
    name, *arguments = map(json.loads, sys.argv[1:])
    print(json.dumps(globals()[name](*arguments)))
