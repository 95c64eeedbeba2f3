"""Forks by the C function, as embedding servers and C extensions make them: none of Python's hooks runs.

Arguments: the settings of a database, and what its children do. Prints what became of them and their parent.
"""

from __future__ import annotations

import gc
import json
import sys
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction

from tests.support.programs import children, sockets
from tests.support.programs.databases import ask, change, session, set_up
from tests.support.programs.states import locked, pool_locks, read_half, refusal, rest_is_right

Settings = dict[str, Any]
Report = dict[str, Any]


class Inheritance:
    """What the child has from its parent, and what it may do with that."""

    def __init__(self, settings: Settings, raw: list[Any], reading: Any, newest: int) -> None:
        self.settings = settings
        self.raw = raw
        self.reading = reading
        self.newest = newest

    def nothing(self) -> Report:
        """The child's end frees everything."""
        return {}

    def drop(self) -> Report:
        """Every reference that the child can get at."""
        self.raw.clear()
        self.reading = None
        for alias in connections:
            del connections[alias]
        gc.collect()
        return {}

    def drop_cursor(self) -> Report:
        """A half-read result that is freed reads the rest of it first."""
        self.reading = None
        gc.collect()
        return {}

    def keep(self) -> Report:
        """Until the very end, when the modules' globals are gone."""
        sys.kept = self  # type: ignore[attr-defined]
        return {}

    def close(self) -> Report:
        connections.close_all()
        return {}

    def close_directly(self) -> Report:
        self.reading.close()
        for connection in self.raw:
            connection.close()
        return {}

    def use(self) -> Report:
        """The driver connections, by what ends on the wire."""
        refusals = [
            refusal(attempt)
            for raw in self.raw
            for attempt in (raw.ping, raw.commit, raw.rollback, raw.cursor, partial(raw.query, "DO 1"))
        ]
        return {"refused": refusals.count("InterfaceError"), "of": len(refusals)}

    def query(self) -> Report:
        """From a pool that the forking thread has nothing of, so that the child gets a session of its own."""
        own = session("idle")
        return {"own session": own > self.newest, "sockets": len(sockets.to_server(self.settings))}

    def intrude(self) -> Report:
        """Into the atomic block that the forking thread is in."""
        try:
            change("INSERT INTO t VALUES ('intruder')", using="transaction")
        except DatabaseError as error:
            return {"refusal": str(error)}
        return {}


def main(settings: Settings, kinds: list[str]) -> Report:
    """Sessions are idle, in a transaction, half read and borrowed; every lock is some other thread's."""
    aliases = ("default", "idle", "transaction", "reading")
    set_up(dict.fromkeys(aliases, settings))
    change("CREATE TABLE t (who TEXT) ENGINE=InnoDB")
    mine = {alias: session(alias) for alias in aliases}
    raw = [connections[alias].connection for alias in aliases]
    reports: dict[str, Report] = {}
    # Nothing but this refers to the cursor.
    child = Inheritance(settings, raw, read_half("reading"), max(mine.values()))
    connections["idle"].close()
    with locked(*pool_locks(*aliases)), transaction.atomic(using="transaction"):
        change("INSERT INTO t VALUES ('parent')", using="transaction")
        for kind in kinds:
            reports[kind] = children.fork(getattr(child, kind), bare=True).finish()
            # Looked at before anything of the package has run.
            reports[kind].pop("inherited", None)
    rest = rest_is_right(child.reading)
    child.reading.close()
    return {
        "children": reports,
        "rows": ask("SELECT COUNT(*) FROM t"),
        "half read": rest,
        "same sessions": {alias: session(alias) for alias in aliases} == mine,
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(json.loads, sys.argv[1:]))))
