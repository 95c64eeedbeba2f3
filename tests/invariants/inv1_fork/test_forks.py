"""Invariant 1: a session belongs to the process that opened it.

The processes that fork are the programs in tests/support/programs. What they print is compared here, exactly.
Whatever they or their children write to stderr fails the test (``run`` sees to it), and so does a child that
hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from servers import MariaDB
from tests.support.programs.running import run

Via = Literal["tcp", "socket", "tls"]
Entry = Callable[..., dict[str, Any]]

IN_ATOMIC_BLOCK = "Cannot open a new connection in an atomic block."
#: What a child says that inherited no socket, had nothing to report, and ended normally.
UNHARMED = {"inherited": [], "status": 0}


@pytest.fixture
def entry(mariadb: MariaDB, new_database: Callable[[], str]) -> Entry:
    """A function that returns the settings of an empty database."""

    def make(via: Via = "tcp") -> dict[str, Any]:
        return {**mariadb.database(new_database(), via=via), "ENGINE": "poollife.backends.mysql"}

    return make


# --- the storm -----------------------------------------------------------------------------------------

#: What each kind of child says, beside the sockets that it inherited: none.
KINDS: dict[str, dict[str, Any]] = {
    "exit": {"status": 0},
    "collect": {"status": 0},
    "close": {"status": 0},
    "query": {"own session": True, "right": 10, "status": 0},
    "touch": {"attempts": 39, "refused": 39, "status": 0},
    "intrude": {"refusal": IN_ATOMIC_BLOCK, "status": 0},
    "fail": {"status": 1},
    "exit in a transaction": {"status": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(("via", "forks"), [("tcp", 120), ("tls", 120), ("socket", 80)])
def test_storm(entry: Entry, via: Via, forks: int) -> None:
    """Children of every kind, while the parent's threads ask, wait, connect, read and have transactions."""
    report = run("fork_storm", entry(via), forks, list(KINDS), "")
    each = forks // len(KINDS)
    assert report["children"] == {kind: [[said, each]] for kind, said in KINDS.items()}
    assert report["inherited"] == []
    assert report["tracebacks"] == report["marked"] == each
    assert report["ignored"] == 0
    assert report["failures"] == []
    assert report["wrong"] == []
    # Four of the eight kinds are forked in a transaction that gets a row.
    assert report["committed"] == {"main": forks // 2, "thread": forks}
    assert {name: after for name, (before, after) in report["sessions"].items()} == {
        name: before for name, (before, after) in report["sessions"].items()
    }
    assert list(report["sessions"]) == [
        "idle",
        "borrowed",
        "in a transaction",
        "streaming",
        "asking",
        "waiting 1",
        "waiting 2",
        "forking",
    ]
    # It was a storm: forks did come in the middle of queries and of handshakes.
    assert all(report["asked"][name] > 10 for name in ("asking", "waiting 1", "waiting 2", "connecting"))
    assert all(report["forks meanwhile"][state] > 0 for state in ("in a query", "waiting", "connecting"))


@pytest.mark.slow
def test_storm_without_the_gate(entry: Entry) -> None:
    """The storm's proof: forks that don't wait for handshakes leave sockets behind that nobody knows."""
    report = run("fork_storm", entry(), 60, ["close", "query"], "gate")
    assert report["inherited"]


# --- in the middle of something ------------------------------------------------------------------------


def test_fork_inside_atomic(entry: Entry) -> None:
    """The child can't work in the parent's transaction, nor do what is due on its commit."""
    assert run("fork_cases", "inside_atomic", entry()) == {
        "child": {"refusals": [IN_ATOMIC_BLOCK] * 3, "own session": True, "on_commit": [], "status": 0},
        "rows": ["after", "before", "child"],
        "same session": True,
        "on_commit": ["parent's"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(("bare", "refused"), [(False, None), (True, "InterfaceError")])
def test_leaving_an_inherited_block(entry: Entry, bare: bool, refused: str | None) -> None:
    """A child that reaches the end of the parent's atomic block commits nothing."""
    assert run("fork_cases", "leaving_atomic", entry(), bare) == {
        "child": {"refused": refused, "own session": True, "rows": [0], "status": 0},
        "rows": [0],
        "same session": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True])
def test_inherited_cursors(entry: Entry, bare: bool) -> None:
    """Reading, executing, closing and freeing them leaves the parent all its rows."""
    attempts = ["InterfaceError"] * 7 + [None]  # the last is close()
    assert run("fork_cases", "inherited_cursors", entry(), bare) == {
        "child": {"half read": attempts, "open": attempts, "status": 0},
        "half read": True,
        "open": [[1], [2]],
        "same sessions": True,
    }


@pytest.mark.slow
def test_fork_while_locks_are_held(entry: Entry) -> None:
    """A child that waited for a lock of a thread that it has not got would wait for ever."""
    assert run("fork_cases", "locks_held", entry()) == {
        "child": {**UNHARMED, "own session": True, "again": True},
        "same session": True,
    }


def test_fork_inside_connect(entry: Entry) -> None:
    """The child returns from its parent's connect(), and must not take the session for its own."""
    assert run("fork_cases", "connecting_itself", entry()) == {
        "child": {"sockets": 0, "own session": True, "status": 0},
        "same session": True,
    }


def test_hook_that_queries(entry: Entry) -> None:
    """A session opened by somebody else's hook, when ours has already looked what there is."""
    assert run("fork_cases", "hook_that_queries", entry()) == {
        "child": {**UNHARMED, "own session": True},
        "same session": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize("server", ["deaf_tcp", "deaf_socket", "deaf_default_socket", "full_backlog"])
def test_fork_during_a_handshake_without_end(entry: Entry, server: str, tmp_path: Path) -> None:
    """The fork goes on, and the child still doesn't get that socket."""
    assert run("handshake_cases", server, entry(), str(tmp_path)) == {
        "child": {**UNHARMED, "own session": True},
        "unfinished": True,
        "errors": [2013],
        "same session": True,
    }


# --- endings -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("via", ["tcp", "socket", "tls"])
def test_normal_end(entry: Entry, via: Via) -> None:
    """The interpreter's end frees everything: it prints nothing, and the parent doesn't notice."""
    assert run("fork_cases", "endings", entry(via)) == {
        "children": {"main thread": UNHARMED, "other thread": UNHARMED, "other thread returns": UNHARMED},
        "same sessions": [True] * 3,
        "idle": True,
    }


def test_one_exit(entry: Entry) -> None:
    """The smallest case, which the next two show to be able to fail."""
    assert run("fork_cases", "one_exit", entry(), "") == {
        "child": UNHARMED,
        "lost": None,
        "same sessions": [True, True],
        "rows": ["parent"],
    }


def test_one_exit_without_the_guard(entry: Entry) -> None:
    """What happens with the bare driver: the child's end is the end of the parent's sessions."""
    report = run("fork_cases", "one_exit", entry(), "guard")
    assert len(report["child"]["inherited"]) == 2
    assert report["lost"] == 2013
    assert report["same sessions"] == [False, False]
    assert report["rows"] == []


def test_one_exit_without_the_hooks(entry: Entry) -> None:
    """The guard alone saves the sessions, but only hooks keep the child from holding the sockets."""
    report = run("fork_cases", "one_exit", entry(), "hooks")
    assert len(report["child"].pop("inherited")) == 2
    assert report == {
        "child": {"status": 0},
        "lost": None,
        "same sessions": [True, True],
        "rows": ["parent"],
    }


@pytest.mark.slow
def test_fork_without_descriptors(entry: Entry) -> None:
    """The child can't open /dev/null to cover the sockets with."""
    assert run("fork_cases", "out_of_descriptors", entry()) == {"child": UNHARMED, "same sessions": True}


# --- more than one fork --------------------------------------------------------------------------------


@pytest.mark.slow
def test_many_forks(entry: Entry) -> None:
    """Nothing is lost, and nothing grows."""
    assert run("fork_cases", "many", entry(), 120) == {
        "children": [UNHARMED],
        "same sessions": True,
        "sessions": 10,
        "growth": 0,
    }


@pytest.mark.slow
def test_forks_of_several_threads_at_once(entry: Entry) -> None:
    """Each fork waits for handshakes, and each handshake for forks: none for ever."""
    child = {**UNHARMED, "own session": True}
    assert run("fork_cases", "all_at_once", entry()) == {
        "found": [{"children": [child] * 5, "same session": True}] * 4,
        "failures": [],
    }


@pytest.mark.slow
def test_generations(entry: Entry) -> None:
    """A child is itself a parent, before its first query and after."""
    assert run("fork_cases", "generations", entry()) == {
        "child": {**UNHARMED, "before": UNHARMED, "after": UNHARMED, "same session": True},
        "in order": True,
        "same session": True,
    }


@pytest.mark.slow
def test_failed_fork(entry: Entry) -> None:
    """The hooks before a fork that the kernel refuses must not shut the gate for good."""
    assert run("fork_cases", "failed_fork", entry()) == {
        "error": "BlockingIOError",
        "connected": 1,
        "child": {**UNHARMED, "own session": True},
        "same session": True,
    }


# --- forks that no hook sees ---------------------------------------------------------------------------

BARE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "drop": {},
    "drop_cursor": {},
    "keep": {},
    "close": {},
    "close_directly": {},
    "use": {"refused": 20, "of": 20},
    "query": {"own session": True, "sockets": 1},
    "intrude": {"refusal": IN_ATOMIC_BLOCK},
}


@pytest.mark.slow
@pytest.mark.parametrize("via", ["tcp", "socket", "tls"])
def test_bare_fork(entry: Entry, via: Via) -> None:
    """Nobody tells the child, and another thread of its parent had every lock."""
    assert run("bare_forks", entry(via), list(BARE)) == {
        "children": {kind: {**said, "status": 0} for kind, said in BARE.items()},
        "rows": 1,
        "half read": True,
        "same sessions": True,
    }


# --- what others see -----------------------------------------------------------------------------------


def test_log(entry: Entry) -> None:
    """One line names who had a connection, at the child's first checkout."""
    line = "Forked while these connections were in use; the parent keeps them: 'default' (thread some thread)"
    settings = entry()
    assert run("fork_cases", "log", settings, True) == {
        "child": {**UNHARMED, "before": 0, "lines": [f"INFO {line}", *pools_begin(settings)]},
        "parent": [],
    }


@pytest.mark.slow
def test_no_log_if_nobody_had_a_connection(entry: Entry) -> None:
    """Idle sessions concern nobody."""
    settings = entry()
    assert run("fork_cases", "log", settings, False) == {
        "child": {**UNHARMED, "before": 0, "lines": pools_begin(settings)},
        "parent": [],
    }


def pools_begin(settings: dict[str, Any]) -> list[str]:
    """What the log says of the pools that the child makes."""
    place = f"database {settings['NAME']!r} at {settings['HOST']}:{settings['PORT']}"
    return [
        f"INFO Pool {alias!r} begins: {place}, pool_size 5, max_overflow 10" for alias in ("other", "default")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("via", ["tcp", "socket", "tls"])
def test_programs_inherit_no_socket(entry: Entry, via: Via) -> None:
    """However a program is started; the one that each of them counts is the test's own."""
    assert run("fork_cases", "heirs", entry(via)) == {
        "subprocess": 1,
        "subprocess with preexec_fn": 1,
        "execv in a child": 1,
        "posix_spawn": 1,
        "os.system": 1,
    }
