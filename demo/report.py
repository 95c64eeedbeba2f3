"""What the burst has shown, in numbers and in plain words."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.databases import Database
from demo.driver import CLIENTS, TROUBLE, Client, Outcome

Pools = dict[int, dict[str, dict[str, Any]]]
_SETTLING = 10.0  # seconds; a worker notices a client that hung up when it next writes


@dataclass
class Evidence:
    """What was seen from outside."""

    outcomes: list[Outcome]
    before: Pools
    after: Pools
    opened: int | None  # as the server counts; None if nobody does
    master: int  # the session that the gunicorn master opened before it forked the workers


@dataclass
class Findings:
    """Everything that was counted."""

    kind: str
    requests: int = 0
    forks: int = 0
    refused: int = 0
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    opened: int | None = None
    in_workers: int = 0
    checkouts: int = 0

    def faults(self) -> list[str]:
        """One line for each thing that must not happen and did."""
        return self.unexpected + self.wrong + self.broken + self.rows + self.out


def ask_workers(address: tuple[str, int], workers: int) -> Pools:
    """The pools of every worker. Whoever is free answers, so ask several at once until all have."""
    answers: Pools = {}
    deadline = time.monotonic() + _SETTLING
    with ThreadPoolExecutor(CLIENTS) as clients:
        while time.monotonic() < deadline and _unsettled(answers, workers):
            answers.update(filter(None, clients.map(_ask_one, [Client(address)] * CLIENTS)))
    return answers


def _unsettled(answers: Pools, workers: int) -> bool:
    return len(answers) < workers or any(pools_out(pools) for pools in answers.values())


def _ask_one(client: Client) -> tuple[int, dict[str, dict[str, Any]]] | None:
    try:
        answer = json.loads(client.get("/__pool__/"))
    except TROUBLE:  # a worker without an answer is missing in the end, which counts
        return None
    return answer["pid"], answer["pools"]


def pools_out(pools: dict[str, dict[str, Any]]) -> int:
    """How many connections of one process are not at home."""
    return sum(int(pool["out"]) for pool in pools.values())


def judge(evidence: Evidence, database: Database) -> Findings:
    """Put together what the clients saw, what the workers say and what the database really holds."""
    findings = Findings(database.kind)
    texts = database.texts()
    for outcome in evidence.outcomes:
        _add(findings, outcome, texts)
    _add_pools(findings, evidence.before, evidence.after)
    findings.opened = evidence.opened
    if not database.is_alive(evidence.master):
        findings.broken.append(f"the session {evidence.master} of the gunicorn master is dead")
    if damage := database.damage():
        findings.broken.append(f"the database file is damaged: {damage}")
    return findings


def _add(findings: Findings, outcome: Outcome, texts: set[str]) -> None:
    findings.requests += 1
    findings.forks += outcome.forks
    findings.refused += outcome.refused
    findings.unexpected += filter(None, [outcome.unexpected])
    findings.wrong += filter(None, [outcome.wrong])
    findings.broken += filter(None, [outcome.broken])
    findings.rows += [f"not stored, though the site said so: {text}" for text in outcome.stored - texts]
    findings.rows += [f"stored, though it was rolled back: {text}" for text in outcome.undone & texts]


def _add_pools(findings: Findings, before: Pools, after: Pools) -> None:
    if before.keys() != after.keys():
        findings.broken.append(f"workers ended or gave no answer: {sorted(before)} became {sorted(after)}")
    for pid, pools in after.items():
        findings.in_workers += sum(int(pool["opened"]) for pool in pools.values())
        findings.checkouts += sum(int(pool["checkouts"]) for pool in pools.values())
        if count := pools_out(pools):
            findings.out.append(f"worker {pid} still misses {count} connections")


def show(console: Console, findings: Findings) -> None:
    """Print the table, and below it everything that went wrong."""
    table = Table(show_lines=True)
    table.add_column("What was counted")
    table.add_column("Count", justify="right")
    table.add_column("What it means")
    for name, count, words, must_be_zero in _rows(findings):
        style = ("green" if count == 0 else "bold red") if must_be_zero else ""
        table.add_row(name, f"[{style}]{count}[/]" if style else str(count), words)
    console.print(table)
    for line, times in Counter(findings.faults()).most_common(20):
        console.print(f"BROKEN ({times}x): {line}", style="red", markup=False, soft_wrap=True)


def _rows(findings: Findings) -> list[tuple[str, int, str, bool]]:
    """Name, count, explanation, and whether anything but 0 is a fault."""
    sessions = "file handles" if findings.kind == "sqlite" else "sessions"
    opened, how = _opened(findings)
    return [
        ("requests", findings.requests, _REQUESTS, False),
        ("unexpected answers", len(findings.unexpected), _UNEXPECTED, True),
        (f"{sessions} opened", opened, how, False),
        ("times one was reused", findings.checkouts - findings.in_workers, _reused(findings), False),
        ("children forked", findings.forks, _forked(findings), False),
        (f"parent {sessions} broken by children", len(findings.broken), _HARM[sessions], True),
        ("wrong answers", len(findings.wrong), _WRONG, True),
        ("rows lost or wrongly kept", len(findings.rows), _ROWS, True),
        ("connections not given back", len(findings.out), _OUT, True),
    ]


_REQUESTS = "Pages, searches, forms, downloads, failures, forks."
_UNEXPECTED = "An error where none should be, or no answer at all."
_HARM = {
    "sessions": "What a child did reached its parent: the session ended, or another one took its place.",
    "file handles": "What a child did reached its parent: a handle was replaced, or the file is damaged.",
}
_WRONG = "A request got what another one had asked for."
_ROWS = "The site said stored and it was not, or it was rolled back and is there."
_OUT = "Still taken out of a worker's pool although no request is running."


def _opened(findings: Findings) -> tuple[int, str]:
    pooled = f"{findings.in_workers} by the workers' pools, 1 by the gunicorn master before it forked them"
    if findings.opened is None:
        return findings.in_workers + 1, f"{pooled}. (Those of the children are not counted.)"
    rest = findings.opened - findings.in_workers - 1
    return findings.opened, f"The server's own count: {pooled}, {rest} by the children for themselves."


def _reused(findings: Findings) -> str:
    return f"A connection was needed {findings.checkouts} times. Without a pool each would be a new one."


def _forked(findings: Findings) -> str:
    return (
        "In the middle of requests. Each child did its worst to the connections it had inherited. "
        f"{findings.refused} were refused the database, because their parent was in a transaction."
    )
