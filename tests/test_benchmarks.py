"""``make bench`` measures what it says, in a short run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.__main__ import named
from benchmarks.leaks import KINDS
from benchmarks.peers import BARE, PEERS
from tests.pages import ROOT

ALWAYS, ROLLBACK = "poollife, reset always", "poollife, reset rollback"
#: Round trips.
RESET = 4


def leaks_of(found: dict[str, Any], peer: str) -> set[str]:
    return {kind for kind, verdicts in found["leaks"].items() if verdicts[peer] == "LEAKS"}


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_short_run_has_all_parts() -> None:
    found: dict[str, Any] = json.loads(
        bench("--json", "--only=poollif", "--rounds=2", "--cycles=20", "--memory=40", "--seconds=1")
    )
    views = {name: [each["extra"] for each in views.values()] for name, views in found["round_trips"].items()}
    # One SELECT; a SELECT and an UPDATE with ATOMIC_REQUESTS. A reset is a packet for what a change of user
    # does not end, the change, SET NAMES, and at the next checkout the isolation level.
    assert views == {"poollife": [0, 3], ALWAYS: [RESET, 3 + RESET], ROLLBACK: [0, 3]}
    assert found["leaks"].keys() == KINDS.keys()
    assert len(KINDS) >= 20
    assert leaks_of(found, "poollife") == leaks_of(found, ALWAYS) == set()
    assert len(leaks_of(found, ROLLBACK)) >= 20
    assert found["cycles"].keys() == {BARE.name, "poollife", ALWAYS, ROLLBACK}
    assert found["cycles"][BARE.name]["ratio"] == 1
    assert [step["cycles"] for step in found["memory"]["poollife"]] == [0, 10, 20, 30, 40]
    for part in "fair", "spike", "waiting", "outage":
        assert len(found[part]) == 3
    assert len(found["turns"]) == 4
    for ways in found["turns"].values():
        assert [each["ratio"] == 1 for each in ways.values()] == [True, False, False]
    assert all(each["given_up"] == 0 for name, each in found["fair"].items() if "poollife" in name)
    # Five were there, and a few are opened at a time.
    assert all(each["opened"] <= 8 for name, each in found["spike"].items() if "poollife" in name)


def test_one_can_be_chosen_whose_name_begins_like_others() -> None:
    assert [peer.name for peer in named("poollife")] == ["poollife"]
    assert [peer.name for peer in named("poollife, ")] == [ALWAYS, ROLLBACK]
    assert named(None) == list(PEERS)


def test_who_is_not_there_is_named() -> None:
    missing = [peer for peer in PEERS if peer.missing()]
    for peer in missing:
        printed = bench("--only", peer.name, "--parts", "")
        assert f"MISSING: {peer.name}: {peer.missing()} is not installed" in printed


def test_stock_leaks_what_poollife_is_there_for() -> None:
    """The table would be worth nothing if nothing leaked anywhere."""
    stock = "stock, CONN_MAX_AGE=600"
    assert len(leaks_of(json.loads(bench("--json", "--only", stock, "--parts", "leaks")), stock)) >= 25
