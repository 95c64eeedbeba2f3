"""Corners that need a process of their own: what they are about might hang, or is about forks.

Arguments: the name of the case, the settings of a database, and what else it takes. Prints its findings.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

from django.db import InterfaceError, connections
from sqlalchemy import event

from poollife.drivers.mysql.mysqlclient import GuardedConnection
from tests.support.counting import pool_of
from tests.support.programs import children, sockets
from tests.support.programs.databases import session, set_up
from tests.support.programs.states import locked, pool_locks

Settings = dict[str, Any]
Report = dict[str, Any]


class Strike(BaseException):
    """Comes from outside, as a task's time limit does."""


def struck_fork(settings: Settings) -> Report:
    """Struck between a fork and its end. Another thread then connects."""
    set_up({"default": settings})
    from poollife.process import atfork

    atfork.LIMIT = 0.1
    session()
    ignored: list[str] = []
    # CPython's answer to what a hook raises.
    sys.unraisablehook = lambda what: ignored.append(what.exc_type.__name__)
    open_gate = atfork.at_fork.gate.open

    def strike() -> None:
        atfork.at_fork.gate.open = open_gate  # type: ignore[method-assign]
        raise Strike

    atfork.at_fork.gate.open = strike  # type: ignore[method-assign]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    connected: list[int] = []
    thread = threading.Thread(target=lambda: connected.append(session()), daemon=True)
    thread.start()
    thread.join(10)
    return {"ignored": ignored, "another session": connected > [session()]}


def stats_of_bare_child(settings: Settings) -> Report:
    """Forked by the C function, it asks for the numbers of its pools before it has any."""
    set_up({"default": settings})
    from poollife import pool_stats

    session()

    def ask() -> Report:
        return {"stats": pool_stats(), "inherited": list(sockets.held().values())}

    child = children.fork(ask, lambda: os._exit(0), bare=True)
    return {"child": child.finish(), "parent": pool_stats()["default"]["out"]}


def query_in_handler(settings: Settings) -> Report:
    """A signal comes while its thread makes a pool, and its handler queries."""
    set_up({"default": settings})
    from poollife import pool_stats
    from poollife.pools import registry
    from poollife.pools.pool import LeasePool

    struck: list[bool] = []
    handled: list[int] = []

    def make(*arguments: Any) -> LeasePool:
        if not struck:
            struck.append(True)
            signal.raise_signal(signal.SIGUSR1)
        return LeasePool(*arguments)

    signal.signal(signal.SIGUSR1, lambda *_: handled.append(session()))
    with patch.object(registry, "LeasePool", make):
        session()
    return {
        "handled": len(handled),
        "pools": len(registry.registry.pools()),
        "out": pool_stats()["default"]["out"],
    }


def fork_in_connect(settings: Settings, leave: bool) -> Report:
    """Who is asked for a password forks, and the child goes on through the checkout: with it, or out of it.

    Another thread holds all locks of the pool when it is forked.
    """
    set_up({"default": settings})
    wrapper = connections["default"]
    params = type(wrapper).get_connection_params
    family: list[Any] = []

    def get_connection_params() -> Any:
        if not family:
            with locked(*pool_locks("default")):
                family.extend(children.branch())
            if family[0] is None and leave:
                raise SystemExit
        return params(wrapper)

    wrapper.get_connection_params = get_connection_params  # type: ignore[method-assign]
    try:
        mine = session()
    except SystemExit:
        mine = 0
    child, say = family
    if child is None:
        connections["default"].close()
        say({"in checkout": mine, "afterwards": session()})
        os._exit(0)
    report = child.finish()
    return {
        "left": report.get("in checkout") == 0,
        "own session": mine not in (report.get("in checkout"), report.get("afterwards")),
        "status": report["status"],
        "same session": mine == session(),
    }


def fork_in_pool(settings: Settings, where: str) -> Report:
    """Somebody's own code that a pool calls forks, and the child goes on from there.

    :param where: "checkout" or "checkin", a listener of SQLAlchemy's; or "look", as a session is looked at.
    """
    set_up({"default": settings})
    mine = session()
    pool = pool_of("default")
    family: list[Any] = []

    def fork(*_: Any) -> bool:
        if not family:
            family.extend(children.branch())
        return False

    if where == "look":
        patched: Any = patch.object(GuardedConnection, "closed_by_server", fork)
    else:
        event.listen(pool._sessions, where, fork)
        patched = nullcontext()
    connections["default"].close()
    if not family:
        with patched:
            try:
                found = session()
            except InterfaceError:
                found = 0
    else:
        found = 0
    child, say = family
    if child is None:
        connections["default"].close()
        afterwards = session()
        gc.collect()
        say({"inside": found, "afterwards": afterwards})
        os._exit(0)
    report = child.finish()
    connections["default"].close()
    return {
        "parent's inside": report["inside"] == mine,
        "own session afterwards": report["afterwards"] not in (mine, 0),
        "status": report["status"],
        "same session": session() == mine,
        "opened": pool.opened,
    }


def copy_in_a_child(settings: Settings, bare: bool) -> Report:
    """A shallow copy of a wrapper is used in a child, and closed; so is its original in the parent."""
    set_up({"default": settings})
    mine = session()
    twin = copy.copy(connections["default"])

    def use() -> Report:
        with twin.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            (found,) = cursor.fetchone()
        twin.close()
        return {"own session": found not in (mine, 0)}

    child = children.fork(use, lambda: os._exit(0), bare=bare)
    return {"child": child.finish(), "same session": session() == mine}


if __name__ == "__main__":
    name, *arguments = map(json.loads, sys.argv[1:])
    print(json.dumps(globals()[name](*arguments)))
